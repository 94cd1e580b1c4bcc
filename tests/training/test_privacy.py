"""The gate before the export: generators that copy are refused, others pass."""

import re

import pytest
import torch
from torch import Tensor, nn

from tests.builders import tiny_generator, tiny_pictures
from training.data import PictureSet, Split, to_float
from training.errors import TrainingError
from training.metrics.features import FeatureNet
from training.networks.style_residual import StyleResidualConfig
from training.privacy import DEFAULT_RATIO, privacy_gate


class Picker(nn.Module):
    """A generator that shows one of the given pictures, mirrored or not, as it is told."""

    def __init__(self, images: Tensor, *, mirror: bool = False) -> None:
        super().__init__()
        self.config = StyleResidualConfig(1, 0, base_size=4, widths=(16, 16), z_dim=8, w_dim=16)
        self.images = to_float(images.flip(2) if mirror else images)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.images[(z[:, 0].abs() * 1e4).long() % len(self.images)]


@pytest.fixture(scope="module")
def data() -> PictureSet:
    """Return soft random blobs: 300 to train on, 150 held out; twice as many more lie in `fresh`."""
    return blobs(450, 300, seed=0)


def blobs(count: int, train: int, seed: int) -> PictureSet:
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    levels = nn.functional.interpolate(coarse, size=16, mode="bilinear").permute(0, 2, 3, 1)
    images = (levels * 255).to(torch.uint8)
    labels = torch.zeros(count, dtype=torch.int64)
    splits = Split(images[:train], labels[:train]), Split(images[train:], labels[train:])
    return PictureSet("blobs", *splits, (), "CC0-1.0", "0" * 64)


def test_generator_that_has_learnt_the_kind_passes(data: PictureSet) -> None:
    """New pictures of the same kind lie as far from the training pictures as held-out ones do."""
    (pixels,) = privacy_gate(Picker(blobs(900, 800, seed=5).train.images), data, ratio=DEFAULT_RATIO)

    assert pixels.space == "pixels at 16x16"
    assert (pixels.n_samples, pixels.n_holdout) == (2000, 150)
    assert 0.7 < pixels.samples / pixels.holdout < 1.3


@pytest.mark.parametrize("mirror", [False, True])
def test_generator_that_copies_is_refused_with_the_figures(data: PictureSet, mirror: bool) -> None:
    """One copy in fifty is enough, mirrored or not, and the message says how near they are."""
    images = torch.cat([blobs(980, 980, seed=5).train.images, data.train.images[:40]])
    with pytest.raises(TrainingError, match="samples lie too close to training pictures") as refused:
        privacy_gate(Picker(images, mirror=mirror), data, ratio=DEFAULT_RATIO)

    message = str(refused.value)
    assert "nearer than 0.5 times what hold-out pictures do (quantile of 1% of" in message
    assert re.search(r"pixels at 16x16: \S+ for 2000 samples, \S+ for 150 hold-out pictures \(0\.\d\d times\)", message)


def test_ratio_is_the_callers(data: PictureSet) -> None:
    """What passes at one ratio is refused at a higher one."""
    with pytest.raises(TrainingError, match="nearer than 3 times"):
        privacy_gate(Picker(blobs(900, 800, seed=5).train.images), data, ratio=3.0)


def test_features_are_compared_if_there_is_a_network(data: PictureSet) -> None:
    """The second figures are those of the feature space, by its name, and count as much as the first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = FeatureNet(0, 1).eval()
    found = privacy_gate(Picker(blobs(900, 800, seed=5).train.images), data, ratio=0.1, net=net)

    assert [closeness.space for closeness in found] == ["pixels at 16x16", f"features of {net.name}"]
    assert found[1].samples > 0


def test_holdout_pictures_that_repeat_training_ones_cannot_judge(data: PictureSet) -> None:
    """A yardstick of length nought lets nothing pass."""
    same = PictureSet("same", data.train, data.train, (), "CC0-1.0", "0" * 64)
    with pytest.raises(TrainingError, match="hold-out pictures repeat training pictures"):
        privacy_gate(Picker(data.train.images), same, ratio=0.5)


def test_too_few_holdout_pictures_cannot_judge() -> None:
    """A gate that cannot tell refuses."""
    with pytest.raises(TrainingError, match="--privacy-gate needs 100 hold-out pictures, noise has 30"):
        privacy_gate(tiny_generator(), tiny_pictures(), ratio=0.5)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_ratio_is_refused(data: PictureSet, ratio: float) -> None:
    """A ratio that lets everything or nothing pass is a mistake."""
    with pytest.raises(TrainingError, match=r"--privacy-gate \S+ is not a number above 0"):
        privacy_gate(tiny_generator(), data, ratio=ratio)
