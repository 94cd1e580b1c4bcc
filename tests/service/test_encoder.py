"""Tests of service/encoder but for PNG: stills, animations, layouts, text and the pool."""

import asyncio
import io
import threading
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from service.encoder import (
    AnimationFormat,
    Encoder,
    StillFormat,
    encode_animation,
    encode_apng,
    encode_png,
    encode_still,
    flatten,
    resize,
    sheet,
    strip,
)

Pixels = NDArray[np.uint8]

# Other work on the machine is no failure.
unhurried = settings(deadline=None)

LOSSY: tuple[StillFormat, ...] = ("jpeg", "webp", "avif")
colours = st.tuples(*[st.integers(0, 255)] * 3)


def opened(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def decode(image: Image.Image, channels: int) -> Pixels:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return np.array(image.convert(mode)).reshape(image.height, image.width, channels)


def smooth_pixels(height: int, width: int, channels: int, phase: float = 0.0) -> Pixels:
    """Return slow waves, one for each channel, which lossy formats keep well; RGBA is opaque."""
    y, x = np.mgrid[0:height, 0:width] / 32
    waves = [127 + 100 * np.sin(2 * x + 3 * y * channel + phase) for channel in range(channels)]
    pixels = np.stack(waves, axis=-1).astype(np.uint8)
    if channels == 4:
        pixels[..., 3] = 255
    return pixels


def numbered_pixels(count: int, height: int, width: int, channels: int) -> Pixels:
    return np.arange(count * height * width * channels, dtype=np.uint8).reshape(count, height, width, channels)


def mean_error(actual: Pixels, expected: Pixels) -> float:
    return float(np.abs(actual.astype(float) - expected).mean())


# Stills


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", LOSSY)
def test_lossy_still_opens_in_pillow_and_resembles_its_pixels(format: StillFormat, channels: int) -> None:
    """Format and size are those asked for, and the picture is the same to a few grey levels."""
    pixels = smooth_pixels(40, 31, channels)
    image = opened(encode_still(pixels, format, quality=90))
    assert (image.format, image.size) == (format.upper(), (31, 40))
    assert mean_error(decode(image, channels), pixels) < 4


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", ["png", *LOSSY])
def test_still_of_any_size_opens_in_pillow(format: StillFormat, channels: int, size: tuple[int, int]) -> None:
    """Down to one pixel, which keeps its colour."""
    pixels = np.full((*size, channels), 200, np.uint8)
    background = None if channels < 4 else (200, 200, 200)
    image = opened(encode_still(pixels, format, quality=85, background=background))
    assert image.size == size[::-1]
    assert mean_error(decode(image, min(channels, 3)), pixels[..., :3]) < 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_still_is_encode_png(channels: int) -> None:
    """Byte for byte, with its text."""
    pixels = numbered_pixels(1, 7, 9, channels)[0]
    assert encode_still(pixels, "png", quality=1, text={"Seed": "7"}) == encode_png(pixels, text={"Seed": "7"})


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_format_with_alpha_keeps_it(format: StillFormat) -> None:
    """A transparent half stays transparent, an opaque half opaque."""
    pixels = smooth_pixels(32, 32, 4)
    pixels[:, :16, 3] = 0
    alpha = decode(opened(encode_still(pixels, format, quality=90)), 4)[..., 3]
    assert alpha[:, :14].max() < 16
    assert alpha[:, 18:].min() > 239


def test_jpeg_of_alpha_is_laid_on_white_or_the_background() -> None:
    """JPEG has no alpha; the hidden colour of transparent pixels does not show."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    assert mean_error(decode(opened(encode_still(pixels, "jpeg", quality=95)), 3), np.full((16, 16, 3), 255)) < 2
    blue = decode(opened(encode_still(pixels, "jpeg", quality=95, background=(0, 0, 200))), 3)
    assert mean_error(blue, np.full((16, 16, 3), (0, 0, 200))) < 2


@pytest.mark.parametrize("format", ["png", "webp", "avif"])
def test_background_takes_alpha_away_in_every_format(format: StillFormat) -> None:
    """The picture has no alpha any more and the colour where it was transparent."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    image = opened(encode_still(pixels, format, quality=95, background=(0, 100, 0)))
    assert image.mode == "RGB"
    assert mean_error(decode(image, 3), np.full((16, 16, 3), (0, 100, 0))) < 3


def test_png_with_background_is_flattened_exactly() -> None:
    """The PNG of the flattened pixels, byte for byte."""
    pixels = numbered_pixels(1, 8, 8, 4)[0]
    expected = encode_png(flatten(pixels, (9, 8, 7)))
    assert encode_still(pixels, "png", quality=85, background=(9, 8, 7)) == expected


@pytest.mark.parametrize("format", LOSSY)
def test_quality_changes_the_size(format: StillFormat) -> None:
    """Better is larger."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert len(encode_still(pixels, format, quality=95)) > 1.5 * len(encode_still(pixels, format, quality=20))


@pytest.mark.parametrize("format", LOSSY)
def test_text_is_an_xmp_description(format: StillFormat) -> None:
    """A reader of XMP finds one line for each entry, with any characters."""
    text = {"Software": "vitrine <&> 1", "Label": "größe 日本語\tx"}
    packet = opened(encode_still(smooth_pixels(16, 16, 3), format, quality=85, text=text)).info["xmp"]
    description = ElementTree.fromstring(packet.rstrip(b"\0")).find(".//{http://purl.org/dc/elements/1.1/}description")
    assert description is not None
    assert "".join(description.itertext()) == "Software: vitrine <&> 1\nLabel: größe 日本語\tx"


@pytest.mark.parametrize("format", LOSSY)
def test_xmp_packet_of_the_caller_is_embedded_as_it_is(format: StillFormat) -> None:
    """Under PNG's keyword for it."""
    text = {"XML:com.adobe.xmp": "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "Seed": "7"}
    packet = opened(encode_still(smooth_pixels(16, 16, 3), format, quality=85, text=text)).info["xmp"]
    assert packet.decode().rstrip("\0") == text["XML:com.adobe.xmp"]


@pytest.mark.parametrize("format", LOSSY)
def test_still_without_text_has_no_xmp(format: StillFormat) -> None:
    """Nothing is embedded unasked."""
    assert not opened(encode_still(smooth_pixels(16, 16, 3), format, quality=85)).info.get("xmp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "bmp"}, "format must be one of"),
        ({"quality": 0}, "quality must be in"),
        ({"quality": 101}, "quality must be in"),
        ({"background": (0, 0, 0)}, "only RGBA"),
        ({"pixels": np.zeros((3, 3, 2), np.uint8)}, "pixels must be"),
        ({"text": {"a": "\0"}}, "control characters"),
        ({"text": {"a": "x" * 70000}}, "too long"),
    ],
)
def test_still_refuses_what_it_cannot_encode(change: dict[str, Any], message: str) -> None:
    """Each wrong argument is named."""
    arguments: dict[str, Any] = {"pixels": np.zeros((3, 3, 3), np.uint8), "format": "jpeg", "quality": 85}
    with pytest.raises(ValueError, match=message):
        encode_still(**(arguments | change))


# Animations


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif"])
def test_animation_opens_in_pillow_and_resembles_its_frames(format: AnimationFormat, channels: int) -> None:
    """Frames, their order, their size and the total time."""
    frames = np.stack([smooth_pixels(24, 33, channels, phase=index) for index in range(5)])
    image = opened(encode_animation(frames, format, fps=12, quality=90))
    assert (image.format, image.n_frames, image.size) == (format.upper(), 5, (33, 24))
    total_ms = 0.0
    for index, frame in enumerate(frames):
        image.seek(index)
        image.load()  # AVIF knows a frame's time only then
        total_ms += image.info["duration"]
        # 256 colours cannot show a plane of slow gradients as well.
        assert mean_error(decode(image, channels), frame) < (8 if format == "gif" else 4)
    assert total_ms == pytest.approx(5000 / 12, abs=5)


def test_png_animation_is_apng() -> None:
    """Byte for byte."""
    frames = numbered_pixels(3, 4, 5, 3)
    expected = encode_apng(frames, fps=7, loops=2, text={"Seed": "7"})
    assert encode_animation(frames, "png", fps=7, loops=2, text={"Seed": "7"}) == expected


def test_grey_gif_is_exact() -> None:
    """256 greys fit its palette."""
    frames = np.stack([smooth_pixels(16, 16, 1, phase=index) for index in range(3)])
    image = opened(encode_animation(frames, "gif", fps=10))
    for index, frame in enumerate(frames):
        image.seek(index)
        np.testing.assert_array_equal(decode(image, 1), frame)


def test_transparent_gif_frames_leave_no_trails() -> None:
    """What a frame shows is gone where the next is transparent."""
    frames = np.zeros((3, 8, 8, 4), np.uint8)
    for index in range(3):
        frames[index, :, 2 * index] = (255, 0, 0, 255)
    image = opened(encode_animation(frames, "gif", fps=10))
    for index in range(3):
        image.seek(index)
        np.testing.assert_array_equal(decode(image, 4)[..., 3], frames[index, ..., 3])


@pytest.mark.parametrize(
    ("format", "loops", "loop"),
    [("webp", 0, 0), ("webp", 1, 1), ("webp", 3, 3), ("gif", 0, 0), ("gif", 1, None), ("gif", 3, 2)],
)
def test_loops_count_plays(format: AnimationFormat, loops: int, loop: int | None) -> None:
    """WebP counts plays as we do, GIF the repetitions after the first."""
    frames = np.stack([smooth_pixels(8, 8, 3, phase=index) for index in range(2)])
    assert opened(encode_animation(frames, format, fps=10, loops=loops)).info.get("loop") == loop


@pytest.mark.parametrize(("fps", "shown"), [(60, [20, 20, 20, 20]), (12, [80, 90, 80, 80]), (10, [100] * 4)])
def test_gif_times_are_hundredths_that_browsers_honour(fps: int, shown: list[int]) -> None:
    """Rounded without drift, and never the one hundredth that browsers slow down."""
    frames = np.stack([smooth_pixels(8, 8, 1, phase=index) for index in range(4)])
    image = opened(encode_animation(frames, "gif", fps=fps))
    durations = []
    for index in range(4):
        image.seek(index)
        durations.append(image.info["duration"])
    assert durations == shown


@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif"])
def test_animation_of_one_frame_is_a_picture(format: AnimationFormat) -> None:
    """Not refused, and not empty."""
    pixels = smooth_pixels(16, 16, 1)
    image = opened(encode_animation(pixels[None], format, fps=12, quality=95))
    assert mean_error(decode(image, 1), pixels) < 3


def test_animation_carries_text() -> None:
    """An ASCII comment in GIF, an XMP packet in WebP and AVIF."""
    frames = np.stack([smooth_pixels(8, 8, 3, phase=index) for index in range(2)])
    text = {"Seed": "7", "Label": "größe"}
    comment = opened(encode_animation(frames, "gif", fps=10, text=text)).info["comment"]
    assert comment == b"Seed: 7\nLabel: gr\\xf6\\xdfe"
    for format in ("webp", "avif"):
        packet = opened(encode_animation(frames, format, fps=10, text=text)).info["xmp"]
        assert "Seed: 7\nLabel: größe" in packet.decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "jpeg"}, "format must be one of"),
        ({"quality": 0}, "quality must be in"),
        ({"fps": 0}, "fps must be in"),
        ({"fps": 1001}, "fps must be in"),
        ({"loops": -1}, "loops in"),
        ({"loops": 65536}, "loops in"),
        ({"frames": np.zeros((3, 3, 3), np.uint8)}, "pixels must be"),
        ({"text": {"a": "\0"}}, "control characters"),
    ],
)
def test_animation_refuses_what_it_cannot_encode(change: dict[str, Any], message: str) -> None:
    """Each wrong argument is named."""
    arguments: dict[str, Any] = {"frames": np.zeros((2, 3, 3, 3), np.uint8), "format": "webp", "fps": 12}
    with pytest.raises(ValueError, match=message):
        encode_animation(**(arguments | change))


