"""What the service refuses to load, and the reason that it gives."""

import asyncio
import base64
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.bundle import MAX_MANIFEST_BYTES, BundleError, discover, verify
from service.engine import LocalEngine
from service.generator import load
from service.rng import latents
from service.sample import Sample
from tests.builders import replace_file, rewrite_manifest, save_torchscript

CPU = torch.device("cpu")
Change = Callable[[dict[str, Any]], object]


class WithoutMapping(nn.Module):
    """A module that is no generator."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class FloatPixels(nn.Module):
    """A generator that leaves its pictures in [-1, 1]."""

    w_avg: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(3, 3, 16))

    @torch.jit.export
    def mapping(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.zeros(z.size(0), 3, 16)

    @torch.jit.export
    def synthesis(self, w: Tensor) -> Tensor:
        return torch.zeros(w.size(0), 16, 16, 1)

    def forward(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z, label))


def refusal(folder: Path) -> str:
    """Return why a bundle is refused before any of it runs."""
    with pytest.raises(BundleError) as refused:
        verify(folder)
    return str(refused.value)


def late_refusal(folder: Path) -> str:
    """Return why a bundle is refused that has passed everything that can be checked without running it."""
    bundle = verify(folder)
    with pytest.raises(BundleError) as refused:
        load(bundle, CPU)
    return str(refused.value)


def warm_up(folder: Path) -> None:
    bundle = verify(folder)
    manifest = bundle.manifest
    engine = LocalEngine(load(bundle, CPU), manifest, device=CPU, max_batch_size=2, threads=1)
    rows = latents([golden.seed for golden in manifest.golden], manifest.z_dim)
    samples = [Sample(z, g.label, g.truncation_psi) for z, g in zip(rows, manifest.golden, strict=True)]
    try:
        asyncio.run(engine.warm_up(samples))
    finally:
        asyncio.run(engine.drain())


def test_whole_bundle_is_accepted(tiny_copy: Path) -> None:
    """The bundle that the other tests spoil passes every check."""
    warm_up(tiny_copy)


def test_digest_is_the_manifests(tiny_copy: Path) -> None:
    """A bundle's digest covers all of it, since the manifest holds the digest of every other file."""
    before = verify(tiny_copy)
    rewrite_manifest(tiny_copy, lambda manifest: manifest.update(licence="MIT"))

    assert verify(tiny_copy).digest != before.digest
    assert before.manifest.id == "tiny@1"


def test_missing_manifest_is_refused(tiny_copy: Path) -> None:
    """A folder without a manifest is no bundle."""
    (tiny_copy / "manifest.json").unlink()

    assert refusal(tiny_copy) == "manifest.json: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]"])
def test_manifest_that_is_no_json_object_is_refused(tiny_copy: Path, content: bytes) -> None:
    """Whatever stands in the manifest, the reason names it."""
    (tiny_copy / "manifest.json").write_bytes(content)

    assert refusal(tiny_copy).startswith("manifest.json: ")


def test_oversized_manifest_is_refused_unread(tiny_copy: Path) -> None:
    """A manifest is read up to a bound, so that it cannot fill the memory."""
    path = tiny_copy / "manifest.json"
    path.write_bytes(path.read_bytes().ljust(MAX_MANIFEST_BYTES + 1))
    assert refusal(tiny_copy) == f"manifest.json is longer than {MAX_MANIFEST_BYTES} bytes"

    path.write_bytes(path.read_bytes()[:MAX_MANIFEST_BYTES])
    verify(tiny_copy)


def _without(*path: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return change


def _golden(**values: object) -> Change:
    return lambda manifest: manifest["golden"][0].update(values)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(schema=2), "schema: Input should be 1"),
        (_without("schema"), "schema: Field required"),
        (lambda m: m.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda m: m["defaults"].update(seed=1), "defaults.seed: Extra inputs are not permitted"),
        (lambda m: m.update(name="../tiny"), "name: String should match"),
        (lambda m: m.update(version=0), "version: Input should be greater than or equal to 1"),
        (lambda m: m.update(channels=2), "channels: Input should be 1, 3 or 4"),
        (lambda m: m.update(height=4096), "height: Input should be less than or equal to 1024"),
        (lambda m: m.update(rng="mt19937"), "rng: Input should be 'philox-bm-1'"),
        (lambda m: m.update(golden=[]), "golden: Tuple should have at least 1 item"),
        (_golden(label=3), "golden[0].label 3 is not below 3"),
        (_golden(thumbnail="AAAA"), "golden[0].thumbnail is not 16x16x1 bytes"),
        (_golden(thumbnail="not base64!"), "base64"),
        (_golden(seed=2**53), "golden.0.seed: Input should be less than 9007199254740992"),
        (lambda m: m["defaults"].update(label=3), "defaults.label 3 is not below 3"),
        (lambda m: m["defaults"].update(truncation_psi=1.5), "defaults.truncation_psi: Input should be less than"),
        (_without("files", "generator.pt"), "files does not list generator.pt"),
        (lambda m: m["files"]["samples.png"].update(sha256="A" * 64), "files.samples.png.sha256: String should match"),
    ],
)
def test_manifest_with_a_wrong_field_is_refused(tiny_copy: Path, change: Change, reason: str) -> None:
    """The reason names the field of the manifest and what is wrong with it."""
    rewrite_manifest(tiny_copy, change)

    assert refusal(tiny_copy).startswith("manifest.json: ")
    assert reason in refusal(tiny_copy)


