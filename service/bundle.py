"""The bundle: its manifest, its verification, the generator's protocol; the only `torch.jit.load`.

Loading TorchScript runs code of the archive, so everything that can be checked before is checked before: the manifest,
every file's length and SHA-256, the archive's members, and the operators that its code names.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from torch import Tensor

from service.operators import forbidden_operators, repacked

MANIFEST_NAME, GENERATOR_NAME = "manifest.json", "generator.pt"
DISCRIMINATOR_NAME, DIRECTIONS_NAME = "discriminator.pt", "directions.safetensors"
MAX_MANIFEST_BYTES = 1 << 20
GOLDEN_SIZE = 16


class BundleError(Exception):
    """A bundle that must not be served; the message says which check failed, and how."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A file of the bundle: SHA-256 as 64 hexadecimal digits, and length."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=4 << 30)


class LabelEntry(_Part):
    """A class: its name, and further words that mean the same."""

    name: str = Field(min_length=1, max_length=64)
    aliases: tuple[str, ...] = ()


class Defaults(_Part):
    """What a request that does not say gets; a label of `None` means: drawn from the seed."""

    label: int | None = None
    truncation_psi: float = Field(default=1.0, ge=0, le=1)


class Golden(_Part):
    """A picture that the loaded generator must reproduce: base64 of a uint8 (16, 16, C) thumbnail."""

    seed: int = Field(ge=0, lt=2**53)
    label: int = Field(ge=0)
    truncation_psi: float = Field(ge=0, le=1)
    thumbnail: str
    tolerance: int = Field(ge=0, le=255)


class LabelScores(_Part):
    """A label's quantiles of the discriminator's score, ascending; none on hold-out pictures where there are none."""

    n_holdout: int = Field(ge=0)
    holdout: tuple[FiniteFloat, ...]
    n_samples: int = Field(ge=0)
    samples: tuple[FiniteFloat, ...]


class DiscriminatorEntry(_Part):
    """How `discriminator.pt` scores, per label in the order of the labels, at `levels` of probability."""

    levels: tuple[float, ...] = Field(min_length=1)
    labels: tuple[LabelScores, ...] = Field(min_length=1)


class DirectionEntry(_Part):
    """A direction of `directions.safetensors`: pictures of w + t * direction change with t, inside the range."""

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,62}$")
    kind: Literal["named", "closed-form"]
    range: tuple[FiniteFloat, FiniteFloat]
    strength: float | None = Field(ge=-1, le=1)
    effect: FiniteFloat


class Manifest(_Part):
    """The reader's side of `manifest.json` (docs/bundle.md)."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    version: int = Field(ge=1)
    created: str
    files: dict[str, FileEntry]
    z_dim: int = Field(ge=1, le=4096)
    w_dim: int = Field(ge=1, le=4096)
    num_ws: int = Field(ge=1, le=256)
    height: int = Field(ge=1, le=1024)
    width: int = Field(ge=1, le=1024)
    channels: Literal[1, 3, 4]
    labels: tuple[LabelEntry, ...]
    rng: Literal["philox-bm-1"]
    defaults: Defaults
    golden: tuple[Golden, ...] = Field(min_length=1)
    discriminator: DiscriminatorEntry | None = None
    directions: tuple[DirectionEntry, ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any]
    intended_use: str
    licence: str

    @model_validator(mode="after")
    def _hang_together(self) -> "Manifest":
        if GENERATOR_NAME not in self.files:
            raise ValueError(f"files does not list {GENERATOR_NAME}")
        num_classes = max(len(self.labels), 1)
        for number, golden in enumerate(self.golden):
            if golden.label >= num_classes:
                raise ValueError(f"golden[{number}].label {golden.label} is not below {num_classes}")
            if len(base64.b64decode(golden.thumbnail, validate=True)) != GOLDEN_SIZE**2 * self.channels:
                raise ValueError(f"golden[{number}].thumbnail is not {GOLDEN_SIZE}x{GOLDEN_SIZE}x{self.channels} bytes")
        if self.defaults.label is not None and not 0 <= self.defaults.label < num_classes:
            raise ValueError(f"defaults.label {self.defaults.label} is not below {num_classes}")
        if self.discriminator is not None:
            self._check_discriminator(self.discriminator, num_classes)
        self._check_directions()
        return self

    def _check_discriminator(self, entry: DiscriminatorEntry, num_classes: int) -> None:
        if DISCRIMINATOR_NAME not in self.files:
            raise ValueError(f"files does not list {DISCRIMINATOR_NAME}")
        if len(entry.labels) != num_classes:
            raise ValueError(f"discriminator.labels has {len(entry.labels)} entries for {num_classes}")
        for number, scores in enumerate(entry.labels):
            for count, quantiles in ((scores.n_holdout, scores.holdout), (scores.n_samples, scores.samples)):
                if len(quantiles) != (len(entry.levels) if count else 0) or list(quantiles) != sorted(quantiles):
                    raise ValueError(f"discriminator.labels[{number}] has no ascending quantile for every level")

    def _check_directions(self) -> None:
        if self.directions and DIRECTIONS_NAME not in self.files:
            raise ValueError(f"files does not list {DIRECTIONS_NAME}")
        if len({direction.name for direction in self.directions}) < len(self.directions):
            raise ValueError("directions has a name twice")
        for direction in self.directions:
            if not direction.range[0] <= 0 <= direction.range[1]:
                raise ValueError(f"directions: the range {list(direction.range)} of {direction.name} is not around 0")

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unconditional generator."""
        return len(self.labels)


