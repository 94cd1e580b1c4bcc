"""Tests of service/rng.py, service/sampler.py and service/sample.py, and of docs/rng.md against both."""

import dataclasses
import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox
from numpy.typing import NDArray

from service.rng import MAX_SEED, label_from, latents, normals
from service.sample import Sample
from service.sampler import (
    Easing,
    Keyframe,
    Loop,
    Mode,
    frame_count,
    lerp,
    path,
    seed_from,
    slerp,
)

ROOT = Path(__file__).parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/data/philox_bm_1.json").read_text(encoding="utf-8"))
DOC = (ROOT / "docs/rng.md").read_text(encoding="utf-8")

# Other work on the machine is no failure.
unhurried = settings(deadline=None)
seeds = st.integers(0, MAX_SEED)
Vector = NDArray[np.float32]


def philox_block(counter: int, key: int) -> list[int]:
    """Return Philox4x64-10 of a 256-bit counter and a 128-bit key, after section 3.3 and table 2 of the paper."""
    words = [counter >> shift & (2**64 - 1) for shift in (0, 64, 128, 192)]
    low_key, high_key = key & (2**64 - 1), key >> 64
    for round_number in range(10):
        high_0, low_0 = divmod(words[0] * 0xD2E7470EE14C6C93, 2**64)
        high_1, low_1 = divmod(words[2] * 0xCA5A826395121157, 2**64)
        key_0 = (low_key + round_number * 0x9E3779B97F4A7C15) % 2**64
        key_1 = (high_key + round_number * 0xBB67AE8584CAA73B) % 2**64
        words = [high_1 ^ words[1] ^ key_0, low_1, high_0 ^ words[3] ^ key_1, low_0]
    return words