@pytest.mark.parametrize(("name", "version"), [("tiny", "2"), ("other", "1"), ("tiny", "01")])
def test_bundle_in_another_folder_is_refused(tiny_copy: Path, name: str, version: str) -> None:
    """A bundle answers to the name and version of its folder only, written in one way."""
    folder = tiny_copy.parents[1] / name / version
    shutil.copytree(tiny_copy, folder)

    assert refusal(folder) == f"manifest.json says tiny@1, the folder {name}@{version}"


def test_truncated_generator_is_refused(tiny_copy: Path) -> None:
    """A file that was cut off in a copy is named with both lengths."""
    path = tiny_copy / "generator.pt"
    content = path.read_bytes()
    path.write_bytes(content[:-100])

    reason = f"generator.pt has {len(content) - 100} bytes, the manifest says {len(content)}"
    assert refusal(tiny_copy) == reason


@pytest.mark.parametrize("name", ["generator.pt", "weights.safetensors", "samples.png"])
def test_file_with_one_altered_byte_is_refused(tiny_copy: Path, name: str) -> None:
    """Every file's digest is checked, those that are not loaded included."""
    path = tiny_copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert refusal(tiny_copy).startswith(f"{name} has SHA-256 ")


def test_missing_file_is_refused(tiny_copy: Path) -> None:
    """A bundle is whole or not served."""
    (tiny_copy / "architecture.json").unlink()

    assert refusal(tiny_copy) == "architecture.json: No such file or directory"


def test_symbolic_link_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    """A file outside the folder is not part of the bundle, even with the right content."""
    path = tiny_copy / "generator.pt"
    path.rename(tmp_path / "elsewhere.pt")
    path.symlink_to(tmp_path / "elsewhere.pt")

    assert refusal(tiny_copy) == "generator.pt is not a regular file"


@pytest.mark.parametrize("name", ["../manifest.json", "/etc/passwd", "a/b", "", ".", "..", "generator.pt/", "a\0b"])
def test_file_name_that_is_a_path_is_refused(tiny_copy: Path, name: str) -> None:
    """The manifest can name files of its own folder and nothing else."""
    rewrite_manifest(tiny_copy, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))

    assert "not a plain file name" in refusal(tiny_copy) or "null byte" in refusal(tiny_copy)


def test_folder_in_place_of_a_file_is_refused(tiny_copy: Path) -> None:
    """Only regular files are read."""
    (tiny_copy / "samples.png").unlink()
    (tiny_copy / "samples.png").mkdir()

    assert refusal(tiny_copy) == "samples.png is not a regular file"


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" + bytes(100)])
def test_garbage_with_matching_digest_is_refused(tiny_copy: Path, content: bytes) -> None:
    """A digest proves where a file comes from, not that it is a generator."""
    replace_file(tiny_copy, "generator.pt", content)

    assert refusal(tiny_copy).startswith("generator.pt is refused: it is not a readable TorchScript archive")


def test_archive_without_a_module_is_refused(tiny_copy: Path) -> None:
    """An archive in which nothing is forbidden, because nothing is in it, does not load."""
    replace_file(tiny_copy, "generator.pt", b"PK\x05\x06" + bytes(18))

    assert late_refusal(tiny_copy).startswith("generator.pt does not load: ")


def test_generator_that_changes_after_its_verification_is_refused(tiny_copy: Path) -> None:
    """What is loaded are the very bytes whose digest was checked."""
    bundle = verify(tiny_copy)
    with (tiny_copy / "generator.pt").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(BundleError, match=r"generator\.pt has changed since it was verified"):
        load(bundle, CPU)


