"""From a generator to a bundle: all of it or nothing, the same for the same weights, and readable by everybody."""

import base64
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.builders import export_tiny_bundle, tiny_discriminator, tiny_facts, tiny_generator, tiny_pictures
from training import directions, export
from training.data import to_float
from training.directions import Direction
from training.errors import TrainingError
from training.export import ExportedDiscriminator, ExportedGenerator, export_bundle, mean_styles, thumbnail
from training.latents import latents
from training.manifest import DirectionEntry
from training.networks.classic import ClassicConfig, ClassicDiscriminator

FILES = {"architecture.json", "generator.pt", "manifest.json", "samples.png", "weights.safetensors"}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return manifest


def test_bundle_holds_everything(tiny_models: Path) -> None:
    """A folder by name and version with the five files, and nothing left over beside it."""
    folder = tiny_models / "tiny" / "1"

    assert {file.name for file in folder.iterdir()} == FILES
    assert [entry.name for entry in folder.parent.iterdir()] == ["1"]
    # Beside it, services of other tests may have noted how they run it.
    assert [entry.name for entry in tiny_models.iterdir() if entry.name != ".variants.json"] == ["tiny"]


def test_manifest_says_what_was_exported(tiny_models: Path) -> None:
    """Shapes, labels with their aliases and the facts of the training stand in the manifest."""
    manifest = manifest_of(tiny_models / "tiny" / "1")
    facts = tiny_facts(name="tiny", version=1)

    shapes = {name: manifest[name] for name in ("z_dim", "w_dim", "num_ws", "height", "width", "channels")}
    assert shapes == {"z_dim": 8, "w_dim": 16, "num_ws": 3, "height": 16, "width": 16, "channels": 1}
    assert manifest["labels"] == [{"name": label.name, "aliases": list(label.aliases)} for label in facts.labels]
    assert manifest["training"] == facts.training.model_dump()
    assert manifest["defaults"] == {"label": None, "truncation_psi": 1.0}


def test_files_can_be_read_by_everybody(tiny_models: Path) -> None:
    """The service runs as another user than the training did."""
    folder = tiny_models / "tiny" / "1"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}

    assert modes == dict.fromkeys(FILES, 0o644)


def test_existing_version_is_never_overwritten(tiny_copy: Path) -> None:
    """The error says what to do, and the bundle that is there stays as it was."""
    before = {file.name: file.read_bytes() for file in tiny_copy.iterdir()}

    with pytest.raises(TrainingError, match="tiny/1 exists; bundles are never overwritten, choose another --version"):
        export_tiny_bundle(tiny_copy.parents[1], seed=1)
    assert {file.name: file.read_bytes() for file in tiny_copy.iterdir()} == before


