"""GET and POST /interpolate: animations, strips and frames between seeds or through keyframes."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.api.harness import Z_DIM, assert_problem, faked, frames, pixels

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def picture(client: httpx.AsyncClient, **parameters: object) -> np.ndarray:
    """Return the pixels that GET /generate gives."""
    answer = await client.get("/generate", params=parameters)
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


async def animation(client: httpx.AsyncClient, **parameters: object) -> list[np.ndarray]:
    """Return the frames that GET /interpolate gives; a trailing underscore of `from_` is left off."""
    query = {name.rstrip("_"): value for name, value in parameters.items()}
    answer = await client.get("/interpolate", params=query)
    assert answer.status_code == 200, answer.text
    return frames(answer.content)


async def way(client: httpx.AsyncClient, **body: object) -> list[np.ndarray]:
    """Return the frames that POST /interpolate gives."""
    answer = await client.post("/interpolate", json=body)
    assert answer.status_code == 200, answer.text
    return frames(answer.content)


@pytest.mark.parametrize("psi", [None, 0.3])
@pytest.mark.parametrize("mode", ["slerp", "lerp", "w"])
@pytest.mark.parametrize(
    ("start", "end", "label", "label_to"), [(1, 2, "bag", None), (1, 2, 0, 2), ("shop", "sku-7", "boot", "tee")]
)
async def test_ends_are_the_pictures_of_generate(
    client: httpx.AsyncClient,
    mode: str,
    psi: float | None,
    start: int | str,
    end: int | str,
    label: int | str,
    label_to: int | str | None,
) -> None:
    """The first and last frames are, pixel for pixel, what /generate gives for `from` and `to`."""
    common = {} if psi is None else {"truncation_psi": psi}
    last_label = label if label_to is None else label_to
    labels = {"label": label} | ({} if label_to is None else {"label_to": label_to})
    drawn = await animation(client, from_=start, to=end, steps=4, mode=mode, **labels, **common)
    assert len(drawn) == 4
    np.testing.assert_array_equal(drawn[0], await picture(client, seed=start, label=label, **common))
    np.testing.assert_array_equal(drawn[-1], await picture(client, seed=end, label=last_label, **common))
    assert any((between != drawn[0]).any() and (between != drawn[-1]).any() for between in drawn[1:-1])


async def test_ends_are_the_pictures_of_generate_in_another_size(client: httpx.AsyncClient) -> None:
    """The ends agree also where pictures are enlarged."""
    drawn = await animation(client, from_=1, to=2, steps=2, label=0, size=40)
    for frame, seed in zip(drawn, (1, 2), strict=True):
        np.testing.assert_array_equal(frame, await picture(client, seed=seed, label=0, size=40))


async def test_label_of_the_start_holds_for_all_frames(client: httpx.AsyncClient) -> None:
    """Without a label, the one that /generate draws from `from` is that of both ends."""
    answer = await client.get("/generate?seed=5", headers={"Accept": "application/json"})
    label = answer.json()["images"][0]["label"]["index"]
    drawn = await animation(client, from_=5, to=6, steps=2)
    np.testing.assert_array_equal(drawn[0], await picture(client, seed=5))
    np.testing.assert_array_equal(drawn[1], await picture(client, seed=6, label=label))


async def test_default_is_sixteen_frames_of_an_endless_apng(client: httpx.AsyncClient) -> None:
    """Without further parameters the answer is an APNG of 16 frames, 12 a second, through the style space."""
    answer = await client.get("/interpolate?from=1&to=2")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (16, (16, 16), 0)
        assert image.info["duration"] == pytest.approx(1000 / 12)
    np.testing.assert_array_equal(await animation(client, from_=1, to=2, mode="w"), frames(answer.content))


async def test_fps_is_the_pace(client: httpx.AsyncClient) -> None:
    """`fps` frames take a second."""
    answer = await client.get("/interpolate?from=1&to=2&steps=2&fps=50")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.info["duration"] == pytest.approx(20)


async def test_modes_and_easing_change_what_lies_between(client: httpx.AsyncClient) -> None:
    """The three modes, and slow ends, differ between the same two ends."""
    ways = [{"mode": mode} for mode in ("slerp", "lerp", "w")] + [{"mode": "w", "easing": "cosine"}]
    drawn = [await animation(client, from_=1, to=2, steps=5, label=0, **choice) for choice in ways]
    assert len({np.stack(each).tobytes() for each in drawn}) == len(ways)
    assert len({each[0].tobytes() for each in drawn}) == 1


@pytest.mark.parametrize(("loop", "count"), [("none", 4), ("wrap", 6), ("bounce", 6)])
async def test_loop_adds_the_way_back(client: httpx.AsyncClient, loop: str, count: int) -> None:
    """A loop starts with the same frames and does not show its ends twice."""
    drawn = await animation(client, from_=1, to=2, steps=4, loop=loop)
    assert len(drawn) == count
    np.testing.assert_array_equal(drawn[:4], await animation(client, from_=1, to=2, steps=4))
    if loop == "bounce":
        np.testing.assert_array_equal(drawn[4:], [drawn[2], drawn[1]])


@pytest.mark.parametrize("form", ["webp", "gif", "avif"])
async def test_format_decides_the_media_type(client: httpx.AsyncClient, form: str) -> None:
    """Other animations are sent under their own media type, chosen by parameter or by Accept."""
    query = "/interpolate?from=1&to=2&steps=3&size=32"
    for answer in (
        await client.get(f"{query}&format={form}"),
        await client.get(query, headers={"Accept": f"image/{form}"}),
    ):
        assert answer.headers["content-type"] == f"image/{form}"
        assert len(frames(answer.content)) == 3


async def test_strip_is_one_still_with_the_frames_in_a_row(client: httpx.AsyncClient) -> None:
    """`strip` lays the animation's frames side by side in one PNG."""
    answer = await client.get("/interpolate?from=1&to=2&steps=5&layout=strip")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert not getattr(image, "is_animated", False)
    drawn = await animation(client, from_=1, to=2, steps=5)
    np.testing.assert_array_equal(pixels(answer.content), np.concatenate(drawn, axis=1))