def test_loader_reads_the_members_that_were_judged(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip file in front of the archive, which another reader might prefer, is not there any more when torch reads."""
    content = (tiny_copy / "generator.pt").read_bytes()
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as archive:
        archive.writestr("generator/code/__torch__/evil.py", "evil")
    replace_file(tiny_copy, "generator.pt", hidden.getvalue() + content)
    read, torchs_own = [], torch.jit.load

    def load_and_note(source: io.BytesIO, map_location: torch.device) -> Any:
        read.append(source.getvalue())
        return torchs_own(source, map_location=map_location)

    monkeypatch.setattr(torch.jit, "load", load_and_note)
    warm_up(tiny_copy)

    (loaded,) = read
    assert b"evil" not in loaded
    with zipfile.ZipFile(io.BytesIO(loaded)) as archive, zipfile.ZipFile(io.BytesIO(content)) as judged:
        assert {n: archive.read(n) for n in archive.namelist()} == {n: judged.read(n) for n in judged.namelist()}


def _resized(**values: object) -> Change:
    """Return a change of the manifest's numbers that keeps its golden pictures of the right length."""

    def change(manifest: dict[str, Any]) -> None:
        manifest.update(values)
        for golden in manifest["golden"]:
            golden["thumbnail"] = base64.b64encode(bytes(256 * manifest["channels"])).decode()

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_resized(z_dim=9), "generator.pt does not run: "),
        (_resized(w_dim=17), "w_avg gives torch.float32 (3, 3, 16), the manifest says torch.float32 (3, 3, 17)"),
        (_resized(num_ws=4), "w_avg gives torch.float32 (3, 3, 16), the manifest says torch.float32 (3, 4, 16)"),
        (_resized(height=32), "synthesis gives torch.uint8 (2, 16, 16, 1), the manifest says torch.uint8 (2, 32, 16"),
        (_resized(width=32), "synthesis gives torch.uint8 (2, 16, 16, 1), the manifest says torch.uint8 (2, 16, 32"),
        (_resized(channels=3), "synthesis gives torch.uint8 (2, 16, 16, 1), the manifest says torch.uint8 (2, 16, 16"),
        (lambda m: m["labels"].append({"name": "hat"}), "w_avg gives torch.float32 (3, 3, 16), the manifest says"),
    ],
)
def test_generator_of_other_shapes_is_refused(tiny_copy: Path, change: Change, reason: str) -> None:
    """What the generator gives is compared with what the manifest promises."""
    rewrite_manifest(tiny_copy, change)

    assert reason in late_refusal(tiny_copy)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (WithoutMapping(), "generator.pt does not load: "),
        (FloatPixels(), "synthesis gives torch.float32 (2, 16, 16, 1)"),
    ],
)
def test_module_that_is_no_generator_is_refused(
    tiny_copy: Path, tmp_path: Path, module: nn.Module, reason: str
) -> None:
    """A TorchScript module has to have the generator's methods, and to return pixels."""
    save_torchscript(module, tmp_path / "module.pt")
    replace_file(tiny_copy, "generator.pt", (tmp_path / "module.pt").read_bytes())

    assert reason in late_refusal(tiny_copy)


def test_golden_picture_that_is_not_reproduced_is_refused(tiny_copy: Path) -> None:
    """Weights that load and run but draw something else are found by the golden pictures."""
    manifest = json.loads((tiny_copy / "manifest.json").read_text("utf-8"))
    golden = manifest["golden"][2]
    inverted = base64.b64encode(bytes(255 - value for value in base64.b64decode(golden["thumbnail"]))).decode()
    rewrite_manifest(tiny_copy, lambda m: m["golden"][2].update(thumbnail=inverted))

    with pytest.raises(
        BundleError, match=r"golden picture of seed 3, label 1 differs by \d+ grey levels, allowed are 6"
    ):
        warm_up(tiny_copy)


def test_bundles_are_found_by_name_and_version(tiny_copy: Path) -> None:
    """Versions are whole numbers; what is hidden, half-written, empty or something else is passed over."""
    models = tiny_copy.parents[1]
    for folder in ("tiny/10", "tiny/.3.77.part", "tiny/latest", "tiny/-1", "tiny/²", "empty", ".hidden/1", "other/2"):
        (models / folder).mkdir(parents=True)
    (models / "README").write_text("not a folder")

    assert discover(models) == {
        "other": {2: models / "other" / "2"},
        "tiny": {1: models / "tiny" / "1", 10: models / "tiny" / "10"},
    }


def test_folder_that_cannot_be_read_hides_no_other(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume's `lost+found`, which only root may list, does not keep the models from being served."""
    models = tiny_copy.parents[1]
    (models / "lost+found").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    assert discover(models) == {"tiny": {1: models / "tiny" / "1"}}


def test_missing_models_folder_is_named(tmp_path: Path) -> None:
    """The reason says which folder was looked for."""
    with pytest.raises(BundleError, match=r"models folder .*/nowhere: No such file or directory"):
        discover(tmp_path / "nowhere")