def reference_latent(seed: int, z_dim: int) -> Vector:
    words = [word for block in range(1, z_dim // 4 + 2) for word in philox_block(block, seed)]
    z = []
    for a, b in zip(words[0::2], words[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(((a >> 11) + 1) / 2**53))
        z += [radius * math.cos(2 * math.pi * (b >> 11) / 2**53), radius * math.sin(2 * math.pi * (b >> 11) / 2**53)]
    return np.array(z[:z_dim], np.float32)


def assert_latents_match(actual: Vector, expected: Vector) -> None:
    """Allow for another maths library: one unit in the last place of a float32."""
    np.testing.assert_array_max_ulp(actual, expected, maxulp=1)


# The reference, the vectors and the document


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        (0, 0, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (2**256 - 1, 2**128 - 1, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ],
)
def test_reference_gives_known_answers_of_random123(counter: int, key: int, block: str) -> None:
    """The reference of these tests is Philox 4x64-10 as its authors published it."""
    assert philox_block(counter, key) == [int(word, 16) for word in block.split()]


@unhurried
@given(seed=seeds)
def test_numpy_words_are_reference_words_from_counter_one(seed: int) -> None:
    """NumPy increases the counter before the first block, as docs/rng.md says."""
    expected = philox_block(1, seed) + philox_block(2, seed)
    assert Philox(key=seed, counter=0).random_raw(8).tolist() == expected


@pytest.mark.parametrize("vector", VECTORS["latents"], ids=lambda vector: str(vector["seed"]))
def test_latents_match_published_vectors(vector: dict[str, Any]) -> None:
    """The published words are those of the reference, and the published latents are ours."""
    blocks = [philox_block(block, vector["seed"]) for block in range(1, 17)]
    assert [int(word, 16) for word in vector["words"]] == [word for block in blocks for word in block]
    assert_latents_match(latents([vector["seed"]], 64)[0], np.array(vector["latents"], np.float32))


@pytest.mark.parametrize("vector", VECTORS["labels"], ids=lambda vector: str(vector["seed"]))
def test_label_matches_published_vectors(vector: dict[str, Any]) -> None:
    """The published words are those of the reference at counter 2**192 + 1, and the published labels are ours."""
    assert int(vector["word"], 16) == philox_block(2**192 + 1, vector["seed"])[0]
    assert label_from(vector["seed"], vector["num_classes"]) == vector["label"]


@pytest.mark.parametrize("vector", VECTORS["string_seeds"], ids=lambda vector: str(vector["value"]))
def test_string_seed_matches_published_vectors(vector: dict[str, Any]) -> None:
    """Strings become the seeds that we published."""
    assert seed_from(vector["value"]) == vector["seed"]


def test_document_prints_the_vectors() -> None:
    """The tables of docs/rng.md say what tests/data/philox_bm_1.json says."""
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", DOC, re.M)]
    rows = [row for row in tables if row[0] not in ("seed", "string", "---")]
    expected = [
        [str(v["seed"]), " ".join(f"`{word}`" for word in v["words"][:4]), ", ".join(map(str, v["latents"][:4]))]
        for v in VECTORS["latents"]
    ]
    expected += [[str(v["seed"]), f"`{v['word']}`", str(v["label"])] for v in VECTORS["labels"]]
    expected += [[f"`{v['value']}`", f"`{v['value'].encode().hex()}`", str(v["seed"])] for v in VECTORS["string_seeds"]]
    assert rows == expected


def test_document_program_gives_the_vectors() -> None:
    """The program in docs/rng.md is a complete implementation."""
    (program,) = re.findall(r"```python\n(.*?)```", DOC, re.S)
    names: dict[str, Any] = {}
    exec(program, names)
    for vector in VECTORS["latents"]:
        latent = np.array(names["latent"](vector["seed"], 64), np.float32)
        assert_latents_match(latent, np.array(vector["latents"], np.float32))
        assert len(names["latent"](vector["seed"], 5)) == 5
    for vector in VECTORS["labels"]:
        assert names["label"](vector["seed"], vector["num_classes"]) == vector["label"]


# Latents


@unhurried
@given(seed=seeds, z_dim=st.integers(1, 70))
def test_latents_match_reference_at_any_seed_and_length(seed: int, z_dim: int) -> None:
    """Odd lengths and lengths that end within a block too."""
    z = latents([seed], z_dim)
    assert z.dtype == np.float32
    assert z.shape == (1, z_dim)
    assert z.flags.c_contiguous
    assert_latents_match(z[0], reference_latent(seed, z_dim))


@unhurried
@given(batch=st.lists(seeds, max_size=70), z_dim=st.integers(1, 40))
def test_latent_is_the_same_alone_and_in_any_batch(batch: list[int], z_dim: int) -> None:
    """A row depends on its own seed only, to the byte."""
    z = latents(batch, z_dim)
    assert z.shape == (len(batch), z_dim)
    for row, seed in zip(z, batch, strict=True):
        assert row.tobytes() == latents([seed], z_dim)[0].tobytes()


@unhurried
@given(seed=seeds, z_dim=st.integers(1, 40), longer=st.integers(1, 40))
def test_latent_is_a_prefix_of_a_longer_one(seed: int, z_dim: int, longer: int) -> None:
    """Numbers are taken from the stream in order."""
    assert latents([seed], z_dim)[0].tobytes() == latents([seed], z_dim + longer)[0, :z_dim].tobytes()


def test_latents_are_the_same_on_many_threads() -> None:
    """Threads that interleave seeds, lengths and labels do not disturb each other's generator."""
    expected = [(latents([seed], 101).tobytes(), label_from(seed, 10)) for seed in range(50)]

    def draw(start: int) -> bool:
        for turn in range(200):
            seed = (start + turn * 7) % 50
            if (latents([seed], 101).tobytes(), label_from(seed, 10)) != expected[seed]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(draw, range(8)))


def test_normals_of_extreme_words_have_closed_forms() -> None:
    """The least first word gives the greatest radius, finite; the greatest gives none; the second word turns it."""
    most, quarter = 2**64 - 1, 2**62
    words = np.array([[0, 0, 0, quarter, most, quarter, 2047, 2 * quarter]], np.uint64)
    r = math.sqrt(106 * math.log(2))
    np.testing.assert_allclose(normals(words), [[r, 0, 0, r, 0, 0, -r, 0]], atol=1e-6)


def test_latents_are_standard_normal() -> None:
    """Mean, variance, Kolmogorov-Smirnov distance and fourth moment of 64,000 numbers of consecutive seeds."""
    z = latents(range(1000), 64).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in np.sort(z, axis=None)])
    distance = max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())
    assert distance < 1.63 / math.sqrt(n)  # the 1 % point


def test_latents_are_uncorrelated() -> None:
    """Neither components of one latent nor latents of neighbouring seeds are correlated."""
    z = latents(range(4000), 16).astype(np.float64)
    neighbours = (z[1:] * z[:-1]).mean(axis=0)
    components = z.T @ z / len(z) - np.eye(16)
    # 16 and 136 normal statistics: 4.5 standard deviations (of z**2, on the diagonal, sqrt(2) times larger).
    assert np.abs(neighbours).max() < 4.5 / math.sqrt(len(z))
    assert np.abs(components).max() < 4.5 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**64, 2**200])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    """A seed that the stream is not defined for is an error, never wrapped round."""
    with pytest.raises(ValueError, match=re.escape(f"[0, {MAX_SEED}]")):
        latents([3, seed], 4)
    with pytest.raises(ValueError, match=re.escape(f"[0, {MAX_SEED}]")):
        label_from(seed, 4)


