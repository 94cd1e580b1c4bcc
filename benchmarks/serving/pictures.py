"""Pictures to encode: as the shipped models draw them, and enlarged.

What a PNG costs depends on the picture. Enlarging smooths, and a smooth picture is an easy one, so enlarged ones get
noise of about the strength that the drawn ones have (1.0 to 1.5 grey levels, by the median of a Laplacian), but none
where they are black, transparent or laid on a background. The last are enlarged by the service, for `size=256`, and get
none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from service.bundle import verify
from service.encoder import flatten, resize
from service.encoder.pixels import Pixels, from_image, to_image
from service.generator import load
from service.rng import latents

MODELS = Path(__file__).parents[2] / "models"
COUNT = 16
NOISE = 1.0  # standard deviation, in grey levels
WHITE = (255, 255, 255)
ENLARGED = (128, 256, 512)


@dataclass(frozen=True)
class Pictures:
    """Sixteen pictures of one size, uint8, (16, H, W, C), and what they are called in the results."""

    name: str
    pixels: Pixels


def pictures(largest: int) -> Iterator[Pictures]:
    """Yield all sets whose sides are not above `largest`."""
    grey, fruits = _drawn("fashion/2"), _drawn("fruits/1")
    yield _named(grey)
    yield _named(_enlarged(grey, 32))  # the largest grey ones that are not filtered
    rgb = flatten(fruits, WHITE)
    yield _named(np.stack([from_image(to_image(one).convert("L")) for one in rgb]))
    yield _named(rgb)
    yield _named(fruits)
    for size in ENLARGED:
        if size <= largest:
            large = _enlarged(fruits, size)
            for pixels in (_enlarged(grey, size), flatten(large, WHITE), large):
                yield _named(pixels)
    if largest >= 256:
        yield _named(np.stack([resize(one, 256) for one in fruits]), " by `size=`")


def _named(pixels: Pixels, remark: str = "") -> Pictures:
    return Pictures("x".join(map(str, pixels.shape[1:])) + remark, np.ascontiguousarray(pixels))


def _drawn(model: str) -> Pixels:
    """Return the pictures of seeds 0 to 15, their labels spread over all that the model has."""
    bundle = verify(MODELS / model)
    z = torch.from_numpy(latents(range(COUNT), bundle.manifest.z_dim))
    label = torch.arange(COUNT) * len(bundle.manifest.labels) // COUNT
    with torch.inference_mode():
        return load(bundle, torch.device("cpu"))(z, label, torch.ones(COUNT)).numpy()


def _enlarged(drawn: Pixels, size: int) -> Pixels:
    """Return pictures enlarged by a bicubic filter, with noise in what is neither black nor alpha."""
    random = np.random.default_rng(size)
    large = np.stack([from_image(to_image(one).resize((size, size), Image.Resampling.BICUBIC)) for one in drawn])
    colours = large[..., :3]
    noisy = np.clip(colours + random.normal(0, NOISE, colours.shape), 0, 255).round().astype(np.uint8)
    large[..., :3] = np.where(colours > 0, noisy, 0)
    return large
