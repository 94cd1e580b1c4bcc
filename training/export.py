"""EMA generator and its discriminator -> bundle; the only `torch.jit.save`.

The exported modules are whole functions: latents in, uint8 pixels out, and uint8 pixels in, scores out. Scaling between
0..255 and [-1, 1] happens in them, so the service never hears of [-1, 1].
"""

import base64
import copy
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.calibration import calibrate
from training.data import Label, PictureSet, to_float, to_uint8
from training.directions import write_directions
from training.errors import TrainingError
from training.files import sha256_of
from training.latents import RNG_NAME, latents
from training.manifest import (
    SCHEMA_VERSION,
    Defaults,
    DirectionEntry,
    DiscriminatorEntry,
    FileEntry,
    Golden,
    LabelEntry,
    Manifest,
    MetricEntry,
    TrainingFacts,
)
from training.networks.families import Architecture, GeneratorNetwork, to_dict
from training.networks.layers import Dropout
from training.progress import save_grid
from training.report import REPORT_NAME

W_AVG_LATENTS = 4096  # per label: the mean of w is then known to a 64th of its deviation
GOLDEN_SEEDS = (1, 2, 3, 4)
GOLDEN_SIZE = 16
GOLDEN_TOLERANCE = 6  # grey levels; another machine's float32 and bfloat16 stay well inside
SAMPLE_COLUMNS = 10
SAMPLES_AT_ONCE = 60


class ExportedGenerator(nn.Module):
    """The bundle's generator: `mapping`, `synthesis` and `forward`, each usable from TorchScript.

    Args:
        generator: The averaged generator.
        w_avg: Mean style per label, float32 (max(num_classes, 1), num_ws, w_dim), towards which psi truncates.
    """

    w_avg: Tensor

    def __init__(self, generator: nn.Module, w_avg: Tensor) -> None:
        super().__init__()
        self.generator = cast("GeneratorNetwork", generator)
        self.register_buffer("w_avg", w_avg)

    @torch.jit.export
    def mapping(self, z: Tensor, label: Tensor) -> Tensor:
        """Return styles, float32 (N, num_ws, w_dim), for `z`, float32 (N, z_dim), and `label`, int64 (N,)."""
        return self.generator.mapping(z, label).contiguous()

    @torch.jit.export
    def synthesis(self, w: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for styles `w`, float32 (N, num_ws, w_dim)."""
        return to_uint8(self.generator.synthesis(w))

    def forward(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C); `truncation_psi`, float32 (N,), moves w towards `w_avg[label]`."""
        w_avg = self.w_avg[label]
        w = w_avg + truncation_psi[:, None, None] * (self.mapping(z, label) - w_avg)
        return self.synthesis(w)


class ExportedDiscriminator(nn.Module):
    """The bundle's discriminator: `score`, usable from TorchScript.

    Args:
        discriminator: A discriminator of any family, with plain weights; its dropout, which serves training, is left
            out of the copy that this module keeps.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        network = copy.deepcopy(discriminator)
        for name, module in list(network.named_modules()):
            if isinstance(module, Dropout):
                network.set_submodule(name, nn.Identity())
        self.discriminator = network

    @torch.jit.export
    def score(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return scores, float32 (N,), higher is more real, of pixels, uint8 (N, H, W, C), and labels, int64 (N,)."""
        scores: Tensor = self.discriminator(to_float(pixels), label)
        return scores

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return what `score` returns."""
        return self.score(pixels, label)


@torch.inference_mode()
def mean_styles(module: nn.Module) -> Tensor:
    """Return the mean of w per label over fixed latents, float32 (max(num_classes, 1), num_ws, w_dim).

    Measured at export instead of tracked in training: exact for these weights, and the same for everybody.
    """
    generator = cast("GeneratorNetwork", module)
    config = generator.config
    random = torch.Generator().manual_seed(0)
    z = torch.randn(W_AVG_LATENTS, config.z_dim, generator=random)
    labels = range(max(config.num_classes, 1))
    means = [generator.mapping(z, torch.full((W_AVG_LATENTS,), label)).mean(dim=0) for label in labels]
    return torch.stack(means).clone()


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """What the manifest says beyond the network itself."""

    name: str
    version: int
    labels: Sequence[Label]
    metrics: Sequence[MetricEntry]
    training: TrainingFacts
    intended_use: str
    licence: str


def export_bundle(
    generator: nn.Module,
    facts: BundleFacts,
    models_dir: Path,
    *,
    discriminator: nn.Module | None = None,
    data: PictureSet | None = None,
    report: str | None = None,
) -> Path:
    """Write a bundle to `models_dir/<name>/<version>/`; it appears whole or not at all.

    Args:
        generator: The averaged generator, on the CPU.
        facts: The manifest's further content.
        models_dir: The models folder.
        discriminator: Its opponent, on the CPU, if it is to be exported; needs `data`.
        data: What both were trained on, against which directions and scores are measured; without it the bundle has
            neither.
        report: A page about the generator, HTML, if it is to have one.

    Returns:
        The bundle's folder.

    Raises:
        TrainingError: If that version exists, there are other labels than classes, a discriminator comes without data,
            or an exported module does not give what it was made from.
    """
    if discriminator is not None and data is None:
        raise TrainingError("a discriminator is exported with its scores on hold-out pictures, and no data was given")
    network = cast("GeneratorNetwork", generator).config
    if len(facts.labels) != network.num_classes:
        raise TrainingError(f"{len(facts.labels)} labels were given for {network.num_classes} classes")
    target = models_dir / facts.name / str(facts.version)
    if target.exists():
        raise TrainingError(f"{target} exists; bundles are never overwritten, choose another --version")
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    beside.mkdir(parents=True)
    try:
        module = ExportedGenerator(generator, mean_styles(generator)).eval().requires_grad_(False)
        _write_module(module, beside / "generator.pt", _inputs(module, [0, 1], [0, 0]))
        _write_durable_form(module, network, beside)
        _write_samples(module, beside / "samples.png")
        judged, directions = None, list[DirectionEntry]()
        if data is not None:
            directions = write_directions(generator, data, beside / "directions.safetensors")
            if discriminator is not None:
                judged = _write_discriminator(generator, discriminator, data, beside / "discriminator.pt")
        if report is not None:
            (beside / REPORT_NAME).write_text(report, encoding="utf-8")
        _write_manifest(module, facts, judged, directions, beside)
        for file in beside.iterdir():
            file.chmod(0o644)  # safetensors writes files that only their owner can read
        for path in (*beside.iterdir(), beside):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _write_module(module: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> None:
    """Write a module as TorchScript, and compare what it gives for `inputs`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(path))
        loaded = torch.jit.load(str(path))
    with torch.inference_mode():
        if not torch.equal(loaded(*inputs), module(*inputs)):
            raise TrainingError(f"{path.name} does not reproduce the network it was made from")