@pytest.mark.parametrize("z_dim", [0, -2])
def test_z_dim_below_one_is_refused(z_dim: int) -> None:
    """A latent has at least one number."""
    with pytest.raises(ValueError, match="z_dim"):
        latents([1], z_dim)


# Seeds and labels


@unhurried
@given(seed=seeds)
def test_integer_seed_is_itself_also_as_a_string(seed: int) -> None:
    """Digits below 2**53 are that integer, with leading zeros or without."""
    assert seed_from(seed) == seed
    assert seed_from(str(seed)) == seed
    assert seed_from("000" + str(seed)) == seed


@unhurried
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=128))
def test_any_string_gives_a_seed_in_range(text: str) -> None:
    """Every string that the contract admits names a picture, always the same one."""
    assert 0 <= seed_from(text) <= MAX_SEED
    assert seed_from(text) == seed_from(text)


@pytest.mark.parametrize("text", [str(2**53), "9" * 128, "\u0663", "+7", " 7", "7.0", "-7", "1_0", "x" * 128])
def test_string_that_is_no_seed_number_is_hashed(text: str) -> None:
    """Only ASCII digits below 2**53 are a number."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert seed_from(text) == int(digest[:16], 16) // 2**11


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "must be in"),
        (2**53, "must be in"),
        (True, "bool"),
        (1.0, "float"),
        (None, "NoneType"),
        ("", "1 to 128 characters, got 0"),
        ("x" * 129, "1 to 128 characters, got 129"),
        ("1" * 5000, "1 to 128 characters, got 5000"),
        ("\ud800", "valid Unicode"),
    ],
)
def test_value_that_is_no_seed_is_refused(value: Any, message: str) -> None:
    """Every refusal is a ValueError that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        seed_from(value)


def test_integer_too_long_to_print_is_refused_as_such() -> None:
    """Python cannot print an integer of 5000 digits; the refusal does not try to."""
    with pytest.raises(ValueError, match="must be in"):
        seed_from(10**5000)


@pytest.mark.parametrize("num_classes", [1, 3, 10])
def test_labels_are_uniform(num_classes: int) -> None:
    """Every label is drawn about equally often (chi squared below its 99.9 % point for 9 degrees of freedom)."""
    counts = np.bincount([label_from(seed, num_classes) for seed in range(6000)], minlength=num_classes)
    assert len(counts) == num_classes
    assert ((counts - 6000 / num_classes) ** 2).sum() * num_classes / 6000 < 27.9


@unhurried
@given(seed=seeds, num_classes=st.integers(1, 2**53))
def test_label_is_below_num_classes(seed: int, num_classes: int) -> None:
    """Also for numbers of classes that do not divide 2**53."""
    assert 0 <= label_from(seed, num_classes) < num_classes


@pytest.mark.parametrize("num_classes", [0, -1, 2**53 + 1])
def test_num_classes_out_of_range_is_refused(num_classes: int) -> None:
    """An unconditional model has no label to draw."""
    with pytest.raises(ValueError, match="num_classes"):
        label_from(1, num_classes)


# Interpolation


@pytest.mark.parametrize("interpolate", [lerp, slerp])
@unhurried
@given(seed_a=seeds, seed_b=seeds, z_dim=st.integers(1, 40))
def test_interpolation_is_exact_at_both_ends(interpolate: Any, seed_a: int, seed_b: int, z_dim: int) -> None:
    """The ends are the given vectors, to the byte, also where they are parallel or the same."""
    a, b = latents([seed_a, seed_b], z_dim)
    assert interpolate(a, b, 0.0).tobytes() == a.tobytes()
    assert interpolate(a, b, 1.0).tobytes() == b.tobytes()


@pytest.mark.parametrize("interpolate", [lerp, slerp])
def test_interpolation_is_exact_at_both_ends_for_unequal_magnitudes(interpolate: Any) -> None:
    """Not even float32's extremes are lost in the sum."""
    a, b = np.array([1e-30, 3e30, 0], np.float32), np.array([3e30, -1e-38, 7], np.float32)
    assert interpolate(a, b, 0.0).tobytes() == a.tobytes()
    assert interpolate(a, b, 1.0).tobytes() == b.tobytes()


