import pytest

from training.errors import TrainingError
from training.presets import PRESETS, preset


def test_fashion28_makes_the_published_networks() -> None:
    """The measured preset keeps its resolution, widths and settings."""
    config = preset("fashion28")
    assert (config.base_size, config.widths, config.batch_size) == (7, (96, 64), 64)
    assert (config.learning_rate, config.gamma) == ((1e-3, 1e-4), (8.0, 0.8))
    assert config.network(size=(28, 28, 1), num_classes=10).resolution == 28


def test_preset_takes_the_users_changes() -> None:
    """Seed and batch size change in a copy; the table stays as it is."""
    config = preset("fashion28", seed=3, batch_size=32)
    assert (config.seed, config.batch_size) == (3, 32)
    assert (PRESETS["fashion28"].seed, PRESETS["fashion28"].batch_size) == (0, 64)


@pytest.mark.parametrize(
    ("name", "seed", "batch_size", "message"),
    [
        ("fashion29", 0, None, "unknown preset 'fashion29'; known: .*fashion28"),
        ("fashion28", -1, None, "seed -1"),
        ("fashion28", 2**32, None, "seed 4294967296"),
        ("fashion28", 0, 0, "batch size 0"),
    ],
)
def test_preset_with_an_impossible_value_is_refused(name: str, seed: int, batch_size: int | None, message: str) -> None:
    """A mistake is named before anything is built."""
    with pytest.raises(TrainingError, match=message):
        preset(name, seed=seed, batch_size=batch_size)
