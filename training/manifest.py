"""The bundle's manifest, the writer's side (docs/bundle.md). The service has its own reader of the same schema."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

SCHEMA_VERSION: Final = 1
DirectionKind = Literal["named", "closed-form"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileEntry(_Part):
    """A file of the bundle: SHA-256 as 64 hexadecimal digits, and length."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class LabelEntry(_Part):
    """A class: its name, and further words that mean the same."""

    name: str = Field(min_length=1, max_length=64)
    aliases: list[str] = []


class Defaults(_Part):
    """What a request that does not say gets; a label of `None` means: drawn from the seed."""

    label: int | None = None
    truncation_psi: float = Field(default=1.0, ge=0, le=1)


class Golden(_Part):
    """A picture that the loaded generator must reproduce.

    `thumbnail` is base64 of uint8 (16, 16, C): means over an adaptive 16x16 grid, rounded. No value may differ by more
    than `tolerance` grey levels.
    """

    seed: int = Field(ge=0, lt=2**53)
    label: int = Field(ge=0)
    truncation_psi: float = Field(ge=0, le=1)
    thumbnail: str
    tolerance: int = Field(ge=0, le=255)


class MetricEntry(_Part):
    """A figure with what is needed to compare it: sample sizes, feature space, and the real-against-real floor."""

    name: str
    value: float
    floor: float
    n_real: int
    n_fake: int
    n_floor: int
    feature_space: str
    feature_digest: str


class TrainingFacts(_Part):
    """Where the weights come from."""

    preset: str
    config: dict[str, Any]
    images_seen: int
    minutes: float
    device: str
    git_revision: str
    data_name: str
    data_digest: str
    data_licence: str


class LabelScores(_Part):
    """A label's quantiles of the discriminator's score, ascending; none on hold-out pictures where there are none."""

    n_holdout: int = Field(ge=0)
    holdout: list[FiniteFloat]
    n_samples: int = Field(ge=0)
    samples: list[FiniteFloat]


class DiscriminatorEntry(_Part):
    """How `discriminator.pt` scores, per label in the order of the labels, at `levels` of probability."""

    levels: list[float] = Field(min_length=1)
    labels: list[LabelScores] = Field(min_length=1)


class DirectionEntry(_Part):
    """A direction of `directions.safetensors`: pictures of w + t * direction change with t, inside the range.

    `effect` is the mean change over the range: of the attribute that the direction is named after, else of the picture
    in grey levels. `strength` is the correlation of t with that attribute within a picture, null without an attribute.
    """

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,62}$")
    kind: DirectionKind
    range: tuple[FiniteFloat, FiniteFloat]
    strength: float | None = Field(ge=-1, le=1)
    effect: FiniteFloat


class Manifest(_Part):
    """Everything the service needs to know of a bundle, and everything a person should."""

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
    channels: int = Field(ge=1, le=4)
    labels: list[LabelEntry]
    rng: Literal["philox-bm-1"]
    defaults: Defaults
    golden: list[Golden] = Field(min_length=1)
    discriminator: DiscriminatorEntry | None = None
    directions: list[DirectionEntry] = []
    metrics: list[MetricEntry] = []
    training: TrainingFacts
    intended_use: str
    licence: str
