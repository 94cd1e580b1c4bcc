"""Directions of the style space, found on a generator of rectangles whose directions are known."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.builders import random_networks, tiny_generator, tiny_pictures
from training import attributes
from training.data import PictureSet, Split, to_uint8
from training.directions import Direction, factorised, find_directions, regressed, within_labels, write_directions
from training.networks.classic import ClassicConfig
from training.networks.style_residual import StyleResidualConfig

BRIGHTNESS, WIDTH, HEIGHT, NOTHING = range(4)


class Rectangles(nn.Module):
    """Rectangles whose level, width and height are the first three components of w; the fourth does nothing.

    Args:
        breaks_at: Value of the first component beyond which there is a chequerboard instead.
        folded: Let the level depend on the first component's absolute value, so that no direction moves it steadily;
            edges are sharp then, so that the level does not depend on the extent.
    """

    def __init__(self, *, breaks_at: float = 1e9, folded: bool = False) -> None:
        super().__init__()
        self.config = StyleResidualConfig(1, 0, base_size=4, widths=(16, 16), z_dim=4, w_dim=4)
        self.breaks_at, self.folded = breaks_at, folded
        self.base = nn.Linear(4, 3)
        self.block = nn.ModuleDict({"style": nn.Linear(4, 3)})
        with torch.no_grad():
            for layer in (self.base, self.block["style"]):
                layer.weight.copy_(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0]))[:3])

    def mapping(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        return z.unsqueeze(1).expand(-1, 3, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        tone, width, height, _ = w[:, 0, :, None, None].unbind(dim=1)
        places = torch.linspace(-1, 1, 16)
        tone, sharpness = (tone.abs(), 1e4) if self.folded else (tone, 20.0)
        inside = ((0.5 + 0.08 * width - places.abs()) * sharpness).sigmoid() * (
            (0.5 + 0.08 * height - places.abs()[:, None]) * sharpness
        ).sigmoid()
        levels = inside * (160 + 15 * tone) / 127.5 - 1
        chequered = ((torch.arange(16) + torch.arange(16)[:, None]) % 2 * 2.0 - 1).expand_as(levels)
        return torch.where(tone.abs() > self.breaks_at, chequered, levels).unsqueeze(1)

    def forward(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        return self.synthesis(self.mapping(z, label))


@pytest.fixture(scope="module")
def data() -> PictureSet:
    """Return rectangles of more kinds than the generator makes unshifted, each with some noise."""
    z = 3 * torch.randn(3000, 4, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        pictures = Rectangles()(z, torch.zeros(3000).long())
    pictures += 0.1 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(12))
    images, labels = to_uint8(pictures), torch.zeros(3000, dtype=torch.int64)
    return PictureSet("rectangles", Split(images, labels), Split(images[:9], labels[:9]), (), "CC0-1.0", "0" * 64)


@pytest.fixture(scope="module")
def found(data: PictureSet) -> dict[str, Direction]:
    return {direction.entry.name: direction for direction in find_directions(Rectangles(), data)}


@pytest.mark.parametrize(("name", "component"), [("brightness", BRIGHTNESS), ("width", WIDTH), ("height", HEIGHT)])
def test_named_direction_is_that_of_the_attribute(found: dict[str, Direction], name: str, component: int) -> None:
    """Unit vectors, the same for every style, that point where the attribute grows."""
    vector = found[name].vector

    assert vector.shape == (3, 4)
    assert vector.dtype == torch.float32
    assert torch.allclose(vector.norm(dim=1), torch.ones(3))
    assert (vector[:, component] > 0.8).all()
    assert found[name].entry.kind == "named"


def test_effect_is_what_other_samples_show(found: dict[str, Direction]) -> None:
    """From one end of the range to the other the attribute changes by what the entry says, steadily."""
    generator = Rectangles()
    w = torch.randn(200, 1, 4, generator=torch.Generator().manual_seed(21)).expand(-1, 3, -1)
    for name in ("brightness", "width", "height"):
        entry, vector = found[name].entry, found[name].vector
        means = [
            attributes.measure(to_uint8(generator.synthesis(w + t * vector).detach()))[name].mean().item()
            for t in torch.linspace(*entry.range, 5).tolist()
        ]
        assert means == sorted(means)
        assert means[-1] - means[0] == pytest.approx(entry.effect, rel=0.15)
        assert entry.range[0] < 0 < entry.range[1]
        assert entry.strength is not None
        assert 0.5 <= entry.strength <= 1


def test_attribute_that_does_not_follow_w_is_left_out(data: PictureSet) -> None:
    """A level that grows to both sides has no direction, and the others keep theirs."""
    names = {direction.entry.name for direction in find_directions(Rectangles(folded=True), data)}

    assert "brightness" not in names
    assert {"width", "height"} <= names


def test_range_ends_before_pictures_leave_the_data(data: PictureSet, found: dict[str, Direction]) -> None:
    """Where most pictures have broken, the range has ended."""
    broken = {direction.entry.name: direction.entry for direction in find_directions(Rectangles(breaks_at=2.9), data)}

    assert found["base-1"].entry.range[1] >= 3.9
    assert 0.9 < broken["base-1"].range[1] < 3.5


def test_closed_form_directions_are_those_that_change_pictures(found: dict[str, Direction]) -> None:
    """The layers' strongest axes are kept; the component that does nothing is not."""
    factors = {name: d for name, d in found.items() if d.entry.kind == "closed-form"}

    assert {"base-1", "base-2"} <= set(factors)
    assert not {"base-4", "style-1", "style-4"} & set(factors)  # these pictures depend on the first style alone
    assert torch.equal(factors["base-1"].vector[0].abs().round(), torch.tensor([1.0, 0, 0, 0]))
    assert all(direction.entry.strength is None for direction in factors.values())
    assert all(direction.entry.effect >= 4 for direction in factors.values())