def _write_discriminator(
    generator: nn.Module, discriminator: nn.Module, data: PictureSet, path: Path
) -> DiscriminatorEntry:
    """Write the discriminator, and return how it scores."""
    module = ExportedDiscriminator(discriminator).eval().requires_grad_(False)
    _write_module(module, path, (data.train.images[:2], data.train.labels[:2]))
    return calibrate(module, generator, data)


def _write_durable_form(module: ExportedGenerator, network: Architecture, folder: Path) -> None:
    tensors = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    (folder / "architecture.json").write_text(json.dumps(to_dict(network), indent=2) + "\n", encoding="utf-8")


def _write_samples(module: ExportedGenerator, path: Path) -> None:
    """Write a grid: a row per label, and in each the seeds 0, 1, 2, ... at no truncation."""
    config = module.generator.config
    rows = config.num_classes or SAMPLE_COLUMNS
    labels = [row for row in range(rows) for _ in range(SAMPLE_COLUMNS)] if config.num_classes else [0] * rows * rows
    seeds = list(range(SAMPLE_COLUMNS)) * rows if config.num_classes else list(range(rows * SAMPLE_COLUMNS))
    parts = zip(*(tensor.split(SAMPLES_AT_ONCE) for tensor in _inputs(module, seeds, labels)), strict=True)
    with torch.inference_mode():
        save_grid(path, torch.cat([module(*part) for part in parts]), SAMPLE_COLUMNS, zoom=2)


def _write_manifest(
    module: ExportedGenerator,
    facts: BundleFacts,
    discriminator: DiscriminatorEntry | None,
    directions: list[DirectionEntry],
    folder: Path,
) -> None:
    config = module.generator.config
    files = {
        file.name: FileEntry(sha256=sha256_of(file), bytes=file.stat().st_size) for file in sorted(folder.iterdir())
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=facts.name,
        version=facts.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        num_ws=config.num_ws,
        height=config.resolution,
        width=config.resolution,
        channels=config.channels,
        labels=[LabelEntry(name=label.name, aliases=list(label.aliases)) for label in facts.labels],
        rng=RNG_NAME,
        defaults=Defaults(),
        golden=_golden(module),
        discriminator=discriminator,
        directions=directions,
        metrics=list(facts.metrics),
        training=facts.training,
        intended_use=facts.intended_use,
        licence=facts.licence,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")


def _golden(module: ExportedGenerator) -> list[Golden]:
    num_classes = max(module.generator.config.num_classes, 1)
    labels = [index * num_classes // len(GOLDEN_SEEDS) for index in range(len(GOLDEN_SEEDS))]
    with torch.inference_mode():
        pixels = module(*_inputs(module, GOLDEN_SEEDS, labels))
    return [
        Golden(
            seed=seed,
            label=label,
            truncation_psi=1.0,
            thumbnail=base64.b64encode(bytes(thumb.flatten().tolist())).decode(),
            tolerance=GOLDEN_TOLERANCE,
        )
        for seed, label, thumb in zip(GOLDEN_SEEDS, labels, thumbnail(pixels), strict=True)
    ]


def thumbnail(pixels: Tensor) -> Tensor:
    """Return means over an adaptive 16x16 grid, rounded: uint8 (N, 16, 16, C) for `pixels`, uint8 (N, H, W, C)."""
    means = F.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2).float(), GOLDEN_SIZE)
    return means.round().to(torch.uint8).permute(0, 2, 3, 1)


def _inputs(module: ExportedGenerator, seeds: Sequence[int], labels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    return latents(seeds, module.generator.config.z_dim), torch.tensor(labels), torch.ones(len(seeds))
