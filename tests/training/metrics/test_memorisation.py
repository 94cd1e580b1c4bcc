import pytest
import torch
from torch import Tensor

from tests.training.metrics.pictures import blobs
from training.metrics.feature_training import train_feature_net
from training.metrics.features import FeatureNet, extract
from training.metrics.memorisation import Memorisation, MemorisationScreen

TRAIN, HOLDOUT, FRESH = blobs(600, 0)[0], blobs(300, 1)[0], blobs(300, 2)[0]


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return train_feature_net(*blobs(600, 0), 3, seed=5, batch_size=32, epochs=1)


@pytest.fixture(scope="module")
def judged(net: FeatureNet) -> MemorisationScreen:
    train, holdout = ((pictures, extract(net, pictures).features) for pictures in (TRAIN, HOLDOUT))
    return MemorisationScreen(net, train, holdout)


def screen(judged: MemorisationScreen, net: FeatureNet, samples: Tensor) -> Memorisation:
    return judged.screen(samples, extract(net, samples).features)


def test_fresh_pictures_are_not_suspected(judged: MemorisationScreen, net: FeatureNet) -> None:
    """Pictures of the same distribution lie as near as hold-out pictures do, with C_T within chance."""
    found = screen(judged, net, FRESH)
    assert found.suspicions == ()
    assert [nearness.name for nearness in found.nearness] == [
        "pixels",
        "pixels_mirrored",
        "features",
        "features_mirrored",
    ]
    for nearness in found.nearness:
        assert nearness.median == pytest.approx(nearness.median_floor, rel=0.2)
        assert abs(nearness.score) < 3
        assert abs(nearness.score_floor) < 3


def test_copied_training_pictures_are_suspected(judged: MemorisationScreen, net: FeatureNet) -> None:
    """Copies are at distance 0 in both spaces and far below chance by C_T."""
    found = screen(judged, net, TRAIN[:300].clone())
    assert len(found.suspicions) == 8
    for nearness in found.nearness:
        assert nearness.median == pytest.approx(0, abs=1e-3)
        assert nearness.score < -5


def test_some_copies_among_fresh_pictures_are_suspected(judged: MemorisationScreen, net: FeatureNet) -> None:
    """Two copies in a hundred samples show in the 1 % quantile, and only there."""
    found = screen(judged, net, torch.cat([FRESH, TRAIN[:8]]))
    assert any("nearest_pixels_q01 0 is below half" in reason for reason in found.suspicions)
    assert not any("median" in reason for reason in found.suspicions)


def test_mirrored_copies_are_suspected_by_mirrored_pictures_only(judged: MemorisationScreen, net: FeatureNet) -> None:
    """A training picture turned round is a copy too; its pair shows the training picture as it was matched."""
    samples = TRAIN[:100].flip(2)
    found = screen(judged, net, samples)
    by_name = {nearness.name: nearness for nearness in found.nearness}
    assert by_name["pixels"].median > 1
    assert by_name["pixels_mirrored"].median == 0
    assert by_name["features_mirrored"].median == pytest.approx(0, abs=1e-3)
    assert torch.equal(found.pairs[:, 0], found.pairs[:, 1])


def test_pairs_are_the_closest_ones_nearest_first(judged: MemorisationScreen, net: FeatureNet) -> None:
    """A copy, a copy with one pixel changed, and the rest, each beside its training picture."""
    changed = TRAIN[5:6].clone()
    changed[0, 0, 0] ^= 64
    pairs = screen(judged, net, torch.cat([FRESH[:40], changed, TRAIN[9:10]])).pairs
    assert pairs.shape == (16, 2, 12, 12, 1)
    assert torch.equal(pairs[0], TRAIN[[9, 9]])
    assert torch.equal(pairs[1], torch.cat([changed, TRAIN[5:6]]))
    distances = (pairs[:, 0].float() - pairs[:, 1]).square().mean(dim=(1, 2, 3))
    assert bool((distances.diff() >= 0).all())


def test_numbers_of_pictures_are_told(judged: MemorisationScreen, net: FeatureNet) -> None:
    """A figure comes with the numbers of pictures behind it; few samples make few pairs."""
    found = screen(judged, net, FRESH[:10])
    assert (found.n_train, found.n_fake, found.n_holdout, len(found.pairs)) == (600, 10, 300, 10)
