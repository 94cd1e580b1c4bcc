import json

import pytest
import torch
from torch import Tensor

from tests.training.metrics.pictures import NUM_CLASSES, blobs, stripes
from training.metrics.evaluation import Evaluation, Evaluator
from training.metrics.feature_training import train_feature_net
from training.metrics.features import FeatureNet, extract

NAMES = {"fcd", "precision", "recall", "density", "coverage", "accuracy", "kid", "kid_std"}
CLASS_NAMES = {"fcd_class_mean", "fcd_class/disc", "fcd_class/bar", "fcd_class/frame"}


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return train_feature_net(*blobs(1500, 0), NUM_CLASSES, seed=5, batch_size=32)


@pytest.fixture(scope="module")
def evaluator(net: FeatureNet) -> Evaluator:
    return Evaluator(
        net, blobs(1500, 0), blobs(900, 1), num_prdc=600, num_subsets=4, label_names=["disc", "bar", "frame"]
    )


@pytest.fixture(scope="module")
def fair(evaluator: Evaluator) -> Evaluation:
    """Samples of a perfect generator."""
    return evaluator.score(*blobs(900, 2))


def values(evaluation: Evaluation) -> dict[str, float]:
    return {metric.name: metric.value for metric in evaluation.metrics}


def test_floors_of_one_distribution_are_near_perfect(net: FeatureNet, evaluator: Evaluator) -> None:
    """Hold-out pictures are at a distance far below the spread of the features, inside the manifold, and cover it."""
    found = values(evaluator.floors())
    assert set(found) == NAMES | CLASS_NAMES
    spread = extract(net, blobs(900, 1)[0]).features.double().var(dim=0).sum()
    assert found["fcd"] < 0.01 * float(spread)
    assert min(found["precision"], found["recall"], found["coverage"]) > 0.85
    assert found["density"] == pytest.approx(1, abs=0.15)
    assert found["accuracy"] > 0.97


def test_floors_are_their_own_values(evaluator: Evaluator) -> None:
    """Real against real stands beside itself, with the numbers of pictures on both sides."""
    for metric in evaluator.floors().metrics:
        assert metric.value == metric.floor
        assert metric.n_fake == metric.n_floor


def test_score_of_the_holdout_pictures_is_the_floor(evaluator: Evaluator) -> None:
    """Hold-out pictures handed in as samples reach exactly their floors."""
    assert evaluator.score(*blobs(900, 1)) == evaluator.floors()


def test_score_of_a_perfect_generator_is_near_the_floors(fair: Evaluation) -> None:
    """New pictures of the same distribution score as hold-out pictures do."""
    for metric in fair.metrics:
        assert metric.value == pytest.approx(metric.floor, rel=0.5 if metric.name.startswith("fcd_") else 0, abs=0.1)


def test_score_without_one_class_raises_fcd_and_lowers_recall_and_coverage(
    evaluator: Evaluator, fair: Evaluation
) -> None:
    """A generator that forgot a class is found out by diversity, and not by precision or accuracy."""
    images, labels = blobs(1350, 3)
    kept = labels != 2
    found, full = values(evaluator.score(images[kept], labels[kept])), values(fair)
    assert found["fcd"] > 10 * full["fcd"]
    assert found["recall"] < full["recall"] - 0.2
    assert found["coverage"] < full["coverage"] - 0.2
    assert found["precision"] > 0.85
    assert found["accuracy"] > 0.97


def test_score_of_noisy_samples_raises_fcd_and_lowers_precision(evaluator: Evaluator, fair: Evaluation) -> None:
    """Speckle takes samples off the manifold."""
    images, labels = blobs(900, 4)
    speckle = torch.randint(0, 100, images.shape, generator=torch.Generator().manual_seed(5))
    found, full = values(evaluator.score((images.long() + speckle).clamp(0, 255).to(torch.uint8), labels)), values(fair)
    assert found["fcd"] > 10 * full["fcd"]
    assert found["precision"] < full["precision"] - 0.3