@pytest.mark.parametrize("step", ["_write_module", "_write_durable_form", "_write_samples", "_write_manifest"])
def test_export_that_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """No part of a bundle is left where a service could find it, and the next try succeeds."""
    with monkeypatch.context() as broken:
        for name in ("_write_module", "_write_durable_form", "_write_samples", "_write_manifest"):
            broken.setattr(export, name, _write_nothing)
        broken.setattr(export, step, _fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            export_tiny_bundle(tmp_path)

    assert [path for path in tmp_path.rglob("*") if path.name != "tiny"] == []
    if step == "_write_manifest":
        assert export_tiny_bundle(tmp_path).is_dir()


def _write_nothing(*arguments: object) -> None:
    pass


def _fill_the_disk(*arguments: object) -> None:
    (folder,) = (a for a in arguments if isinstance(a, Path))
    (folder if folder.is_dir() else folder.parent).joinpath("half").write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_module_that_does_not_reproduce_its_generator_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved is read back and compared before the bundle appears."""

    def load(path: str) -> Any:
        return lambda z, label, psi: torch.zeros(len(z), 16, 16, 1, dtype=torch.uint8)

    monkeypatch.setattr(torch.jit, "load", load)

    with pytest.raises(TrainingError, match=r"generator\.pt does not reproduce the network it was made from"):
        export_tiny_bundle(tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.parametrize("num_classes", [0, 2, 4])
def test_other_labels_than_classes_are_refused(tmp_path: Path, num_classes: int) -> None:
    """A bundle that no service would load is not written."""
    with pytest.raises(TrainingError, match=f"3 labels were given for {num_classes} classes"):
        export_bundle(tiny_generator(num_classes=num_classes), tiny_facts(name="tiny", version=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_same_weights_give_the_same_bundle(tiny_models: Path, tmp_path: Path) -> None:
    """Two exports differ in their dates only, whatever torch's random generator has been doing."""
    torch.manual_seed(99)
    again = export_tiny_bundle(tmp_path)
    first, second = manifest_of(tiny_models / "tiny" / "1"), manifest_of(again)

    for manifest in (first, second):
        del manifest["created"]
    assert first == second


def test_mean_styles_are_the_means_of_w() -> None:
    """Per label the mean over many latents, to the accuracy of their number; the same in every process."""
    generator = tiny_generator()
    w_avg = mean_styles(generator)
    z = latents(range(4000), 8)

    assert w_avg.shape == (3, 3, 16)
    assert torch.equal(w_avg, mean_styles(generator))
    for label in range(3):
        w = generator.mapping(z, torch.full((4000,), label))
        spread = (w.std(dim=0) * (1 / 4000 + 1 / 4096) ** 0.5).clamp(min=1e-6)
        assert ((w.mean(dim=0) - w_avg[label]) / spread).abs().max() < 5
    assert mean_styles(tiny_generator(num_classes=0)).shape == (1, 3, 16)


def test_exported_module_truncates_per_row() -> None:
    """Each row has its own label and psi; 1 leaves w as it is, 0 makes it the label's mean."""
    generator = tiny_generator()
    module = ExportedGenerator(generator, mean_styles(generator)).eval()
    z, labels = latents([5, 6, 7], 8), torch.tensor([0, 1, 2])
    pixels = module(z, labels, torch.tensor([0.0, 0.5, 1.0]))
    w, mean = module.mapping(z, labels), module.w_avg[labels]

    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[:1], module.synthesis(mean[:1]))
    middle = module.synthesis((mean + 0.5 * (w - mean))[1:2])
    assert (pixels[1:2].int() - middle.int()).abs().max() <= 1
    assert (pixels[2:].int() - module.synthesis(w[2:]).int()).abs().max() <= 1


@pytest.mark.parametrize(("num_classes", "size"), [(3, (320, 96)), (0, (320, 320))])
def test_samples_are_a_row_per_label(tmp_path: Path, num_classes: int, size: tuple[int, int]) -> None:
    """Ten seeds per label, or a hundred without labels, at twice their size; what a person looks at first."""
    folder = export_tiny_bundle(tmp_path, num_classes=num_classes)

    with Image.open(folder / "samples.png") as image:
        assert image.size == size
        pixels = np.asarray(image)[::2, ::2].reshape(-1, 16, 10, 16).swapaxes(1, 2).reshape(-1, 16, 16)
    assert len({picture.tobytes() for picture in pixels}) == len(pixels)


def test_golden_thumbnails_are_those_of_the_pictures(tiny_models: Path) -> None:
    """At 16x16 a thumbnail is the picture itself; four seeds, spread over the labels, at psi 1."""
    generator = tiny_generator()
    module = ExportedGenerator(generator, mean_styles(generator)).eval()
    for entry in manifest_of(tiny_models / "tiny" / "1")["golden"]:
        pixels = module(latents([entry["seed"]], 8), torch.tensor([entry["label"]]), torch.ones(1))
        assert base64.b64decode(entry["thumbnail"]) == pixels.numpy().tobytes()
        assert entry["truncation_psi"] == 1


def _means(pixels: Tensor, rows: list[slice], columns: list[slice]) -> Tensor:
    return torch.stack([torch.stack([pixels[row, column].float().mean() for column in columns]) for row in rows])


def test_thumbnail_is_the_mean_over_a_grid() -> None:
    """Sizes that 16 divides give plain means, and channels stay apart."""
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = thumbnail(pixels)
    rows, columns = ([slice(i * n, (i + 1) * n) for i in range(16)] for n in (2, 3))

    assert small.shape == (2, 16, 16, 3)
    assert small.dtype == torch.uint8
    assert torch.equal(small[1, :, :, 2].float(), _means(pixels[1, :, :, 2], rows, columns).round())


def test_part_of_another_process_is_left_alone(tmp_path: Path) -> None:
    """An export that is under way beside this one is none of its business."""
    other = tmp_path / "tiny" / ".2.1.part"
    other.mkdir(parents=True)
    export_tiny_bundle(tmp_path)

    assert other.is_dir()
    shutil.rmtree(other)
    assert [entry.name for entry in (tmp_path / "tiny").iterdir()] == ["1"]