def test_lerp_takes_the_straight_line() -> None:
    """The closed form at a quarter."""
    a, b = np.array([0, 4], np.float32), np.array([8, -4], np.float32)
    assert lerp(a, b, 0.25).tolist() == [2.0, 2.0]
    assert lerp(a, b, 0.25).dtype == np.float32


def test_slerp_of_right_angle_has_closed_form() -> None:
    """On a quarter circle the components are cosine and sine, times the interpolated norm."""
    a, b = np.array([2, 0, 0], np.float32), np.array([0, 4, 0], np.float32)
    for t in (0.1, 0.5, 0.75):
        expected = (2 + 2 * t) * np.array([math.cos(t * math.pi / 2), math.sin(t * math.pi / 2), 0])
        np.testing.assert_allclose(slerp(a, b, t), expected, rtol=1e-6)
    assert slerp(a, b, 0.5).dtype == np.float32


@unhurried
@given(seed_a=seeds, seed_b=seeds, t=st.floats(0, 1))
def test_slerp_interpolates_norm_and_angle(seed_a: int, seed_b: int, t: float) -> None:
    """The norm is linear in t, and so is the angle from the start."""
    a, b = latents([seed_a, seed_b], 32).astype(np.float64)
    z = slerp(a.astype(np.float32), b.astype(np.float32), t).astype(np.float64)
    norm_a, norm_b, norm_z = (np.linalg.norm(v) for v in (a, b, z))
    np.testing.assert_allclose(norm_z, (1 - t) * norm_a + t * norm_b, rtol=1e-6)
    whole, part = (math.acos(min(1.0, a @ v / norm_a / np.linalg.norm(v))) for v in (b, z))
    assert part == pytest.approx(t * whole, abs=1e-3)


@pytest.mark.parametrize("factor", [2.0, 1.0, -1.0, -3.0, 0.0])
def test_slerp_of_parallel_vectors_is_lerp(factor: float) -> None:
    """Where the great circle is a point or not unique, the line is taken, and nothing is divided by zero."""
    a = latents([5], 16)[0]
    b = (factor * a).astype(np.float32)
    for t in (0.0, 0.3, 0.5, 1.0):
        assert slerp(a, b, t).tobytes() == lerp(a, b, t).tobytes()


def test_slerp_is_accurate_for_small_angles() -> None:
    """Just outside the fallback the result still agrees with the line to float32."""
    a = np.array([1, 0], np.float32)
    b = np.array([1, 1e-5], np.float32)
    np.testing.assert_allclose(slerp(a, b, 0.3), lerp(a, b, 0.3), rtol=1e-5)


@pytest.mark.parametrize("interpolate", [lerp, slerp])
def test_vectors_of_two_shapes_are_refused(interpolate: Any) -> None:
    """No silent broadcasting."""
    with pytest.raises(ValueError, match=r"\(4,\) and \(1,\)"):
        interpolate(np.ones(4, np.float32), np.ones(1, np.float32), 0.5)


# Paths


def keyframes_of(*labels: int) -> list[Keyframe]:
    return [Keyframe(z, label) for z, label in zip(latents(range(len(labels)), 8), labels, strict=True)]


def fields_of(sample: Sample) -> tuple[Any, ...]:
    z_to = None if sample.z_to is None else sample.z_to.tobytes()
    return sample.z.tobytes(), sample.label, sample.truncation_psi, z_to, sample.label_to, sample.t


def plain(keyframe: Keyframe, truncation_psi: float = 0.7) -> tuple[Any, ...]:
    return fields_of(Sample(keyframe.z, keyframe.label, truncation_psi))


@unhurried
@given(
    num_keyframes=st.integers(2, 5),
    steps=st.integers(2, 9),
    mode=st.sampled_from(get_args(Mode)),
    easing=st.sampled_from(get_args(Easing)),
    loop=st.sampled_from(get_args(Loop)),
)
def test_path_has_the_counted_frames_and_exact_keyframes(
    num_keyframes: int, steps: int, mode: Mode, easing: Easing, loop: Loop
) -> None:
    """In every mode, key frames stand at multiples of steps - 1 and are plain pictures; between them t is in (0, 1)."""
    keyframes = keyframes_of(*range(num_keyframes))
    frames = path(keyframes, steps=steps, mode=mode, easing=easing, loop=loop, truncation_psi=0.7)
    assert len(frames) == frame_count(num_keyframes, steps, loop)
    for index, keyframe in enumerate(keyframes):
        assert fields_of(frames[index * (steps - 1)]) == plain(keyframe)
    between = [frame for index, frame in enumerate(frames) if index % (steps - 1)]
    assert all(frame.z_to is not None and 0 < frame.t < 1 for frame in between)
    assert all(frame.truncation_psi == 0.7 for frame in frames)