async def test_frames_come_as_json_entries(client: httpx.AsyncClient) -> None:
    """`frames` gives each frame as a PNG of its own, which tells where it comes from."""
    body = {"from": 1, "to": 2, "steps": 3, "layout": "frames", "size": 20}
    answer = await client.post("/interpolate", json=body, headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert (document["model"], document["fps"]) == ("tiny@2", 12)
    assert document["digest"] == answer.headers["x-model-digest"]
    assert [(entry["index"], entry["width"], entry["height"]) for entry in document["frames"]] == [
        (index, 20, 20) for index in range(3)
    ]
    files = [base64.b64decode(entry["b64"]) for entry in document["frames"]]
    np.testing.assert_array_equal(
        [pixels(file) for file in files], await animation(client, from_=1, to=2, steps=3, size=20)
    )
    with Image.open(io.BytesIO(files[1])) as image:
        assert image.text["Model"] == "tiny@2"


async def test_frames_cannot_be_one_picture(client: httpx.AsyncClient) -> None:
    """Frames have no image type: without an Accept that names JSON the answer is 406."""
    assert_problem(await client.get("/interpolate?from=1&to=2&layout=frames"), 406, "not-acceptable")


async def test_animation_as_json_holds_the_file(client: httpx.AsyncClient) -> None:
    """An Accept that names JSON gets the animation inside a document."""
    answer = await client.get("/interpolate?from=1&to=2&steps=3", headers={"Accept": "application/json"})
    document = answer.json()
    assert (document["frame_count"], document["media_type"]) == (3, "image/png")
    assert len(frames(base64.b64decode(document["b64"]))) == 3


async def test_keyframes_are_shown_once_each(client: httpx.AsyncClient) -> None:
    """Neighbouring segments share their keyframe, which is the picture of its seed and label."""
    stops = [{"seed": 1, "label": "bag"}, {"seed": "sku", "label": 2}, {"seed": 3}]
    drawn = await way(client, keyframes=stops, steps=3)
    assert len(drawn) == 5
    for index, (seed, label) in enumerate([(1, 1), ("sku", 2), (3, 1)]):
        np.testing.assert_array_equal(drawn[2 * index], await picture(client, seed=seed, label=label))


async def test_keyframe_can_be_a_latent(client: httpx.AsyncClient) -> None:
    """A latent stands for the picture that POST /generate draws from it."""
    latent = [0.5] * Z_DIM
    drawn = await way(client, keyframes=[{"latent": latent, "label": 1}, {"seed": 1}], steps=2)
    answer = await client.post("/generate", json={"latents": [latent], "label": 1})
    np.testing.assert_array_equal(drawn[0], pixels(answer.content))


async def test_post_gives_what_get_gives(client: httpx.AsyncClient) -> None:
    """The same parameters give the same bytes by either method."""
    by_get = await client.get("/interpolate?from=1&to=2&steps=3&label=0&label_to=1&mode=lerp")
    body = {"from": 1, "to": 2, "steps": 3, "label": 0, "label_to": 1, "mode": "lerp"}
    by_post = await client.post("/interpolate", json=body)
    assert by_get.content == by_post.content
    assert by_post.headers["cache-control"] == "no-store"
    assert "etag" not in by_post.headers


async def test_background_is_laid_under_every_frame(client: httpx.AsyncClient) -> None:
    """A colour makes an animation with alpha opaque; without one it keeps its alpha."""
    assert (await animation(client, model="veil", from_=1, to=2, steps=2))[0].shape == (16, 16, 4)
    drawn = await animation(client, model="veil", from_=1, to=2, steps=2, background="navy")
    for frame, seed in zip(drawn, (1, 2), strict=True):
        np.testing.assert_array_equal(frame, await picture(client, model="veil", seed=seed, background="navy"))


async def test_animation_has_the_documented_headers(client: httpx.AsyncClient) -> None:
    """An animation tells its seeds, model, digest and timing, and may be used on other sites."""
    answer = await client.get("/interpolate?from=7&to=sku-4711&steps=2")
    assert answer.headers["x-seed"] == "7,8197715898328827"
    assert answer.headers["x-model"] == "tiny@2"
    assert answer.headers["x-model-digest"].startswith("sha256:")
    assert answer.headers["server-timing"].startswith("queue;dur=")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tiny@2", "public, max-age=31536000, immutable"),
        ("tiny", "public, max-age=60, stale-while-revalidate=600"),
    ],
)
async def test_animation_is_cached_like_a_picture(client: httpx.AsyncClient, model: str, expected: str) -> None:
    """An animation that names its version stays true for ever."""
    answer = await client.get("/interpolate", params={"from": 1, "to": 2, "steps": 2, "model": model})
    assert answer.headers["cache-control"] == expected


