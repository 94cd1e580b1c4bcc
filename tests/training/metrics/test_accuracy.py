import pytest
import torch

from training.metrics.accuracy import sample_accuracy


def test_sample_accuracy_is_the_share_of_agreeing_rows() -> None:
    """Three of four agreeing labels are 0.75."""
    assert sample_accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 0])) == 0.75


@pytest.mark.parametrize(("predicted", "labels"), [((3,), (2,)), ((0,), (0,)), ((2, 1), (2, 1)), ((1,), (3,))])
def test_sample_accuracy_of_shapes_that_do_not_fit_raises(predicted: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """Shapes that differ, are empty or are not (N,) are refused, not broadcast."""
    with pytest.raises(ValueError, match="predicted and labels"):
        sample_accuracy(torch.zeros(predicted, dtype=torch.int64), torch.zeros(labels, dtype=torch.int64))
