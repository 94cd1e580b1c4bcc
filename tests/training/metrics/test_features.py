import pytest
import torch

from tests.training.metrics.pictures import stripes
from training.metrics.feature_training import train_feature_net
from training.metrics.features import FeatureNet, Features, extract


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return train_feature_net(*stripes(512, 0), 2, seed=1, batch_size=32)


def test_name_of_a_labelled_network_says_so(net: FeatureNet) -> None:
    """The published name of the space goes with its recipe."""
    assert net.name == "labels-cnn/1"


def test_network_has_the_documented_layers() -> None:
    """Three blocks of 32, 64 and 128 channels and a linear head: 93,514 weights for ten classes of grey pictures."""
    weights = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 128 * 10 + 10
    assert sum(parameter.numel() for parameter in FeatureNet(10).parameters()) == weights == 94186


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (9, 31, 3), (64, 64, 4)])
def test_extract_takes_any_size(height: int, width: int, channels: int) -> None:
    """Odd, oblong, coloured or with alpha: always 128 finite features that are not negative."""
    images = torch.randint(256, (3, height, width, channels), dtype=torch.uint8)
    found = extract(FeatureNet(5, channels), images)
    assert found.features.shape == (3, 128)
    assert found.features.dtype == torch.float32
    assert bool((found.features >= 0).all())
    assert bool(found.features.isfinite().all())


def test_extract_sees_the_last_row_of_an_odd_size(net: FeatureNet) -> None:
    """The row that pooling drops is seen by the convolution before, so no edge of a picture goes unseen."""
    dark = torch.zeros(1, 9, 9, 1, dtype=torch.uint8)
    edged = dark.clone()
    edged[:, -1] = 255
    assert not torch.equal(extract(net, dark).features, extract(net, edged).features)


def test_extract_in_batches_keeps_the_order(net: FeatureNet) -> None:
    """Batches that do not divide the pictures give each picture its own row."""
    images, _ = stripes(23, 3)
    whole, parts = extract(net, images), extract(net, images, batch=5)
    torch.testing.assert_close(parts.features, whole.features)
    assert torch.equal(parts.predicted, whole.predicted)


def test_extract_neither_trains_nor_changes_the_mode(net: FeatureNet) -> None:
    """A network left in training mode is used with its running statistics, and stays as it is."""
    images, _ = stripes(40, 4)
    expected, digest = extract(net, images), net.digest()
    net.train()
    try:
        found = extract(net, images)
        assert all(layer.training for layer in net.modules())
    finally:
        net.eval()
    assert torch.equal(found.features, expected.features)
    assert net.digest() == digest


def test_extract_gives_the_features_of_the_network(net: FeatureNet) -> None:
    """Folding the batch norms into the convolutions changes no feature beyond rounding."""
    images, _ = stripes(40, 4)
    with torch.inference_mode():
        expected, _ = net(images)
    torch.testing.assert_close(extract(net, images).features, expected, rtol=1e-4, atol=1e-5)


def test_extract_gives_the_most_likely_class(net: FeatureNet) -> None:
    """The class is that of the head on the features."""
    images, _ = stripes(40, 5)
    found: Features = extract(net, images)
    with torch.inference_mode():
        assert torch.equal(net.head(found.features).argmax(1), found.predicted)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 12, 12, 1), torch.float32),
        ((2, 12, 12), torch.uint8),
        ((0, 12, 12, 1), torch.uint8),
        ((2, 1, 12, 12), torch.uint8),
        ((2, 7, 12, 1), torch.uint8),
        ((2, 12, 12, 3), torch.uint8),
    ],
)
def test_extract_of_what_is_no_picture_raises(net: FeatureNet, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Floats, (N, C, H, W), no pictures, small ones and other channels are refused."""
    with pytest.raises(ValueError, match=r"need|at least"):
        extract(net, torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize(("num_classes", "channels"), [(-1, 1), (2, 2)])
def test_network_of_impossible_shape_raises(num_classes: int, channels: int) -> None:
    """Negative classes and two-channel pictures do not exist."""
    with pytest.raises(ValueError, match="need num_classes"):
        FeatureNet(num_classes, channels)
