"""What clients mean by a seed, and paths between latents; pure functions of their arguments."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.rng import MAX_SEED
from service.sample import Sample

MAX_SEED_CHARACTERS = 128

Mode = Literal["slerp", "lerp", "w"]
Easing = Literal["linear", "cosine"]
Loop = Literal["none", "wrap", "bounce"]

# Below this sine of the half angle to 0 or to pi, the great circle is a point or is not unique.
_PARALLEL = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """Hold one stop of a path; compared by identity.

    Attributes:
        z: Latent, float32, (z_dim,).
        label: Class index, in [0, num_classes).
    """

    z: NDArray[np.float32]
    label: int


def seed_from(value: int | str) -> int:
    """Return the seed that a client means by an integer or by any short string.

    A string of ASCII digits below 2**53 is that integer, so '007' is 7. Any other string is hashed: the first 53 bits
    of the SHA-256 of its UTF-8 bytes. Strings are not normalised: two spellings of one glyph are two seeds.

    Args:
        value: An integer in [0, 2**53), or a string of 1 to 128 characters.

    Returns:
        The seed, in [0, 2**53).

    Raises:
        ValueError: If the integer is out of range, the string is empty, too long or not encodable as UTF-8, or `value`
            is neither (a bool is neither).
    """
    if isinstance(value, str):
        return _seed_from_string(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a seed is an integer or a string, got {type(value).__name__}")
    if not 0 <= value <= MAX_SEED:
        # Not the value itself: Python refuses to print integers of more than 4300 digits.
        raise ValueError(f"an integer seed must be in [0, {MAX_SEED}]")
    return value


def _seed_from_string(value: str) -> int:
    if not 1 <= len(value) <= MAX_SEED_CHARACTERS:
        raise ValueError(f"a string seed must have 1 to {MAX_SEED_CHARACTERS} characters, got {len(value)}")
    if value.isascii() and value.isdigit() and int(value) <= MAX_SEED:
        return int(value)
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a string seed must be valid Unicode: {error}") from error
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big") >> 11


def lerp(a: NDArray[np.float32], b: NDArray[np.float32], t: float) -> NDArray[np.float32]:
    """Interpolate between two vectors on a straight line; exactly `a` at 0 and `b` at 1.

    Args:
        a: Start, float32, (z_dim,), finite.
        b: End, float32, (z_dim,), finite.
        t: Position, in [0, 1].

    Returns:
        The vector at `t`, float32, (z_dim,).

    Raises:
        ValueError: If the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"vectors of one shape are needed, got {a.shape} and {b.shape}")
    return ((1.0 - t) * a.astype(np.float64) + t * b.astype(np.float64)).astype(np.float32)


def slerp(a: NDArray[np.float32], b: NDArray[np.float32], t: float) -> NDArray[np.float32]:
    """Interpolate between two vectors on the great circle of their directions; exactly `a` at 0 and `b` at 1.

    The norm goes linearly from that of `a` to that of `b`. Vectors that are zero, or parallel or antiparallel to
    within 2e-6 rad, have no one great circle and are interpolated by `lerp`.

    Args:
        a: Start, float32, (z_dim,), finite.
        b: End, float32, (z_dim,), finite.
        t: Position, in [0, 1].

    Returns:
        The vector at `t`, float32, (z_dim,).

    Raises:
        ValueError: If the shapes differ.

    Shoemake 1985, "Animating Rotation with Quaternion Curves", doi:10.1145/325165.325242.
    """
    if a.shape != b.shape:
        raise ValueError(f"vectors of one shape are needed, got {a.shape} and {b.shape}")
    norm_a, norm_b = _norm(a), _norm(b)
    if norm_a == 0.0 or norm_b == 0.0 or t in (0.0, 1.0):
        return lerp(a, b, t)
    unit_a, unit_b = a / norm_a, b / norm_b
    # Half angle by its two legs: exact near 0 and pi, where the arc cosine of the dot product is not.
    sine, cosine = 0.5 * _norm(unit_a - unit_b), 0.5 * _norm(unit_a + unit_b)
    if min(sine, cosine) < _PARALLEL:
        return lerp(a, b, t)
    angle = 2.0 * math.atan2(sine, cosine)
    weight_a, weight_b = math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    norm = (1.0 - t) * norm_a + t * norm_b
    return (norm * (weight_a * unit_a + weight_b * unit_b)).astype(np.float32)


