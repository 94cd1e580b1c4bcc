import pytest

from training import schedules


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 8.0), (0.5, 4.4), (1.0, 0.8), (0.25, 4.4 + 3.6 * 0.5**0.5)])
def test_cosine_goes_from_start_to_end(progress: float, expected: float) -> None:
    """Half a cosine: the mean of both ends half way, slow at both ends."""
    assert schedules.cosine(8.0, 0.8, progress) == pytest.approx(expected)


def test_cosine_outside_the_run_stays_at_its_ends() -> None:
    """A step that starts a little after the budget's end still gets the end's value."""
    assert schedules.cosine(0.9, 0.99, 1.2) == pytest.approx(0.99)
    assert schedules.cosine(0.9, 0.99, -0.2) == pytest.approx(0.9)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.075, 0.5), (0.15, 1.0), (0.8, 1.0)])
def test_label_weight_rises_over_the_first_part_of_the_run(progress: float, expected: float) -> None:
    """The label enters in a straight line, and then stays."""
    assert schedules.label_weight(progress, 0.15) == pytest.approx(expected)
    assert schedules.label_weight(progress, 0.0) == 1


def test_warmup_starts_small_and_ends_at_one() -> None:
    """The first step already moves; from step 199 on the rate is whole."""
    assert schedules.warmup(0) == pytest.approx(1 / 200)
    assert schedules.warmup(99) == pytest.approx(0.5)
    assert schedules.warmup(199) == schedules.warmup(5000) == 1.0


def test_ema_decay_halves_over_its_halflife() -> None:
    """Late in a run, 20 thousand images in steps of 64 leave half of what the average held."""
    decay = schedules.ema_decay(1_000_000, 64, 20.0)
    assert decay ** (20_000 / 64) == pytest.approx(0.5)


def test_ema_decay_early_in_a_run_forgets_faster() -> None:
    """After 10 thousand images the half-life is a twentieth of them: 500."""
    assert schedules.ema_decay(10_000, 50, 20.0) == pytest.approx(0.5 ** (50 / 500))


def test_ema_decay_of_the_first_step_drops_the_random_weights() -> None:
    """The average begins with the trained weights, not with the initial ones."""
    assert schedules.ema_decay(64, 64, 20.0) < 1e-5
