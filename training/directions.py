"""Directions in the style space along which pictures change in one respect, each measured before it is kept.

A direction is added to styles: w + t * vector, t within the direction's range. Two kinds: named ones, from a regression
of measured attributes on w, and closed-form ones, from the weights of the layers that take w.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training import attributes
from training.data import PictureSet, to_uint8
from training.manifest import DirectionEntry, DirectionKind
from training.neighbours import nearest_distances, thumbnails
from training.networks.families import GeneratorNetwork

FITTED, FRESH = 2048, 128  # samples that a regression sees, and others on which every direction is tried
RIDGE = 1.0  # in units of the mean variance of w's components
PER_GROUP = 4  # closed-form directions per group of layers
STEPS = (1, 2, 3, 4, 6)  # positions tried on each side, in standard deviations of w along the vector
# A shifted sample stays like the data while its distance to the nearest training picture remains that of the sample.
LIKENESS = (0.7, 1.25)
MIN_STRENGTH = 0.5  # correlation of the position with the attribute
MIN_EFFECT = 0.5  # change of the attribute over the range, in its standard deviations among samples of one label
MIN_CHANGE = 4.0  # mean change of a picture over the range, in grey levels, for a direction without an attribute
REFERENCE_PICTURES = 5000  # training pictures that samples are compared with


@dataclass(frozen=True, slots=True)
class Direction:
    """A kept direction: its manifest entry, and the vector per style, float32 (num_ws, w_dim), of length 1 or 0."""

    entry: DirectionEntry
    vector: Tensor


@dataclass(frozen=True, slots=True)
class _Samples:
    """Styles, float32 (N, num_ws, w_dim), their labels, int64 (N,), and pictures, uint8 (N, H, W, C)."""

    w: Tensor
    label: Tensor
    pixels: Tensor


def write_directions(generator: nn.Module, data: PictureSet, path: Path) -> list[DirectionEntry]:
    """Write the directions of a generator as safetensors, a tensor by the name of each; no file if there are none.

    Args:
        generator: The averaged generator, on the CPU, in evaluation mode.
        data: What it was trained on.
        path: File to write.

    Returns:
        Their entries for the manifest (see `find_directions`).
    """
    directions = find_directions(generator, data)
    if directions:
        save_file({direction.entry.name: direction.vector for direction in directions}, path)
    return [direction.entry for direction in directions]


def find_directions(generator: nn.Module, data: PictureSet) -> list[Direction]:
    """Return the directions of a generator that do what they say, and no others.

    Every candidate is applied to fresh samples, step by step to both sides. Its range ends before the attribute ceases
    to move the same way, or the pictures' distance to the training pictures leaves that of unshifted samples. A
    candidate is dropped if its range has no extent on either side, or its effect within it is small or unsteady.

    A network without a style space (`training.networks.classic`) has the latent with a one-hot label in place of w;
    its directions lie in the latent's part.

    Args:
        generator: The averaged generator, on the CPU, in evaluation mode.
        data: What it was trained on.

    Returns:
        Named directions, then closed-form ones; the same for the same weights and data.

    Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face Editing", arXiv:1907.10786, for linear
    directions of attributes; Shen & Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs",
    arXiv:2007.06600.
    """
    network = cast("GeneratorNetwork", generator)
    fitted, fresh = _draw(network, FITTED, seed=1), _draw(network, FRESH, seed=2)
    random = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(data.train), generator=random)[:REFERENCE_PICTURES]
    trial = _Trial(network, fitted, fresh, thumbnails(data.train.images[chosen]))
    named = (
        trial.named(name, vector)
        for name, vector in regressed(fitted.w, fitted.label, attributes.measure(fitted.pixels))
    )
    factors = (trial.closed_form(name, vector) for name, vector in factorised(generator))
    return [direction for direction in (*named, *factors) if direction is not None]


def regressed(w: Tensor, label: Tensor, targets: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the direction of w along which each attribute grows, by ridge regression within labels.

    Args:
        w: Styles that are the same for every layer, float32, (N, num_ws, w_dim).
        label: Class per row, int64, (N,); its means are taken out, so a direction does not change the class.
        targets: Attributes by name, float32, (N,).

    Yields:
        Name and vector, float32, (num_ws, w_dim), of length 1 per style; attributes that do not vary are left out.

    Hoerl & Kennard 1970, "Ridge Regression: Biased Estimation for Nonorthogonal Problems".
    """
    x = within_labels(w[:, 0].double(), label)
    gram = x.T @ x / len(x)
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    for name, values in targets.items():
        y = within_labels(values.double()[:, None], label)
        slope = torch.linalg.solve(gram, x.T @ y / len(x))[:, 0]
        if y.std() > 1e-6 and slope.norm() > 0:
            yield name, (slope / slope.norm()).float().expand(w.shape[1], -1).clone()


