from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from training.duplicates import NEAR_BITS, NEAR_RMS, dhash, near_pairs, pixel_digest, thumbnails


def scenes(count: int, size: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Return smooth coloured pictures, uint8 (size, size, 3), no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return [np.asarray(Image.fromarray(pixels).resize((size, size), bicubic)) for pixels in coarse]


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=75)
    return np.asarray(Image.open(file))


def resized(pixels: np.ndarray) -> np.ndarray:
    image, lanczos = Image.fromarray(pixels), Image.Resampling.LANCZOS
    return np.asarray(image.resize((40, 40), lanczos).resize(image.size, lanczos))


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.minimum(pixels.astype(int) + 6, 255).astype(np.uint8)


def test_pixel_digest_tells_pixels_and_shapes_apart() -> None:
    """Equal pixels have one digest, however they lie in memory; another shape is another picture."""
    pixels = scenes(1)[0]
    other = pixels.copy()
    other[3, 4, 1] ^= 1
    digests = {pixel_digest(entry) for entry in (pixels, np.asfortranarray(pixels), other, pixels.reshape(96, 24, 3))}
    assert len(digests) == 3


def test_thumbnails_are_means_of_equal_cells() -> None:
    """Grey levels keep their mean, also where cells share pixels, and transparency is white."""
    pixels = scenes(1, size=20)[0]
    found = thumbnails([pixels])[0]
    assert found.shape == (8, 9)
    assert found.mean() == pytest.approx(pixels.mean(), abs=0.01)
    clear = np.concatenate([pixels, np.zeros((20, 20, 1), np.uint8)], axis=2)
    assert thumbnails([clear]).min() == pytest.approx(255)


def test_dhash_is_a_bit_per_rise_to_the_right() -> None:
    """A ramp sets all bits, its mirror image and a plain picture none."""
    ramp = np.tile(np.linspace(0, 255, 9, dtype=np.float32), (8, 1))
    plain = np.full((8, 9), 7.3, np.float32)
    assert dhash(np.stack([ramp, ramp[:, ::-1], plain])).tolist() == [2**64 - 1, 0, 0]


@pytest.mark.parametrize("change", [as_jpeg, resized, brighter])
def test_near_pairs_finds_what_was_saved_again(change: object) -> None:
    """A picture that was compressed, resized or brightened is found, and nothing else is."""
    originals = scenes(40)
    assert near_pairs([*originals, change(originals[7])]).tolist() == [[7, 40]]


def test_near_pairs_agrees_with_a_search_of_all_pairs() -> None:
    """What the search leaves out is really too far."""
    originals = scenes(60, seed=3)
    rng = np.random.default_rng(1)
    noisy = [
        np.clip(pixels + rng.normal(0, 3 + index / 3, pixels.shape), 0, 255) for index, pixels in enumerate(originals)
    ]
    images = [*originals, *(pixels.astype(np.uint8) for pixels in noisy)]
    hashes = dhash(thumbnails(images))
    expected = [
        [first, second]
        for first in range(len(images))
        for second in range(first + 1, len(images))
        if int(hashes[first] ^ hashes[second]).bit_count() <= NEAR_BITS
        and np.square(images[first].astype(float) - images[second]).mean() ** 0.5 <= NEAR_RMS
    ]
    assert 10 < len(expected) < 60
    assert near_pairs(images).tolist() == expected


def test_shapes_with_the_same_gradients_are_no_duplicates() -> None:
    """Two plain bars of other brightness share a hash; their pixels tell them apart."""
    bars = []
    for level in (90, 200):
        bar = np.zeros((28, 28, 1), np.uint8)
        bar[:, 10:18] = level
        bars.append(bar)
    assert len(set(dhash(thumbnails(bars)).tolist())) == 1
    assert near_pairs(bars).tolist() == []


@pytest.mark.parametrize("count", [0, 1])
def test_near_pairs_of_fewer_than_two_are_none(count: int) -> None:
    """There is nothing to compare."""
    assert near_pairs(scenes(count)).shape == (0, 2)