async def test_known_etag_is_answered_304_without_the_engine() -> None:
    """If-None-Match saves the drawing, and every parameter that changes the animation changes its ETag."""
    async with faked() as (client, engine, _):
        query = {"from": 1, "to": 2, "steps": 3, "label": 0}
        full = await client.get("/interpolate", params=query)
        drawn = len(engine.batches)
        again = await client.get("/interpolate", params=query, headers={"If-None-Match": full.headers["etag"]})
        assert (again.status_code, again.content, len(engine.batches)) == (304, b"", drawn)
        assert again.headers["cache-control"] == full.headers["cache-control"]
        tags = {full.headers["etag"]}
        changes: list[dict[str, object]] = [
            {"from": 3},
            {"to": 3},
            {"steps": 4},
            {"mode": "lerp"},
            {"easing": "cosine"},
        ]
        changes += [{"loop": "wrap"}, {"fps": 5}, {"label": 1}, {"label_to": 1}, {"layout": "strip"}, {"format": "gif"}]
        changes += [{"truncation_psi": 0.5}, {"size": 20}, {"metadata": False}, {"format": "webp", "quality": 5}]
        for change in changes:
            tags.add((await client.get("/interpolate", params=query | change)).headers["etag"])
        assert len(tags) == 1 + len(changes)