def factorised(generator: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the directions that move the first layers behind w the most: eigenvectors of their weights, A^T A.

    Those of the layer that makes the base's planes, `base-1` and on, and those of all blocks' styles together,
    `style-1` and on; of a classic network those of its first layer, `latent-1` and on, in the latent's part of w.

    Args:
        generator: A generator of any family.

    Yields:
        Name and vector, float32, (num_ws, w_dim), of length 1 for the styles that the layers take and 0 for the others.

    Shen & Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", arXiv:2007.06600, equation 6.
    """
    config = cast("GeneratorNetwork", generator).config
    styles = [module.weight for name, module in generator.named_modules() if name.endswith(".style")]
    if styles:
        base = cast("nn.Linear", generator.base).weight
        groups = {"base": (base, slice(0, 1)), "style": (torch.cat(styles), slice(1, None))}
    else:
        first = next(module.weight for module in generator.modules() if isinstance(module, nn.Linear))
        groups = {"latent": (first[:, : config.z_dim], slice(None))}
    for group, (weight, layers) in groups.items():
        a = weight.detach().double()
        vectors = torch.linalg.eigh(a.T @ a).eigenvectors.flip(1).T[:PER_GROUP]
        for number, row in enumerate(vectors, start=1):
            vector = torch.zeros(config.num_ws, config.w_dim)
            vector[layers, : len(row)] = (row * row[row.abs().argmax()].sign()).float()
            yield f"{group}-{number}", vector


def within_labels(values: Tensor, label: Tensor) -> Tensor:
    """Return `values`, float (N, D), without the mean of their label, int64 (N,)."""
    sums = torch.zeros(int(label.max()) + 1, values.shape[1], dtype=values.dtype).index_add(0, label, values)
    return values - (sums / label.bincount().clamp(min=1)[:, None])[label]


class _Trial:
    """Applies directions to fresh samples and measures what becomes of them."""

    def __init__(self, network: GeneratorNetwork, fitted: _Samples, fresh: _Samples, reference: Tensor) -> None:
        self.network, self.fresh, self.reference = network, fresh, reference
        self.w = within_labels(fitted.w.flatten(1), fitted.label).reshape(fitted.w.shape)
        spreads = attributes.measure(fitted.pixels).items()
        self.spreads = {name: within_labels(v[:, None], fitted.label).std().item() for name, v in spreads}
        self.thumbnails = thumbnails(fresh.pixels)
        self.distance = self._distance(self.thumbnails)

    def named(self, name: str, vector: Tensor) -> Direction | None:
        """Return the direction if its attribute follows it."""
        positions, values = self._range(vector, lambda pixels, _: attributes.measure(pixels)[name])
        if not positions[0] < 0 < positions[-1]:
            return None
        centred = values - values.mean(dim=0)  # a picture's own level says nothing about the direction
        pairs = torch.stack([positions[:, None].expand_as(values).flatten(), centred.flatten()])
        strength, effect = torch.corrcoef(pairs)[0, 1].item(), (values[-1] - values[0]).mean().item()
        if not strength >= MIN_STRENGTH or effect < MIN_EFFECT * self.spreads[name]:
            return None
        return _direction(name, "named", vector, positions, round(strength, 3), effect)

    def closed_form(self, name: str, vector: Tensor) -> Direction | None:
        """Return the direction if pictures change along it."""
        positions, values = self._range(vector, self._change)
        effect = (values[-1] - values[0]).mean().item()
        if not positions[0] < 0 < positions[-1] or effect < MIN_CHANGE:
            return None
        return _direction(name, "closed-form", vector, positions, None, effect)

    def _range(self, vector: Tensor, measure: Callable[[Tensor, float], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the range in which a measure grows on average and pictures stay like the data.

        Args:
            vector: float32, (num_ws, w_dim).
            measure: Value per picture, float32 (N,), for pixels, uint8 (N, H, W, C), and their position.

        Returns:
            Positions, ascending, 0 among them, float32, (P,), and the measure at each, float32, (P, N).
        """
        styles = vector.norm(dim=1) > 0
        spread = (self.w * vector).sum(dim=2)[:, styles].std().item()
        start = measure(self.fresh.pixels, 0.0)
        low, high = (list(self._walk(vector, side * spread, start, measure)) for side in (-1, 1))
        kept = [*reversed(low), (0.0, start), *high]
        return torch.tensor([t for t, _ in kept]), torch.stack([values for _, values in kept])

    def _walk(
        self, vector: Tensor, unit: float, last: Tensor, measure: Callable[[Tensor, float], Tensor]
    ) -> Iterator[tuple[float, Tensor]]:
        """Yield positions outwards to the side that the sign of `unit` says, with the measure there (see `_range`)."""
        for step in STEPS:
            t = step * unit
            pixels = _pictures(self.network, self.fresh.w + t * vector)
            values = measure(pixels, t)
            likeness = self._distance(thumbnails(pixels)) / max(self.distance, 1e-6)
            grows = (values.mean() > last.mean()) == (t > 0) and values.mean() != last.mean()
            if not (LIKENESS[0] <= likeness <= LIKENESS[1] and grows):
                return
            yield t, values
            last = values

    def _change(self, pixels: Tensor, position: float) -> Tensor:
        """Return how far pictures have moved from the unshifted ones, in grey levels, negative on the negative side."""
        distance = (thumbnails(pixels) - self.thumbnails).abs().mean(dim=1)
        return distance if position > 0 else -distance

    def _distance(self, rows: Tensor) -> float:
        """Return the median distance to the nearest reference picture."""
        return nearest_distances(rows, self.reference).median().item()


def _direction(
    name: str, kind: DirectionKind, vector: Tensor, positions: Tensor, strength: float | None, effect: float
) -> Direction:
    ends = round(positions[0].item(), 4), round(positions[-1].item(), 4)
    entry = DirectionEntry(name=name, kind=kind, range=ends, strength=strength, effect=round(effect, 4))
    return Direction(entry, vector)


@torch.inference_mode()
def _draw(network: GeneratorNetwork, count: int, seed: int) -> _Samples:
    """Return fixed samples, labels in equal shares."""
    config = network.config
    z = torch.randn(count, config.z_dim, generator=torch.Generator().manual_seed(seed))
    label = torch.arange(count) % max(config.num_classes, 1)
    w = network.mapping(z, label).clone()
    return _Samples(w, label, _pictures(network, w))


@torch.inference_mode()
def _pictures(network: GeneratorNetwork, w: Tensor, batch_size: int = 128) -> Tensor:
    return torch.cat([to_uint8(network.synthesis(part)) for part in w.split(batch_size)])