class Generator(Protocol):
    """What the exported module offers.

    `w_avg` is float32 (max(num_classes, 1), num_ws, w_dim): the mean style per label, towards which psi truncates.
    """

    w_avg: Tensor

    def mapping(self, z: Tensor, label: Tensor) -> Tensor:
        """Return w, float32 (N, num_ws, w_dim), for z, float32 (N, z_dim), and label, int64 (N,)."""

    def synthesis(self, w: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for w, float32 (N, num_ws, w_dim)."""

    def __call__(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        """Return pixels for latents, labels and psi, float32 (N,)."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle. `digest` is the SHA-256 of its manifest, which names every file's."""

    manifest: Manifest
    digest: str
    folder: Path


def discover(models_dir: Path) -> dict[str, dict[int, Path]]:
    """Return the bundle folders by name and version; whatever is hidden, empty or no version is passed over.

    Args:
        models_dir: The models folder.

    Returns:
        Names to versions to folders, in the order of the names.

    Raises:
        BundleError: If the models folder cannot be read.
    """
    try:
        folders = sorted(folder for folder in models_dir.iterdir() if folder.is_dir() and folder.name[0] != ".")
    except OSError as error:
        raise BundleError(f"models folder {models_dir}: {error.strerror or error}") from error
    found = {folder.name: _versions(folder) for folder in folders}
    return {name: versions for name, versions in found.items() if versions}


def _versions(folder: Path) -> dict[int, Path]:
    """Return the versions in a model's folder; none if it cannot be read, as a volume's `lost+found` cannot."""
    try:
        return {int(v.name): v for v in sorted(folder.iterdir()) if v.name.isascii() and v.name.isdecimal()}
    except OSError:
        return {}


def verify(folder: Path) -> Bundle:
    """Check everything about a bundle that can be checked without running it.

    Args:
        folder: The bundle's folder, `<name>/<version>`.

    Returns:
        The bundle, which may be loaded.

    Raises:
        BundleError: If the manifest, a file's length or digest, or an operator of the generator does not hold.
    """
    try:
        manifest_bytes = _read_bounded(folder / MANIFEST_NAME)
        manifest = Manifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{MANIFEST_NAME}: {where + ': ' if where else ''}{first['msg']}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise BundleError(f"{MANIFEST_NAME} says {manifest.id}, the folder {folder.parent.name}@{folder.name}")
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    forbidden = forbidden_operators(folder / GENERATOR_NAME)
    if forbidden:
        raise BundleError(f"{GENERATOR_NAME} is refused: {'; '.join(forbidden[:5])}")
    return Bundle(manifest, hashlib.sha256(manifest_bytes).hexdigest(), folder)


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path.name}: {error.strerror or error}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path.name} is longer than {MAX_MANIFEST_BYTES} bytes")
    return content


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise BundleError(f"files names {name!r}, which is not a plain file name")
    try:
        size = path.stat().st_size
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{name} is not a regular file")
        if size != entry.bytes:
            raise BundleError(f"{name} has {size} bytes, the manifest says {entry.bytes}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise BundleError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if digest != entry.sha256:
        raise BundleError(f"{name} has SHA-256 {digest}, the manifest says {entry.sha256}")


class ReducedGenerator:
    """A generator whose synthesis computes in a shorter type; styles stay float32, since their errors would add up.

    Args:
        generator: The generator in float32, for `mapping` and `w_avg`.
        synthesis: Its copy in `dtype`.
        dtype: The shorter type.
    """

    def __init__(self, generator: Generator, synthesis: Generator, dtype: torch.dtype) -> None:
        self.w_avg, self.mapping = generator.w_avg, generator.mapping
        self._synthesis, self._dtype = synthesis, dtype

    def synthesis(self, w: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for w, float32 (N, num_ws, w_dim)."""
        return self._synthesis.synthesis(w.to(self._dtype))

    def __call__(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for latents, labels and psi, float32 (N,)."""
        w_avg = self.w_avg[label]
        return self.synthesis(w_avg + truncation_psi[:, None, None] * (self.mapping(z, label) - w_avg))


def load(bundle: Bundle, device: torch.device, dtype: torch.dtype = torch.float32) -> Generator:
    """Load a verified bundle's generator and check its methods, shapes and types on two rows.

    Args:
        bundle: What `verify` returned.
        device: Where the generator shall lie.
        dtype: What its synthesis computes in.

    Returns:
        The generator, frozen.

    Raises:
        BundleError: If the archive does not load, or the module is not what the manifest says or not in that dtype.
    """
    try:
        content = (bundle.folder / GENERATOR_NAME).read_bytes()
        if hashlib.sha256(content).hexdigest() != bundle.manifest.files[GENERATOR_NAME].sha256:
            raise BundleError(f"{GENERATOR_NAME} has changed since it was verified")
        generator = _frozen(content, device, torch.float32, ["mapping", "synthesis", "w_avg"])
        if dtype != torch.float32:
            generator = ReducedGenerator(generator, _frozen(content, device, dtype, ["synthesis"]), dtype)
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise BundleError(f"{GENERATOR_NAME} does not load: {str(error).strip().splitlines()[0]}") from error
    try:
        with torch.inference_mode():
            _check_shapes(generator, bundle.manifest, device)
    except (RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise BundleError(f"{GENERATOR_NAME} does not run: {str(error).strip().splitlines()[-1]}") from error
    return generator


def _frozen(content: bytes, device: torch.device, dtype: torch.dtype, kept: list[str]) -> Generator:
    module = torch.jit.load(repacked(content), map_location=device)
    module.eval()
    module.to(dtype=dtype, memory_format=torch.channels_last)
    return cast("Generator", torch.jit.freeze(module, preserved_attrs=kept))


def _check_shapes(generator: Generator, manifest: Manifest, device: torch.device) -> None:
    z = torch.zeros(2, manifest.z_dim, device=device)
    label = torch.zeros(2, dtype=torch.int64, device=device)
    w_shape = (2, manifest.num_ws, manifest.w_dim)
    pixel_shape = (2, manifest.height, manifest.width, manifest.channels)
    w = generator.mapping(z, label)
    for what, tensor, dtype, shape in (
        ("w_avg", generator.w_avg, torch.float32, (max(manifest.num_classes, 1), *w_shape[1:])),
        ("mapping", w, torch.float32, w_shape),
        ("synthesis", generator.synthesis(w), torch.uint8, pixel_shape),
        ("forward", generator(z, label, torch.ones(2, device=device)), torch.uint8, pixel_shape),
    ):
        if tensor.dtype != dtype or tensor.shape != shape:
            raise BundleError(
                f"{GENERATOR_NAME}: {what} gives {tensor.dtype} {tuple(tensor.shape)}, "
                f"the manifest says {dtype} {shape}"
            )