def test_same_generator_gives_the_same_directions(data: PictureSet, found: dict[str, Direction]) -> None:
    """Torch's random generator has no part in it."""
    torch.manual_seed(5)
    again = {direction.entry.name: direction for direction in find_directions(Rectangles(), data)}

    assert [d.entry for d in again.values()] == [d.entry for d in found.values()]
    assert all(torch.equal(again[name].vector, found[name].vector) for name in found)


def test_factors_move_their_layers_the_most() -> None:
    """The first factor of a group is the unit vector that its weights lengthen the most; others' styles are spared."""
    generator = tiny_generator()
    vectors = dict(factorised(generator))

    assert list(vectors) == [f"{group}-{number}" for group in ("base", "style") for number in (1, 2, 3, 4)]
    largest = torch.linalg.matrix_norm(generator.base.weight, 2)
    assert (generator.base.weight @ vectors["base-1"][0]).norm().item() == pytest.approx(largest.item(), rel=1e-4)
    assert vectors["base-1"][1:].abs().max() == 0
    assert vectors["style-1"][0].abs().max() == 0
    assert torch.allclose(vectors["style-2"][1:].norm(dim=1), torch.ones(2))
    pair = vectors["base-1"][0], vectors["base-2"][0]
    assert (pair[0] @ pair[1]).item() == pytest.approx(0, abs=1e-5)


def test_factors_of_a_classic_network_leave_the_label_alone() -> None:
    """Without a style space directions lie in the latent, which is the first part of w."""
    generator, _ = random_networks(ClassicConfig("mlp-lsgan", 1, 3, 8, z_dim=10))
    vectors = dict(factorised(generator))

    assert list(vectors) == ["latent-1", "latent-2", "latent-3", "latent-4"]
    for vector in vectors.values():
        assert vector.shape == (1, 13)
        assert vector.norm().item() == pytest.approx(1, rel=1e-5)
        assert vector[0, 10:].abs().max() == 0


def test_regression_finds_the_direction_within_labels() -> None:
    """What differs between labels only is no direction, however large it is."""
    random = torch.Generator().manual_seed(0)
    label = torch.arange(3000) % 3
    w = torch.randn(3000, 1, 6, generator=random)
    w[:, 0, 5] += 10 * label
    target = w[:, 0, 1] - w[:, 0, 2] + 100 * label
    (found,) = regressed(w.expand(-1, 2, -1), label, {"tone": target, "constant": torch.ones(3000)})

    name, vector = found
    assert name == "tone"
    expected = torch.tensor([0, 0.5**0.5, -(0.5**0.5), 0, 0, 0]).expand(2, -1)
    assert torch.allclose(vector, expected, atol=0.05)


def test_within_labels_every_mean_is_nought() -> None:
    """Each label's mean is taken out, and labels without rows do no harm."""
    values = torch.arange(12.0).reshape(6, 2)
    label = torch.tensor([0, 0, 3, 3, 3, 1])
    centred = within_labels(values, label)

    for index in (0, 1, 3):
        assert centred[label == index].mean(dim=0).abs().max() < 1e-6
    assert torch.allclose(centred[0] - centred[1], values[0] - values[1])


def test_file_holds_the_listed_directions(data: PictureSet, tmp_path: Path) -> None:
    """A tensor by the name of each entry, and nothing else."""
    path = tmp_path / "directions.safetensors"
    entries = write_directions(Rectangles(), data, path)
    tensors = load_file(path)

    assert set(tensors) == {entry.name for entry in entries}
    assert {tensor.shape for tensor in tensors.values()} == {(3, 4)}


def test_generator_without_directions_has_no_file(tmp_path: Path) -> None:
    """Where nothing changes, nothing is written."""
    generator = tiny_generator()
    nn.init.zeros_(generator.to_image.weight)

    assert write_directions(generator, tiny_pictures(), tmp_path / "directions.safetensors") == []
    assert list(tmp_path.iterdir()) == []
