import pytest
import torch
from torch import Tensor

from tests.training.metrics.pictures import arrows, stripes
from training.metrics.feature_training import holdout_accuracy, train_feature_net
from training.metrics.features import FeatureNet, extract


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return train_feature_net(*stripes(512, 0), 2, seed=1, batch_size=32)


def test_training_learns_two_classes(net: FeatureNet) -> None:
    """Stripes that lie and stripes that stand are told apart in pictures not trained on."""
    assert holdout_accuracy(net, stripes(256, 2)) > 0.98


def test_training_again_with_the_seed_gives_the_same_bytes(net: FeatureNet) -> None:
    """Seed, data and thread count fix the network, whatever torch's global generator says."""
    torch.manual_seed(987)
    again = train_feature_net(*stripes(512, 0), 2, seed=1, batch_size=32)
    assert again.digest() == net.digest()


def test_training_with_another_seed_gives_other_bytes() -> None:
    """The seed decides."""
    data = stripes(64, 0)
    digests = {train_feature_net(*data, 2, seed=seed, epochs=1).digest() for seed in (1, 2)}
    assert len(digests) == 2


def test_training_reports_progress_up_to_one() -> None:
    """Each step reports the share done, rising to 1, and a finite loss."""
    seen: list[tuple[float, float]] = []
    train_feature_net(*stripes(100, 0), 2, seed=1, epochs=2, batch_size=32, progress=lambda *now: seen.append(now))
    shares = [share for share, _ in seen]
    assert shares == [step / 6 for step in range(1, 7)]
    assert all(0 < loss < 10 for _, loss in seen)


def test_training_without_labels_learns_the_upside() -> None:
    """Without labels the network tells quarter turns apart, of pictures that are not square too."""
    net = train_feature_net(arrows(512, 0), torch.empty(0), 0, seed=1, batch_size=32)
    assert net.name == "rotation-cnn/1"
    assert holdout_accuracy(net, (arrows(64, 1), torch.empty(0))) > 0.9
    assert extract(net, arrows(8, 2)).features.shape == (8, 128)


def test_training_of_a_single_class_is_on_quarter_turns() -> None:
    """One class teaches a classifier nothing, so it counts as no labels."""
    assert train_feature_net(arrows(20, 0), torch.zeros(20), 1, seed=1, epochs=1).head.out_features == 4


def test_training_that_diverges_raises() -> None:
    """A loss that is not a number is an error, not a feature space."""
    with pytest.raises(RuntimeError, match="loss"):
        train_feature_net(*stripes(128, 0), 2, seed=1, max_lr=1e38, batch_size=16)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([0, 1, 2]),
        torch.tensor([0, -1, 1]),
        torch.tensor([0, 1]),
        torch.tensor([0.0, 1.0, 0.0]),
    ],
)
def test_training_on_labels_that_do_not_fit_raises(labels: Tensor) -> None:
    """Labels out of range, too few, or not int64, are refused before any step."""
    with pytest.raises(ValueError, match="labels must"):
        train_feature_net(stripes(3, 0)[0], labels, 2, seed=1)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}])
def test_training_for_nothing_raises(wrong: dict[str, int]) -> None:
    """No epochs, or empty batches, would leave an untrained space."""
    with pytest.raises(ValueError, match="at least 1"):
        train_feature_net(*stripes(8, 0), 2, seed=1, **wrong)  # type: ignore[arg-type]