def test_samples_of_many_transparent_labels_are_a_row_each(tmp_path: Path) -> None:
    """Forty-eight labels are forty-eight rows, in order, and what is transparent stays so."""
    generator = tiny_generator(channels=4, num_classes=48)
    folder = export_tiny_bundle(tmp_path, channels=4, num_classes=48)
    with Image.open(folder / "samples.png") as image:
        assert (image.mode, image.size) == ("RGBA", (320, 48 * 32))
        pixels = np.asarray(image)[::2, ::2].reshape(48, 16, 10, 16, 4).swapaxes(1, 2)
    module = ExportedGenerator(generator, mean_styles(generator)).eval()
    for label in (0, 20, 47):
        expected = module(latents(range(10), 8), torch.full((10,), label), torch.ones(10)).numpy()
        assert np.abs(pixels[label].astype(int) - expected).max() <= 1


def with_everything(folder: Path, **changes: Any) -> Path:
    arguments = {"discriminator": tiny_discriminator(), "data": tiny_pictures()} | changes
    return export_bundle(tiny_generator(), tiny_facts(name="tiny", version=1), folder, **arguments)


@pytest.fixture
def one_direction(monkeypatch: pytest.MonkeyPatch) -> Direction:
    """Let every generator have this direction."""
    entry = DirectionEntry(name="size", kind="named", range=(-2.0, 3.0), strength=0.9, effect=0.2)
    direction = Direction(entry, torch.nn.functional.one_hot(torch.tensor([1, 1, 1]), 16).float())
    monkeypatch.setattr(directions, "find_directions", lambda generator, data: [direction])
    return direction


def test_discriminator_and_directions_are_exported_with_their_entries(tmp_path: Path, one_direction: Direction) -> None:
    """With the data come both files, listed with their digests, and what was measured of them."""
    folder = with_everything(tmp_path)
    manifest = manifest_of(folder)

    files = FILES | {"discriminator.pt", "directions.safetensors"}
    assert {file.name for file in folder.iterdir()} == files
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert manifest["directions"] == [one_direction.entry.model_dump(mode="json")]
    assert torch.equal(load_file(folder / "directions.safetensors")["size"], one_direction.vector)
    assert [scores["n_holdout"] for scores in manifest["discriminator"]["labels"]] == [10, 10, 10]


@pytest.mark.usefixtures("one_direction")
def test_run_without_a_discriminator_exports_none(tmp_path: Path) -> None:
    """A snapshot of an older version holds none; the manifest says so, and the rest is there."""
    folder = with_everything(tmp_path, discriminator=None)

    assert manifest_of(folder)["discriminator"] is None
    assert {file.name for file in folder.iterdir()} == FILES | {"directions.safetensors"}


def test_bundle_without_data_has_neither(tiny_models: Path) -> None:
    """Both are measured against data; without it the manifest says that there are none."""
    manifest = manifest_of(tiny_models / "tiny" / "1")

    assert (manifest["discriminator"], manifest["directions"]) == (None, [])


def test_discriminator_without_data_is_refused(tmp_path: Path) -> None:
    """Scores that nobody can read are not exported."""
    with pytest.raises(TrainingError, match="a discriminator is exported with its scores on hold-out pictures"):
        with_everything(tmp_path, data=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("one_direction")
def test_same_weights_and_data_give_the_same_bundle(tmp_path: Path) -> None:
    """Quantiles and files are the same, whatever torch's random generator has been doing."""
    first = manifest_of(with_everything(tmp_path / "first"))
    torch.manual_seed(99)
    second = manifest_of(with_everything(tmp_path / "second"))

    for manifest in (first, second):
        del manifest["created"]
    assert first == second


def test_exported_discriminator_scores_pixels_as_training_does() -> None:
    """Pixels go in as they leave a file, and the scores are the discriminator's logits."""
    network, data = tiny_discriminator(channels=4), tiny_pictures(channels=4)
    module = ExportedDiscriminator(network).eval()
    pixels, labels = data.holdout.images, data.holdout.labels
    before = pixels.clone()
    scores = module.score(pixels, labels)

    assert torch.equal(scores, network(to_float(pixels), labels))
    assert torch.equal(pixels, before)
    assert (scores.dtype, scores.shape) == (torch.float32, (30,))
    assert scores.std() > 0


def test_dropout_is_left_out_of_the_copy_alone() -> None:
    """What serves training stays in the network that is trained."""
    network = ClassicDiscriminator(ClassicConfig("conv4", 1, 0, 28))
    before = [type(module).__name__ for module in network.modules()]
    exported = ExportedDiscriminator(network)

    assert "Dropout" in before
    assert [type(module).__name__ for module in network.modules()] == before
    assert "Dropout" not in [type(module).__name__ for module in exported.modules()]
