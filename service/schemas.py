"""What a client may send, and every bound on it. Names are the same in the query and in the body."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from service.errors import FieldError, InvalidParameters
from service.sampler import seed_from

MAX_LATENT = 10.0
MAX_LABEL_CHARACTERS = 64
AnimationFormat = Literal["png", "webp", "gif", "avif"]


def _check_seed(value: int | str) -> int | str:
    seed_from(value)
    return value


def _check_label(value: int | str) -> int | str:
    if isinstance(value, str) and not 1 <= len(value) <= MAX_LABEL_CHARACTERS:
        raise ValueError(f"a label's name has 1 to {MAX_LABEL_CHARACTERS} characters")
    return value


def _conflict(detail: str, *names: str) -> InvalidParameters:
    """Return the error of fields that do not go together; pydantic lets it pass, and would name none of them."""
    fields = tuple(FieldError(f"/{name}", detail) for name in names)
    return InvalidParameters(f"{', '.join(names)}: {detail}", errors=fields)


Seed = Annotated[
    StrictInt | StrictStr,
    AfterValidator(_check_seed),
    Field(description="0..2^53-1, or a string of 1..128 characters, which is hashed; digits are that integer"),
]
Label = Annotated[
    StrictInt | StrictStr,
    AfterValidator(_check_label),
    Field(description="a label's index, name or alias"),
]
# Fails fast, or a body of wrong numbers would be answered by one that is thirty times as long.
Latent = Annotated[
    list[Annotated[float, Field(ge=-MAX_LATENT, le=MAX_LATENT, allow_inf_nan=False)]], Field(fail_fast=True)
]
Psi = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="truncation; 1 = off")]


class _Look(BaseModel):
    """What every picture has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncation_psi: Psi | None = None
    size: Annotated[int, Field(ge=16, le=1024)] | None = Field(None, description="longest side in pixels (Lanczos)")
    quality: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="lossy formats only; default 85")
    background: Annotated[str, StringConstraints(max_length=32)] = Field(
        "auto", description="transparent, auto, #rrggbb or a CSS basic colour name; needs a model with alpha"
    )
    metadata: bool = Field(True, description="embed provenance")


class _Parameters(_Look):
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        None, description="name or name@version; default: the default model"
    )


class _Generate(_Parameters):
    label: Label | None = Field(None, description="a label's index, name or alias; default: drawn from the seed")
    seed: Seed | None = Field(None, description="default: random; always echoed in X-Seed")
    format: Literal["png", "jpeg", "webp", "avif", "auto"] | None = Field(None, description="default png")
    layout: Literal["auto", "single", "sheet"] = "auto"
    columns: Annotated[int, Field(ge=1, le=16)] | None = Field(None, description="of the sheet; default ceil(sqrt n)")


class GenerateQuery(_Generate):
    """GET /generate."""

    n: Annotated[int, Field(ge=1, le=16)] = Field(1, description="pictures; picture i has seed + i")
    download: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="file name: the answer is an attachment"
    )


class PermalinkQuery(_Look):
    """GET /i/{model}@{version}/{seed}.{ext}; the format is the extension."""

    label: Label | None = None
    download: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,64}$")] | None = None


class GenerateBody(_Generate):
    """POST /generate."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    n: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="pictures, at most VITRINE_MAX_N (64)")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1024)] | None = None
    labels: Annotated[list[Label], Field(min_length=1, max_length=1024)] | None = None
    latents: Annotated[list[Latent], Field(min_length=1, max_length=1024, fail_fast=True)] | None = None
    include: set[Literal["b64", "url", "latent"]] = Field({"b64", "url"}, strict=False)

    @model_validator(mode="after")
    def _one_source_and_one_count(self) -> Self:
        sources = [name for name in ("seed", "seeds", "latents") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise _conflict("give one of seed, seeds and latents", *sources)
        if self.label is not None and self.labels is not None:
            raise _conflict("give one of label and labels", "label", "labels")
        lengths = {
            name: len(value) if isinstance(value, list) else value
            for name in ("n", "seeds", "latents", "labels")
            if (value := getattr(self, name)) is not None
        }
        if len(set(lengths.values())) > 1:
            raise _conflict(f"n and the lengths of the lists differ: {lengths}", *lengths)
        return self

    @property
    def count(self) -> tuple[str, int]:
        """The number of pictures asked for, behind the name of the field that says it."""
        for name, values in (("seeds", self.seeds), ("latents", self.latents), ("labels", self.labels)):
            if values is not None:
                return name, len(values)
        return "n", self.n or 1


class _Interpolate(_Parameters):
    steps: Annotated[int, Field(ge=2, le=120)] = Field(16, description="frames per segment, both ends counted")
    mode: Literal["slerp", "lerp", "w"] | None = Field(None, description="default w where the model has a style space")
    easing: Literal["linear", "cosine"] = "linear"
    loop: Literal["none", "wrap", "bounce"] = "none"
    fps: Annotated[int, Field(ge=1, le=60)] = 12
    label: Label | None = Field(None, description="default: drawn from `from`")
    label_to: Label | None = Field(None, description="default: `label`'s")
    layout: Literal["animation", "strip", "frames"] = "animation"
    format: AnimationFormat | None = Field(None, description="default png (APNG)")


class InterpolateQuery(_Interpolate):
    """GET /interpolate."""

    seed_from: Seed = Field(alias="from")
    seed_to: Seed = Field(alias="to")


class KeyframeBody(BaseModel):
    """A stop on the way: a seed or a latent."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed: Seed | None = None
    latent: Latent | None = None
    label: Label | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.seed is None) == (self.latent is None):
            raise ValueError("give either seed or latent")
        return self


class InterpolateBody(_Interpolate):
    """POST /interpolate."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed_from: Seed | None = Field(None, alias="from")
    seed_to: Seed | None = Field(None, alias="to")
    keyframes: Annotated[list[KeyframeBody], Field(min_length=2, max_length=16)] | None = None

    @model_validator(mode="after")
    def _ends_or_keyframes(self) -> Self:
        ends = {"from": self.seed_from, "to": self.seed_to}
        beside = {**ends, "label": self.label, "label_to": self.label_to}
        if self.keyframes is not None:
            excluded = [name for name, value in beside.items() if value is not None]
            if excluded:
                raise _conflict("keyframes excludes from, to, label and label_to", "keyframes", *excluded)
        elif missing := [name for name, value in ends.items() if value is None]:
            raise _conflict("give from and to, or keyframes", *missing)
        return self


def openapi_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return a query model's fields as OpenAPI parameters."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema["properties"].items()
    ]


def openapi_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entry of what is answered: a 200 of one of the media types, or a problem (RFC 9457)."""
    return {
        "200": {"description": "The picture", "content": {media_type: {} for media_type in media_types}},
        "default": {"description": "What went wrong", "content": {"application/problem+json": {}}},
    }


def openapi_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI entry of a JSON body; `app.py` puts the schema itself among the components."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}
