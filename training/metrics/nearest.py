"""The nearest row, and the nearest picture, of a set: by blocks, without a matrix of all distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of one block of the distance matrix: 250 x 60,000 in float32 is 60 MB.
_CHUNK = 250
_COMPONENTS = 64
_CANDIDATES = 16
# Pictures from which the principal components are taken; any orthonormal basis gives bounds, a good one tight bounds.
_BASIS_PICTURES = 1000
# Values of a block of pixels as float32: 64 MB.
_BLOCK_VALUES = 16_000_000


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest member of a set.

    Attributes:
        distance: To it, float32, (N,).
        index: Which one it is, int64, (N,).
    """

    distance: Tensor
    index: Tensor


def nearest_rows(queries: Tensor, rows: Tensor) -> Nearest:
    """Return the nearest of `rows` to each of `queries`.

    Found by blocks of a matrix product in float32, then measured from the difference: a copy is at exactly 0. Of rows
    that are equally near up to rounding any may be named.

    Args:
        queries: Features, float32, (N, D), N >= 1.
        rows: Features, float32, (M, D), M >= 1.

    Returns:
        Euclidean distances and indices.
    """
    centred, squares = _centred(rows, rows.mean(dim=0))
    index = _smallest(queries - rows.mean(dim=0), centred, squares, 1)[:, 0]
    return Nearest((queries - rows[index]).square().sum(dim=1).sqrt(), index)


class PictureIndex:
    """Finds the nearest of a set of pictures in pixels, looking at the pixels of a few only.

    Pictures are projected onto 64 principal components; the length of what the projection leaves out is one coordinate
    more. Distances among these coordinates never exceed those among the pixels, and a copy is at 0 in both. The 16
    pictures with the lowest bounds are compared pixel by pixel: the distance that is found is that of a picture of the
    set, and the nearest one's but where more than 15 others have a lower bound.

    Colours of RGBA are multiplied by alpha first, to whole levels: what nobody sees does not count.

    Args:
        pictures: uint8, (N, H, W, C), N >= 1.

    Filter and refine: Faloutsos et al. 1994, "Efficient and effective querying by image content". The bound of the
    remainder is the triangle inequality.
    """

    def __init__(self, pictures: Tensor) -> None:
        self._pixels = flat_pixels(pictures)
        self._mean, self._basis = _principal_components(self._pixels)
        self._coordinates = self._project(self._pixels)
        self._squares = self._coordinates.square().sum(dim=1)

    def nearest(self, pictures: Tensor) -> Nearest:
        """Return the nearest picture of the set to each of `pictures`.

        Args:
            pictures: uint8, (M, H, W, C), M >= 1, of the size of those of the set.

        Returns:
            Root mean square differences per value, in grey levels, [0, 255], and indices.
        """
        pixels = flat_pixels(pictures)
        candidates = _smallest(
            self._project(pixels), self._coordinates, self._squares, min(_CANDIDATES, len(self._pixels))
        )
        rows = self._rows_per_block(candidates.shape[1])
        squared = torch.cat(
            [
                (self._pixels[columns].to(torch.float32) - part[:, None]).square_().mean(dim=2)
                for part, columns in zip(pixels.split(rows), candidates.split(rows), strict=True)
            ]
        )
        best = squared.min(dim=1)
        return Nearest(best.values.sqrt(), candidates.gather(1, best.indices[:, None])[:, 0])

    def _project(self, pixels: Tensor) -> Tensor:
        """Return coordinates, float32 (N, K + 1): principal components and the length of the remainder."""
        parts = []
        for part in pixels.split(self._rows_per_block(1)):
            centred = part.to(torch.float32) - self._mean
            inside = centred @ self._basis
            remainder = centred.square().sum(dim=1) - inside.square().sum(dim=1)
            parts.append(torch.cat([inside, remainder.clamp_min(0).sqrt()[:, None]], dim=1))
        return torch.cat(parts)

    def _rows_per_block(self, pictures_per_row: int) -> int:
        return max(1, _BLOCK_VALUES // (pictures_per_row * self._pixels.shape[1]))


def flat_pixels(pictures: Tensor) -> Tensor:
    """Return pictures as rows of pixels, colours multiplied by alpha.

    Args:
        pictures: uint8, (N, H, W, C).

    Returns:
        uint8, (N, H * W * C).
    """
    if pictures.shape[3] != 4:
        return pictures.flatten(1)
    flat = torch.empty(pictures.shape, dtype=torch.uint8)
    for source, target in zip(pictures.split(1000), flat.split(1000), strict=True):
        alpha = source[..., 3:]
        target[..., :3] = (source[..., :3].to(torch.float32) * alpha / 255).round_().to(torch.uint8)
        target[..., 3:] = alpha
    return flat.flatten(1)


def _principal_components(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean, float32 (D,), and an orthonormal basis, float32 (D, K), of pixels, uint8 (N, D)."""
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:_BASIS_PICTURES]
    some = pixels[order].to(torch.float64)
    mean = some.mean(dim=0)
    centred = some - mean
    # The eigenvectors of the Gram matrix are cheap for 64x64x4 pictures too; QR makes what they give orthonormal.
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    components = centred.T @ vectors[:, -_COMPONENTS:].flip(1)
    return mean.to(torch.float32), torch.linalg.qr(components).Q.to(torch.float32)


def _centred(rows: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows, (N, D), seen from `origin`, and their squared lengths: near the origin less is lost in rounding."""
    centred = rows - origin
    return centred, centred.square().sum(dim=1)


def _smallest(queries: Tensor, rows: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the `count` rows nearest to each query by their coordinates, int64 (N, count), nearest first."""
    found = []
    for part in queries.split(_CHUNK):
        # The query's own length is the same for all rows and left out.
        distances = torch.addmm(squares, part, rows.T, alpha=-2.0)
        found.append(distances.topk(count, dim=1, largest=False).indices)
    return torch.cat(found)