@pytest.mark.parametrize(
    ("num_keyframes", "steps", "loop", "count"),
    [(2, 2, "none", 2), (2, 16, "none", 16), (4, 16, "none", 46), (3, 5, "wrap", 12), (3, 5, "bounce", 16)],
)
def test_frame_count_counts(num_keyframes: int, steps: int, loop: Loop, count: int) -> None:
    """Neighbouring segments share their key frame; loops repeat neither end."""
    assert frame_count(num_keyframes, steps, loop) == count


def test_w_mode_names_both_ends_and_t() -> None:
    """The engine is given both latents, both labels and the position."""
    a, b = keyframes_of(3, 5)
    frames = path([a, b], steps=5, mode="w", easing="linear", loop="none", truncation_psi=0.7)
    for frame, t in zip(frames[1:-1], (0.25, 0.5, 0.75), strict=True):
        assert fields_of(frame) == (a.z.tobytes(), 3, 0.7, b.z.tobytes(), 5, t)


@pytest.mark.parametrize(("mode", "interpolate"), [("slerp", slerp), ("lerp", lerp)])
def test_z_modes_interpolate_latents(mode: Mode, interpolate: Any) -> None:
    """With one label a frame is a plain picture of the latent between; with two it is between the labels as well."""
    for label_to in (3, 5):
        a, b = keyframes_of(3, label_to)
        frames = path([a, b], steps=5, mode=mode, easing="linear", loop="none", truncation_psi=0.7)
        for frame, t in zip(frames[1:-1], (0.25, 0.5, 0.75), strict=True):
            z = interpolate(a.z, b.z, t).tobytes()
            partner = (None, 0, 0.0) if label_to == 3 else (z, 5, t)
            assert fields_of(frame) == (z, 3, 0.7, *partner)


def test_cosine_easing_is_slow_at_the_ends() -> None:
    """The closed form at thirds: (1 - cos(pi t)) / 2."""
    frames = path(keyframes_of(0, 1), steps=4, mode="w", easing="cosine", loop="none", truncation_psi=1.0)
    assert [frame.t for frame in frames] == pytest.approx([0, 0.25, 0.75, 0])


def test_wrap_goes_back_to_the_first_keyframe_without_showing_it_again() -> None:
    """The last segment runs from the last key frame to the first; playing it in a loop repeats no frame."""
    a, b, c = keyframes_of(0, 1, 2)
    frames = path([a, b, c], steps=4, mode="w", easing="linear", loop="wrap", truncation_psi=0.7)
    straight = path([a, b, c, a], steps=4, mode="w", easing="linear", loop="none", truncation_psi=0.7)
    assert [fields_of(frame) for frame in frames] == [fields_of(frame) for frame in straight[:-1]]
    assert fields_of(straight[-1]) == plain(a)


def test_bounce_goes_back_without_repeating_the_ends() -> None:
    """Forth, then back from the last frame but one to the second."""
    arguments: dict[str, Any] = {"steps": 4, "mode": "w", "easing": "linear", "truncation_psi": 0.7}
    forth = [fields_of(frame) for frame in path(keyframes_of(0, 1), loop="none", **arguments)]
    frames = [fields_of(frame) for frame in path(keyframes_of(0, 1), loop="bounce", **arguments)]
    assert frames == [*forth, forth[2], forth[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1}, "steps"),
        ({"mode": "x"}, "mode"),
        ({"easing": "x"}, "easing"),
        ({"loop": "x"}, "loop"),
        ({"keyframes": keyframes_of(0)}, "key frames"),
        ({"keyframes": [*keyframes_of(0), Keyframe(np.ones(3, np.float32), 0)]}, "shape"),
    ],
)
def test_path_refuses_what_it_does_not_know(change: dict[str, Any], message: str) -> None:
    """Each wrong argument is named."""
    arguments: dict[str, Any] = {
        "keyframes": keyframes_of(0, 1),
        "steps": 3,
        "mode": "w",
        "easing": "linear",
        "loop": "none",
        "truncation_psi": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        path(**(arguments | change))


def test_sample_is_frozen_and_compared_by_identity() -> None:
    """A Sample can be shared between threads, hashed and looked for in a list."""
    z = latents([1], 4)[0]
    one, other = Sample(z, 0, 1.0), Sample(z, 0, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.label = 2  # type: ignore[misc]
    assert one != other
    assert len({one, other}) == 2
