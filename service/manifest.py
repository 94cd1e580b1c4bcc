"""The reader's side of a bundle's `manifest.json` (docs/bundle.md): its parts, and how they must hang together."""

import base64
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

GENERATOR_NAME, DISCRIMINATOR_NAME = "generator.pt", "discriminator.pt"
DIRECTIONS_NAME = "directions.safetensors"
GOLDEN_SIZE = 16


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
    """All of it."""

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
