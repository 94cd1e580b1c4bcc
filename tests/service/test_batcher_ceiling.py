"""How large batches may be after one did not fit into memory."""

from service.batcher.ceiling import RECOVER_AFTER, Ceiling


def filled(ceiling: Ceiling, size: int, times: int = RECOVER_AFTER) -> int:
    """Let batches fit, and return what is allowed then."""
    for _ in range(times):
        ceiling.fitted(size)
    return ceiling.value


def test_what_did_not_fit_is_halved() -> None:
    """Again and again, down to one; one that does not fit has nothing below it, and says nothing of others."""
    ceiling = Ceiling(16, lambda: range(1, 17))
    assert [ceiling.did_not_fit(size) for size in (16, 8, 4, 2)] == [8, 4, 2, 1]
    assert ceiling.value == 1
    assert ceiling.did_not_fit(1) == 0
    assert ceiling.value == 1


def test_trial_that_fails_falls_back_to_what_fitted() -> None:
    """Not to half of it; and what fitted once may not fit later."""
    ceiling = Ceiling(16, lambda: range(1, 17))
    ceiling.did_not_fit(16)
    assert filled(ceiling, 8) == 9
    assert ceiling.did_not_fit(9) == 8
    assert ceiling.value == 8
    assert ceiling.did_not_fit(8) == 4


def test_sizes_are_those_that_the_device_runs() -> None:
    """A batch of 9 takes as much as one of 16 where those are next; a larger one is tried at a size that runs."""
    ceiling = Ceiling(16, lambda: (1, 2, 4, 8, 16))
    assert ceiling.did_not_fit(9) == 8
    assert filled(ceiling, 8) == 16
    assert ceiling.did_not_fit(12) == 8
    assert Ceiling(16, lambda: (16,)).did_not_fit(3) == 0


def test_lone_failure_of_a_small_batch_does_not_raise_the_ceiling() -> None:
    """A batch below the ceiling that does not fit lowers it, never the other way round."""
    ceiling = Ceiling(16, lambda: range(1, 17))
    ceiling.did_not_fit(4)
    assert ceiling.value == 2
    assert filled(ceiling, 1) == 2
    assert filled(ceiling, 2) == 3
