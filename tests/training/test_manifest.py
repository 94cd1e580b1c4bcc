"""The writer's model of the manifest."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from training.manifest import Defaults, FileEntry, Golden, LabelEntry, Manifest, TrainingFacts

GOLDEN = Golden(seed=1, label=0, truncation_psi=1, thumbnail="AAAA", tolerance=6)
FACTS = TrainingFacts(
    preset="tiny",
    config={"widths": [16, 16]},
    images_seen=1000,
    minutes=0.5,
    device="cpu",
    git_revision="unknown",
    data_name="shapes",
    data_digest="0" * 64,
    data_licence="CC0-1.0",
)

SCORES = {"n_holdout": 0, "holdout": [], "n_samples": 9, "samples": [1.5]}
DIRECTION = {"name": "size", "kind": "named", "range": (-1.0, 2.0), "strength": 0.8, "effect": 0.1}


def a_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema_version": 1,
        "name": "tiny",
        "version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "files": {"generator.pt": FileEntry(sha256="a" * 64, bytes=1)},
        **{"z_dim": 8, "w_dim": 16, "num_ws": 3, "height": 16, "width": 16, "channels": 1},
        "labels": [LabelEntry(name="bag", aliases=["purse"])],
        "rng": "philox-bm-1",
        "defaults": Defaults(),
        "golden": [GOLDEN],
        "training": FACTS,
        "intended_use": "Tests.",
        "licence": "Apache-2.0",
    }
    return Manifest(**(values | changes))


def test_written_manifest_reads_back() -> None:
    """What is written by alias is read by alias, and nothing is lost."""
    written = a_manifest().model_dump_json(by_alias=True)

    assert json.loads(written)["schema"] == 1
    assert "schema_version" not in json.loads(written)
    assert Manifest.model_validate_json(written) == a_manifest()


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"name": "Tiny"},
        {"name": "-tiny"},
        {"name": "a" * 64},
        {"version": 0},
        {"z_dim": 0},
        {"z_dim": 4097},
        {"height": 1025},
        {"channels": 5},
        {"golden": []},
        {"rng": "mt19937"},
        {"extra": 1},
        {"files": {"generator.pt": {"sha256": "short", "bytes": 1}}},
        {"labels": [{"name": ""}]},
        {"labels": [{"name": "a" * 65}]},
        {"discriminator": {"levels": [], "labels": [SCORES]}},
        {"discriminator": {"levels": [0.5], "labels": [SCORES | {"samples": [float("nan")]}]}},
        {"directions": [DIRECTION | {"kind": "guessed"}]},
        {"directions": [DIRECTION | {"strength": 1.1}]},
        {"directions": [DIRECTION | {"range": [0.0, float("inf")]}]},
        {"directions": [DIRECTION | {"name": "Size"}]},
    ],
)
def test_manifest_that_no_service_would_take_is_not_made(changes: dict[str, Any]) -> None:
    """The writer refuses what the reader would."""
    with pytest.raises(ValidationError):
        a_manifest(**changes)


@pytest.mark.parametrize("missing", ["created", "golden", "training", "licence", "defaults"])
def test_nothing_that_matters_has_a_default(missing: str) -> None:
    """A manifest without its origin, licence or golden pictures cannot be written by oversight."""
    values = a_manifest().model_dump(by_alias=True)
    del values[missing]

    with pytest.raises(ValidationError, match="Field required"):
        Manifest.model_validate(values)


def test_discriminator_and_directions_read_back() -> None:
    """Scores and directions, without a strength too, survive the way through JSON."""
    factor = DIRECTION | {"name": "base-1", "kind": "closed-form", "strength": None}
    manifest = a_manifest(discriminator={"levels": [0.5], "labels": [SCORES]}, directions=[DIRECTION, factor])

    assert Manifest.model_validate_json(manifest.model_dump_json(by_alias=True)) == manifest


def test_manifest_cannot_be_changed() -> None:
    """A manifest is made once, whole."""
    with pytest.raises(ValidationError, match="frozen"):
        a_manifest().version = 2  # type: ignore[misc]