def test_score_of_wrongly_labelled_samples_lowers_accuracy_and_the_classes_only(
    evaluator: Evaluator, fair: Evaluation
) -> None:
    """A generator deaf to its label makes good pictures of the wrong thing."""
    images, labels = blobs(900, 2)
    found, full = values(evaluator.score(images, (labels + 1) % NUM_CLASSES)), values(fair)
    assert found["accuracy"] < 0.05
    assert found["fcd_class_mean"] > 10 * full["fcd_class_mean"]
    for name in NAMES - {"accuracy"}:
        assert found[name] == full[name]


def test_score_takes_a_mixed_subset_of_samples_sorted_by_label(evaluator: Evaluator) -> None:
    """Samples in the order of their labels, as generators are asked for them, are covered in full all the same."""
    images, labels = blobs(1800, 6)
    order = labels.argsort(stable=True)
    found = evaluator.score(images[order], labels[order]).metric("coverage")
    assert found.value > 0.85
    assert (found.n_real, found.n_fake, found.n_floor) == (600, 600, 600)


def test_score_counts_the_pictures_behind_each_value(fair: Evaluation) -> None:
    """FCD and KID are of everything, the neighbour measures of `num_prdc`, accuracy of the samples alone."""
    counts = {metric.name: (metric.n_real, metric.n_fake, metric.n_floor) for metric in fair.metrics}
    assert counts.pop("fcd") == (1500, 900, 900)
    assert counts.pop("accuracy") == (0, 900, 900)
    assert counts.pop("kid") == counts.pop("kid_std") == (1500, 900, 900)
    assert counts.pop("fcd_class_mean") == (1500, 900, 900)
    assert {counts.pop(name) for name in CLASS_NAMES - {"fcd_class_mean"}} == {(500, 300, 300)}
    assert set(counts.values()) == {(600, 600, 600)}


def test_quick_score_is_fcd_and_accuracy_of_the_full_one(evaluator: Evaluator, fair: Evaluation) -> None:
    """The quick way leaves measures out, changes none, and says that it did."""
    quick = evaluator.score(*blobs(900, 2), quick=True)
    assert quick.quick
    assert not fair.quick
    assert quick.metrics == (fair.metric("fcd"), fair.metric("accuracy"))
    with pytest.raises(KeyError, match="recall was not measured"):
        quick.metric("recall")


def test_two_feature_networks_agree_in_order(net: FeatureNet) -> None:
    """A verdict holds in a second space of another seed: fair below one class missing."""
    train, holdout, fakes = blobs(900, 0), blobs(300, 1), blobs(900, 7)
    kept = fakes[1] != 0
    for space in (net, train_feature_net(*train, NUM_CLASSES, seed=6, batch_size=32)):
        judge = Evaluator(space, train, holdout)
        full = judge.score(*fakes, quick=True).metric("fcd").value
        assert full < judge.score(fakes[0][kept], fakes[1][kept], quick=True).metric("fcd").value


def test_evaluation_as_json_names_the_space_and_holds_all_values(net: FeatureNet, fair: Evaluation) -> None:
    """What a manifest stores: each value with n and floor, and the space by name and digest."""
    stored = json.loads(fair.to_json())
    assert stored == fair.to_dict()
    assert stored["feature_space"] == "labels-cnn/1"
    assert stored["feature_digest"] == net.digest()
    assert [tuple(metric) for metric in stored["metrics"]] == [
        ("name", "value", "floor", "n_real", "n_fake", "n_floor")
    ] * 12
    assert stored["notes"] == []


def test_score_without_labels_leaves_accuracy_out() -> None:
    """A space without labels judges pictures only, and needs none from the caller."""
    images, _ = blobs(60, 0)
    space = train_feature_net(images, torch.empty(0), 0, seed=1, epochs=1, batch_size=32)
    unlabelled = Evaluator(space, (images, torch.empty(0)), (blobs(30, 1)[0], torch.empty(0)))
    found = unlabelled.score(blobs(30, 2)[0], None)
    assert set(values(found)) == NAMES - {"accuracy"}
    assert found.notes == ("no FCD by class and no accuracy: the data has no labels",)
    assert found.feature_space == "rotation-cnn/1"


