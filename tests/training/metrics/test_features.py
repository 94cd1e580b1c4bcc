import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from training.metrics.features import (
    FeatureCard,
    FeatureNet,
    Features,
    Split,
    data_digest,
    extract,
    holdout_accuracy,
    load,
    load_or_train,
    read_card,
    save,
    train_feature_net,
)

SIZE = 12


def stripes(n: int, seed: int, channels: int = 1) -> Split:
    """Two classes: lying and standing stripes at a random phase, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    phase = torch.randint(4, (n, 1), generator=generator)
    wave = ((torch.arange(SIZE) + phase) % 4 < 2).float()
    lying = wave[:, :, None].expand(n, SIZE, SIZE)
    field = torch.where(labels[:, None, None] == 0, lying, lying.transpose(1, 2))
    noisy = field * 150 + torch.rand(n, SIZE, SIZE, generator=generator) * 100
    return noisy.to(torch.uint8)[..., None].repeat(1, 1, 1, channels), labels


def arrows(n: int, seed: int) -> Tensor:
    """Pictures with an upside: bright above, dark below, uint8, (n, 12, 10, 3)."""
    ramp = torch.linspace(200, 0, SIZE)[None, :, None, None]
    noise = torch.rand(n, SIZE, SIZE - 2, 3, generator=torch.Generator().manual_seed(seed)) * 50
    return (ramp + noise).to(torch.uint8)


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return train_feature_net(*stripes(512, 0), 2, seed=1, batch_size=32)


def card_of(net: FeatureNet, **changes: object) -> FeatureCard:
    card = FeatureCard(
        name=net.name,
        seed=1,
        num_classes=net.num_classes,
        channels=net.channels,
        epochs=3,
        batch_size=32,
        max_lr=4e-3,
        data_digest="",
        digest=net.digest(),
        accuracy=0.5,
        torch="",
    )
    return replace(card, **changes)  # type: ignore[arg-type]


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


def test_training_and_loading_leave_the_global_generator_alone(net: FeatureNet, tmp_path: Path) -> None:
    """A generator's training that evaluates as it goes draws the numbers that it would have drawn anyway."""
    before = torch.get_rng_state()
    train_feature_net(*stripes(64, 0), 2, seed=1, epochs=1)
    save(net, tmp_path / "net.safetensors", card_of(net))
    load(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


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


@pytest.mark.parametrize(("num_classes", "channels"), [(-1, 1), (2, 2)])
def test_network_of_impossible_shape_raises(num_classes: int, channels: int) -> None:
    """Negative classes and two-channel pictures do not exist."""
    with pytest.raises(ValueError, match="need num_classes"):
        FeatureNet(num_classes, channels)


def test_digest_follows_every_weight(net: FeatureNet, tmp_path: Path) -> None:
    """One changed running statistic gives another digest; a memory format gives none."""
    save(net, tmp_path / "net", card_of(net))
    copy = load(tmp_path / "net")
    assert copy.to(memory_format=torch.contiguous_format).digest() == net.digest()  # type: ignore[call-overload]
    copy.state_dict()["blocks.1.running_mean"][0] += 1e-3
    assert copy.digest() != net.digest()


def test_data_digest_follows_pictures_labels_and_shape() -> None:
    """Another picture, another label or another shape is other data; strides are not."""
    images, labels = stripes(4, 0)
    changed = images.clone()
    changed[0, 0, 0] ^= 1
    digests = [
        data_digest(images, labels),
        data_digest(changed, labels),
        data_digest(images, 1 - labels),
        data_digest(images.reshape(4, 6, 24, 1), labels),
    ]
    assert len(set(digests)) == 4
    assert data_digest(images.transpose(1, 2).contiguous().transpose(1, 2), labels) == digests[0]


def test_saved_network_loads_as_it_was(net: FeatureNet, tmp_path: Path) -> None:
    """Weights, card and features survive the file, and nothing else is left beside it."""
    path = tmp_path / "new" / "net.safetensors"
    card = card_of(net, accuracy=0.907)
    save(net, path, card)
    loaded = load(path)
    images, _ = stripes(16, 6)
    assert read_card(path) == card
    assert loaded.digest() == net.digest()
    assert not loaded.training
    assert torch.equal(extract(loaded, images).features, extract(net, images).features)
    assert list(path.parent.iterdir()) == [path]


def test_save_that_fails_keeps_the_old_file(net: FeatureNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while writing costs neither the old network nor a stray file."""

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "net.safetensors"
    save(net, path, card_of(net))
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(net, path, card_of(net, accuracy=0.9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_with_the_card_of_another_network_raises(net: FeatureNet, tmp_path: Path) -> None:
    """A file never says that it is a network that it is not."""
    with pytest.raises(ValueError, match="card"):
        save(net, tmp_path / "net", card_of(net, digest="0" * 64))


def test_load_of_changed_weights_raises(net: FeatureNet, tmp_path: Path) -> None:
    """A file whose weights are not those of its card gives no features."""
    path = tmp_path / "net"
    save(net, path, card_of(net))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its card says"):
        load(path)


def test_load_of_another_feature_space_raises(net: FeatureNet, tmp_path: Path) -> None:
    """A network of a later recipe is not read as one of this."""
    save(net, tmp_path / "net", card_of(net, name="labels-cnn/2"))
    with pytest.raises(ValueError, match="feature space labels-cnn/2"):
        load(tmp_path / "net")


def test_load_of_weights_of_another_shape_raises(net: FeatureNet, tmp_path: Path) -> None:
    """A card that names other classes than the head has is refused."""
    path = tmp_path / "net"
    card = {**vars(card_of(net)), "num_classes": 7}
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"card": json.dumps(card)})
    with pytest.raises(ValueError, match="not a feature network"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\xff" * 64])
def test_load_of_something_else_raises(tmp_path: Path, content: bytes) -> None:
    """A file that is not safetensors is named in the error."""
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(ValueError, match="net is not a feature network"):
        load(tmp_path / "net")


def test_load_of_tensors_without_a_card_raises(tmp_path: Path) -> None:
    """Someone else's safetensors are not a feature network."""
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "net")
    with pytest.raises(ValueError, match="not a feature network"):
        load(tmp_path / "net")


def test_load_of_no_file_raises(tmp_path: Path) -> None:
    """A missing file is a missing file."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "net")


def test_load_or_train_trains_once(tmp_path: Path) -> None:
    """The second call reads what the first stored, and its card tells the hold-out accuracy."""
    path, train, holdout = tmp_path / "net.safetensors", stripes(128, 0), stripes(64, 1)
    steps: list[float] = []

    def call() -> FeatureNet:
        return load_or_train(
            path, train, holdout, 2, seed=3, epochs=1, batch_size=32, progress=lambda share, _: steps.append(share)
        )

    first, second = call(), call()
    card = read_card(path)
    assert len(steps) == 4
    assert second.digest() == first.digest() == card.digest
    assert card.accuracy == holdout_accuracy(first, holdout)
    assert (card.name, card.seed, card.data_digest) == ("labels-cnn/1", 3, data_digest(*train))


@pytest.mark.parametrize("change", ["seed", "data", "recipe"])
def test_load_or_train_of_other_data_seed_or_recipe_trains_again(tmp_path: Path, change: str) -> None:
    """A cached network of anything else is replaced, never used."""
    path, holdout = tmp_path / "net", stripes(16, 1)
    old = load_or_train(path, stripes(64, 0), holdout, 2, seed=3, epochs=1)
    new = load_or_train(
        path,
        stripes(64, 9 if change == "data" else 0),
        holdout,
        2,
        seed=4 if change == "seed" else 3,
        epochs=2 if change == "recipe" else 1,
    )
    assert new.digest() != old.digest()
    assert load(path).digest() == new.digest()


def test_load_or_train_leaves_a_file_that_is_no_network(tmp_path: Path) -> None:
    """A wrong path is an error; the file there is not overwritten."""
    path = tmp_path / "catalogue.csv"
    path.write_bytes(b"name,price\n")
    with pytest.raises(ValueError, match="not a feature network"):
        load_or_train(path, stripes(64, 0), stripes(16, 1), 2, seed=3, epochs=1)
    assert path.read_bytes() == b"name,price\n"
