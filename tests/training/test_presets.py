import pytest

from training.errors import TrainingError
from training.presets import PRESETS, preset, suited_to


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


@pytest.mark.parametrize(
    ("side", "device", "name"),
    [
        (28, "cpu", "fashion28"),
        (28, "cuda", "fashion28"),
        (32, "cpu", "product32-cpu"),
        (64, "cpu", "product64-cpu"),
        (64, "cuda", "product64"),
        (128, "cpu", "product128-cpu"),
        (128, "cuda", "product128"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_preset_is_found_by_the_pictures_size(side: int, channels: int, device: str, name: str) -> None:
    """Nobody has to know the presets' names to train; the one that is found makes such pictures."""
    assert suited_to((side, side, channels), device) == name
    network = preset(name).network(size=(side, side, channels), num_classes=2)
    assert (network.resolution, network.channels) == (side, channels)


def test_size_without_a_preset_is_refused_with_the_ones_there_are() -> None:
    """The mistake is in `prepare`, and is mended there."""
    with pytest.raises(TrainingError, match=r"100x50; prepare them with --size and one of 28, 32, 64, 128"):
        suited_to((50, 100, 3), "cpu")
