import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.training.metrics.pictures import stripes
from training.metrics.feature_store import FeatureCard, data_digest, load, load_or_train, read_card, save
from training.metrics.feature_training import holdout_accuracy, train_feature_net
from training.metrics.features import FeatureNet, extract


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


def test_training_and_loading_leave_the_global_generator_alone(net: FeatureNet, tmp_path: Path) -> None:
    """A generator's training that evaluates as it goes draws the numbers that it would have drawn anyway."""
    before = torch.get_rng_state()
    train_feature_net(*stripes(64, 0), 2, seed=1, epochs=1)
    save(net, tmp_path / "net.safetensors", card_of(net))
    load(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


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
