"""FID by two protocols: which pictures stand on which side, and the number against another implementation's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from tests.training.inception_files import write_inception
from training.errors import TrainingError
from training.metrics import fid, inception
from training.metrics.fid import Fid
from training.metrics.frechet import frechet_distance, statistics
from training.metrics.inception import Inception

FEATURES = 24


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inception:
    """Return a tiny network of few features, for which 30 pictures are enough."""
    monkeypatch.setattr(inception, "FEATURES", FEATURES)
    monkeypatch.setattr(fid, "FEATURES", FEATURES)
    monkeypatch.setattr(fid, "MIN_FLOOR_IMAGES", 10)
    monkeypatch.setattr(fid, "LUCIC_IMAGES", 40)
    return inception.load(write_inception(tmp_path / "i.pt", features=FEATURES))


def pictures(count: int, seed: int, shift: int = 0) -> Tensor:
    """Return grey pictures of smooth noise, uint8 (N, 16, 16, 1)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256 - shift, (count, 4, 4, 1), dtype=torch.uint8, generator=random) + shift
    return coarse.to(torch.uint8).repeat_interleave(4, 1).repeat_interleave(4, 2)


class Identity(torch.nn.Module):
    """Lets torchmetrics take features as they are."""

    num_features = FEATURES

    def forward(self, features: Tensor) -> Tensor:
        return features


def oracle(real: Tensor, fake: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=Identity(), input_img_size=(1, 1, FEATURES)).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


@pytest.mark.parametrize("protocol", fid.PROTOCOLS)
def test_fid_is_torchmetrics_of_the_same_features(network: Inception, protocol: str) -> None:
    """Value and floor are another implementation's figures of the features that the protocol names."""
    train, holdout, samples = pictures(60, 0), pictures(40, 1), pictures(40, 2, shift=60)
    found = Fid(protocol, network, train, holdout, 40).score(samples, lambda text: None)
    if protocol == "lucic10k":
        chosen = train[torch.randperm(60, generator=torch.Generator().manual_seed(0))[:40]]
        real, fake, instead = (network.own_resize(images) for images in (holdout, samples, chosen))
        assert (found.n_real, found.n_fake, found.n_floor) == (40, 40, 40)
    else:
        real, fake, instead = (network.clean_resize(images) for images in (train, samples, holdout))
        assert (found.n_real, found.n_fake, found.n_floor) == (60, 40, 40)
    assert found.name == f"fid_{protocol}"
    assert found.value == pytest.approx(oracle(real, fake), rel=1e-6)
    assert found.floor == pytest.approx(oracle(real, instead), rel=1e-6)
    assert found.floor < found.value


def test_lucic10k_takes_equal_parts_of_every_class(network: Inception) -> None:
    """Pictures that are sorted by class are not cut off after the first classes."""
    pictures_of_two = torch.cat([pictures(40, 0), pictures(40, 1, shift=200)])
    whole = Fid("lucic10k", network, pictures_of_two, pictures_of_two, 40)
    first = Fid("lucic10k", network, pictures_of_two[:40], pictures_of_two[:40], 40)
    samples = pictures_of_two[::2]
    silent: Callable[[str], None] = lambda text: None  # noqa: E731
    assert whole.score(samples, silent).value < 0.5 * first.score(samples, silent).value


@pytest.mark.parametrize(
    ("protocol", "counts", "message"),
    [
        ("lucic10k", (60, 40, 39), "--protocol lucic10k takes 40 samples, got --samples 39"),
        ("lucic10k", (60, 40, 41), "--protocol lucic10k takes 40 samples, got --samples 41"),
        ("lucic10k", (39, 40, 40), "--protocol lucic10k needs at least 40 training pictures, there are 39"),
        ("lucic10k", (60, 39, 40), "--protocol lucic10k needs at least 40 hold-out pictures, there are 39"),
        ("clean", (24, 40, 40), "--protocol clean needs at least 25 training pictures, there are 24"),
        ("clean", (60, 9, 40), "--protocol clean needs at least 10 hold-out pictures, there are 9"),
        ("clean", (60, 40, 24), "--protocol clean needs at least 25 samples, there are 24"),
    ],
)
def test_too_few_pictures_are_refused(
    network: Inception, protocol: str, counts: tuple[int, int, int], message: str
) -> None:
    """Before anything is measured, with what is there and what is needed."""
    train, holdout, samples = counts
    with pytest.raises(TrainingError) as caught:
        Fid(protocol, network, pictures(train, 0), pictures(holdout, 1), samples)
    assert str(caught.value) == message


def test_samples_of_another_size_are_refused(network: Inception) -> None:
    """Both would be resized to 299x299, and the figure would mean nothing."""
    clean = Fid("clean", network, pictures(60, 0), pictures(40, 1), 40)
    with pytest.raises(ValueError, match=r"samples must be \(16, 16, 1\), got \(8, 8, 1\)"):
        clean.score(pictures(40, 2)[:, ::2, ::2], lambda text: None)


def test_real_protocols_have_their_papers_numbers() -> None:
    """10,000 of each; more pictures than the network's 2,048 features."""
    assert fid.LUCIC_IMAGES == 10_000
    assert fid.FEATURES == inception.FEATURES == 2048


@pytest.mark.slow
def test_frechet_distance_is_sound_at_2048_features() -> None:
    """Fewer rows than features, sparse, of scales from 1e-4 to 1: a shift gives its square, itself gives 0."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 2048, generator=random).relu_() * torch.logspace(-4, 0, 2048)
    shift = torch.randn(2048, generator=random) * 0.1
    plain = statistics(rows)
    assert frechet_distance(plain, statistics(rows.double() + shift)) == pytest.approx(
        float(shift.double().square().sum()), rel=1e-9
    )
    assert frechet_distance(plain, plain) < 1e-9 * float(plain.cov.trace())