def _norm(v: NDArray[Any]) -> np.float64:
    """Return the Euclidean norm in float64, so that what is divided by it is float64 too."""
    return np.float64(np.linalg.norm(v.astype(np.float64)))


def frame_count(num_keyframes: int, steps: int, loop: Loop) -> int:
    """Return how many frames `path` will make, without making any.

    Args:
        num_keyframes: Number of key frames, at least 2.
        steps: Frames per segment, both ends counted, at least 2.
        loop: What follows the last key frame.

    Returns:
        The number of frames, at least 2.

    Raises:
        ValueError: If there are too few key frames or steps, or `loop` is unknown.
    """
    if num_keyframes < 2:
        raise ValueError(f"a path needs at least 2 key frames, got {num_keyframes}")
    if steps < 2:
        raise ValueError(f"a segment needs at least 2 steps, got {steps}")
    forth = (num_keyframes - 1) * (steps - 1) + 1
    match loop:
        case "none":
            return forth
        case "wrap":
            return num_keyframes * (steps - 1)
        case "bounce":
            return 2 * forth - 2
    raise ValueError(f"loop must be 'none', 'wrap' or 'bounce', got {loop!r}")


def path(
    keyframes: Sequence[Keyframe],
    *,
    steps: int,
    mode: Mode,
    easing: Easing,
    loop: Loop,
    truncation_psi: float,
) -> list[Sample]:
    """Return the frames of an animation through key frames.

    Each key frame is a plain Sample, so it renders exactly as that picture alone. Neighbouring segments share theirs.
    'wrap' adds the way from the last key frame back to the first, without showing the first again; 'bounce' adds the
    way back without showing either end again.

    Args:
        keyframes: At least 2 stops, their latents of one shape.
        steps: Frames per segment, both ends counted, at least 2.
        mode: 'slerp' or 'lerp' between the latents (and in the style space between labels, where they differ), or
            'w', a straight line in the style space.
        easing: 'linear', or 'cosine': slow near the key frames.
        loop: 'none', 'wrap' or 'bounce'.
        truncation_psi: Truncation of every frame, in [0, 1].

    Returns:
        `frame_count(len(keyframes), steps, loop)` Samples.

    Raises:
        ValueError: If a number is out of range, a name is unknown or the latents differ in shape.
    """
    frame_count(len(keyframes), steps, loop)
    if mode not in ("slerp", "lerp", "w"):
        raise ValueError(f"mode must be 'slerp', 'lerp' or 'w', got {mode!r}")
    if len({keyframe.z.shape for keyframe in keyframes}) > 1:
        raise ValueError(f"latents of one shape are needed, got {[keyframe.z.shape for keyframe in keyframes]}")
    positions = [_ease(step / (steps - 1), easing) for step in range(1, steps - 1)]
    stops = [*keyframes, keyframes[0]] if loop == "wrap" else keyframes
    frames = []
    for start, end in pairwise(stops):
        frames.append(Sample(start.z, start.label, truncation_psi))
        frames += [_between(start, end, t, mode, truncation_psi) for t in positions]
    if loop != "wrap":
        frames.append(Sample(stops[-1].z, stops[-1].label, truncation_psi))
    if loop == "bounce":
        frames += frames[-2:0:-1]
    return frames


def _ease(t: float, easing: Easing) -> float:
    match easing:
        case "linear":
            return t
        case "cosine":
            return 0.5 * (1.0 - math.cos(math.pi * t))
    raise ValueError(f"easing must be 'linear' or 'cosine', got {easing!r}")


def _between(start: Keyframe, end: Keyframe, t: float, mode: Mode, truncation_psi: float) -> Sample:
    """Return the frame at `t`, in (0, 1), of one segment."""
    if mode == "w":
        return Sample(start.z, start.label, truncation_psi, z_to=end.z, label_to=end.label, t=t)
    z = slerp(start.z, end.z, t) if mode == "slerp" else lerp(start.z, end.z, t)
    if start.label == end.label:
        return Sample(z, start.label, truncation_psi)
    return Sample(z, start.label, truncation_psi, z_to=z, label_to=end.label, t=t)