def test_score_of_a_labelled_space_without_labels_raises(evaluator: Evaluator) -> None:
    """Leaving the labels out does not quietly drop the accuracy."""
    with pytest.raises(ValueError, match="needs the labels"):
        evaluator.score(blobs(30, 2)[0], None)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(30, 12, 12, 3, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64), "samples must be"),
        (torch.zeros(30, 24, 24, 1, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64), "samples must be"),
        (torch.zeros(30, 12, 12, 1), torch.zeros(30, dtype=torch.int64), "uint8"),
        (torch.zeros(30, 12, 12, 1, dtype=torch.uint8), torch.zeros(29, dtype=torch.int64), "labels must"),
        (torch.zeros(30, 12, 12, 1, dtype=torch.uint8), torch.full((30,), 3), "labels must"),
        (torch.zeros(5, 12, 12, 1, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), "k must"),
        (torch.zeros(1, 12, 12, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), "features must"),
    ],
)
def test_score_of_samples_that_do_not_fit_raises(
    evaluator: Evaluator, images: Tensor, labels: Tensor, message: str
) -> None:
    """Samples of another size, type or number than the measures need are refused."""
    with pytest.raises(ValueError, match=message):
        evaluator.score(images, labels)


def test_evaluator_of_splits_that_do_not_fit_raises(net: FeatureNet) -> None:
    """Splits of other sizes, or too small to have neighbours, are refused at once."""
    images, labels = blobs(30, 0)
    with pytest.raises(ValueError, match="pictures differ"):
        Evaluator(net, (images, labels), (images[:, :10], labels))
    with pytest.raises(ValueError, match="more than 5 rows"):
        Evaluator(net, (images, labels), (images[:5], labels[:5]))
    with pytest.raises(ValueError, match="more than 5 rows"):
        Evaluator(net, (images, labels), (images, labels), num_prdc=5)


def test_spoiled_class_is_the_worst_one(evaluator: Evaluator, fair: Evaluation) -> None:
    """Bars that are all the same bar: their class is named first, and the others stay as they were."""
    images, labels = blobs(900, 2)
    images[labels == 1] = images[1].clone()
    found, full = values(evaluator.score(images, labels)), values(fair)
    assert next(name for name in found if name.startswith("fcd_class/")) == "fcd_class/bar"
    assert found["fcd_class/bar"] > 10 * full["fcd_class/bar"]
    assert found["fcd_class/disc"] == full["fcd_class/disc"]


def test_kid_of_noisy_samples_is_far_above_its_floor(evaluator: Evaluator, fair: Evaluation) -> None:
    """Fair samples and hold-out pictures are both at about zero, noise is not."""
    images, labels = blobs(900, 4)
    speckle = torch.randint(0, 100, images.shape, generator=torch.Generator().manual_seed(5))
    found = evaluator.score((images.long() + speckle).clamp(0, 255).to(torch.uint8), labels).metric("kid")
    assert found.value > 10 * abs(found.floor)
    assert found.value > 10 * abs(fair.metric("kid").value)


def test_classes_with_few_pictures_are_left_out_and_counted(evaluator: Evaluator) -> None:
    """A mean over what can be measured says what it left out, and why."""
    images, labels = blobs(900, 2)
    kept = (labels != 0) | (torch.arange(900) < 300)
    found = evaluator.score(images[kept], labels[kept])
    assert found.notes == (
        "FCD by class covers 2 of 3 classes: the others have fewer than 129 pictures (1 of them in samples)",
    )
    assert "fcd_class/disc" not in values(found)


def test_memorisation_of_samples_of_another_size_raises(evaluator: Evaluator) -> None:
    """Pictures of another size have no nearest training picture."""
    with pytest.raises(ValueError, match="samples must be"):
        evaluator.memorisation(stripes(4, 0, channels=3)[0])