# Layouts


@unhurried
@given(count=st.integers(1, 12), columns=st.integers(1, 15), channels=st.sampled_from([1, 3, 4]))
def test_sheet_holds_pictures_in_reading_order(count: int, columns: int, channels: int) -> None:
    """Picture i is in row i // columns, column i % columns; open cells are 0."""
    pictures = 1 + numbered_pixels(count, 2, 3, channels) % np.uint8(255)
    result = sheet(list(pictures), columns)
    width = min(columns, count)
    rows = -(-count // width)
    assert result.shape == (rows * 2, width * 3, channels)
    assert result.dtype == np.uint8
    for index in range(rows * width):
        top, left = index // width * 2, index % width * 3
        cell = result[top : top + 2, left : left + 3]
        np.testing.assert_array_equal(cell, pictures[index] if index < count else 0)


def test_sheet_refuses_what_it_cannot_lay_out() -> None:
    """No pictures, two shapes, no columns, and what are no pictures."""
    picture = np.zeros((2, 3, 1), np.uint8)
    with pytest.raises(ValueError, match="one shape"):
        sheet([], 2)
    with pytest.raises(ValueError, match="one shape"):
        sheet([picture, np.zeros((3, 2, 1), np.uint8)], 2)
    with pytest.raises(ValueError, match="columns"):
        sheet([picture], 0)
    with pytest.raises(ValueError, match="pixels must be"):
        sheet([picture.astype(np.int16)], 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_strip_holds_frames_side_by_side(channels: int) -> None:
    """Frame i begins at column i * W."""
    frames = numbered_pixels(4, 2, 3, channels)
    result = strip(frames)
    assert result.shape == (2, 12, channels)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(result[:, index * 3 : index * 3 + 3], frame)


def test_strip_of_one_picture_is_refused() -> None:
    """A strip needs an axis of frames."""
    with pytest.raises(ValueError, match="pixels must be"):
        strip(np.zeros((2, 3, 1), np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("shape", "longest_side", "expected"),
    [((28, 28), 56, (56, 56)), ((40, 20), 60, (60, 30)), ((20, 40), 10, (5, 10)), ((300, 1), 16, (16, 1))],
)
def test_resize_keeps_the_aspect_ratio(
    shape: tuple[int, int], longest_side: int, expected: tuple[int, int], channels: int
) -> None:
    """The longer side is as asked, the shorter in proportion and at least 1; a plain colour stays."""
    pixels = np.full((*shape, channels), 200, np.uint8)
    result = resize(pixels, longest_side)
    assert result.shape == (*expected, channels)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), 200, atol=1)


def test_resize_keeps_the_picture() -> None:
    """Twice as large and back again is the same to a grey level."""
    pixels = smooth_pixels(32, 48, 3)
    assert mean_error(resize(resize(pixels, 96), 48), pixels) < 1


def test_resize_to_the_same_size_is_the_same_array() -> None:
    """No work and no loss."""
    pixels = numbered_pixels(1, 20, 30, 3)[0]
    assert resize(pixels, 30) is pixels


@pytest.mark.parametrize("longest_side", [8, 15, 33, 64])
def test_resize_lets_no_hidden_colour_bleed(longest_side: int) -> None:
    """Opaque red beside transparent green: no visible pixel turns green, and none beside the edge dark."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = (255, 0, 0, 255)
    pixels[:, 8:] = (0, 255, 0, 0)
    result = resize(pixels, longest_side)
    visible = result[result[..., 3] > 8]
    assert len(visible) >= longest_side**2 // 2
    assert visible[:, 1].max() == 0
    assert visible[:, 0].min() >= 250


@pytest.mark.parametrize("longest_side", [0, -1])
def test_resize_to_nothing_is_refused(longest_side: int) -> None:
    """A picture has at least one pixel."""
    with pytest.raises(ValueError, match="longest_side"):
        resize(np.zeros((2, 3, 1), np.uint8), longest_side)


@unhurried
@given(pixels=arrays(np.uint8, (3, 5, 4)), colour=colours)
def test_flatten_is_the_over_operator(pixels: Pixels, colour: tuple[int, int, int]) -> None:
    """Rounded from exact arithmetic, for every alpha."""
    alpha = pixels[..., 3:] / 255
    expected = np.rint(pixels[..., :3] * alpha + np.array(colour) * (1 - alpha))
    np.testing.assert_array_equal(flatten(pixels, colour), expected)


def test_flatten_takes_frames() -> None:
    """Any leading axes: the frames of an animation are laid on the colour one by one."""
    frames = numbered_pixels(3, 2, 5, 4)
    expected = np.stack([flatten(frame, (1, 2, 3)) for frame in frames])
    np.testing.assert_array_equal(flatten(frames, (1, 2, 3)), expected)


@pytest.mark.parametrize("colour", [(-1, 0, 0), (0, 256, 0)])
def test_flatten_refuses_what_is_no_colour(colour: tuple[int, int, int]) -> None:
    """Parts out of range do not wrap round."""
    with pytest.raises(ValueError, match="colour"):
        flatten(np.zeros((2, 2, 4), np.uint8), colour)


# The pool


async def test_pool_runs_off_the_event_loop_and_returns() -> None:
    """Arguments and result pass, by position and by keyword."""
    encoder = Encoder(2)
    pixels = numbered_pixels(1, 3, 3, 3)[0]
    assert await encoder.run(encode_png, pixels, text={"a": "b"}) == encode_png(pixels, text={"a": "b"})
    assert await encoder.run(threading.get_ident) != threading.get_ident()
    encoder.close()


async def test_pool_raises_what_the_function_raises() -> None:
    """A bad picture is its caller's error, and the pool goes on."""
    encoder = Encoder(1)
    with pytest.raises(ValueError, match="pixels must be"):
        await encoder.run(encode_png, np.zeros((2, 2, 2), np.uint8))
    assert await encoder.run(len, b"abc") == 3
    encoder.close()


async def test_pool_runs_as_many_calls_at_once_as_it_has_threads() -> None:
    """Three of nine at a time: a barrier for three is passed, and no fourth is ever inside."""
    encoder = Encoder(3)
    barrier = threading.Barrier(3, timeout=20)
    lock = threading.Lock()
    inside = 0
    most = 0

    def call() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait()
        with lock:
            inside -= 1
        barrier.wait()

    await asyncio.gather(*(encoder.run(call) for _ in range(9)))
    assert most == 3
    encoder.close()


async def test_cancelled_call_that_waits_never_begins() -> None:
    """Its place in the queue is freed, and the calls around it are unharmed."""
    encoder = Encoder(1)
    begun: list[str] = []
    entered, release = threading.Event(), threading.Event()

    def block() -> str:
        entered.set()
        assert release.wait(20)
        return "done"

    first = asyncio.create_task(encoder.run(block))
    waiting = asyncio.create_task(encoder.run(begun.append, "cancelled"))
    last = asyncio.create_task(encoder.run(begun.append, "last"))
    await asyncio.to_thread(entered.wait, 20)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    assert await first == "done"
    await last
    assert begun == ["last"]
    encoder.close()


async def test_closed_pool_takes_no_calls() -> None:
    """Closing twice is harmless."""
    encoder = Encoder(1)
    await encoder.run(len, b"")
    encoder.close()
    encoder.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        await encoder.run(len, b"")


@pytest.mark.parametrize("threads", [0, -1])
def test_pool_without_threads_is_refused(threads: int) -> None:
    """It could never finish a call."""
    with pytest.raises(ValueError, match="threads"):
        Encoder(threads)
