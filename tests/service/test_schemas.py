"""What a client may send: defaults, and which fields go together."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.errors import InvalidParameters
from service.schemas import (
    GenerateBody,
    GenerateQuery,
    InterpolateBody,
    InterpolateQuery,
    PermalinkQuery,
    openapi_body,
    openapi_parameters,
)

EVERY = (GenerateBody, GenerateQuery, InterpolateBody, InterpolateQuery, PermalinkQuery)


def pointers(caught: pytest.ExceptionInfo[InvalidParameters]) -> set[str]:
    """Return the fields that an error names."""
    return {field.pointer for field in caught.value.errors}


def test_body_without_fields_asks_for_one_picture() -> None:
    """Everything has a default."""
    body = GenerateBody.model_validate({})
    assert body.count == ("n", 1)
    assert (body.seed, body.label, body.truncation_psi, body.size, body.format) == (None,) * 5
    assert (body.layout, body.background, body.metadata, body.include) == ("auto", "auto", True, {"b64", "url"})


def test_way_without_fields_has_the_documented_defaults() -> None:
    """Sixteen frames, twelve a second, straight, without a loop."""
    query = InterpolateQuery.model_validate({"from": "1", "to": "2"})
    assert (query.steps, query.fps, query.mode, query.easing, query.loop) == (16, 12, None, "linear", "none")
    assert (query.layout, query.format) == ("animation", None)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"n": 3}, ("n", 3)),
        ({"seeds": [1, 2]}, ("seeds", 2)),
        ({"labels": [1, 2]}, ("labels", 2)),
        ({"latents": [[0.0]]}, ("latents", 1)),
        ({"n": 2, "seeds": [1, 2], "labels": [0, 0]}, ("seeds", 2)),
        ({"seed": 5, "labels": [0, 0, 0]}, ("labels", 3)),
    ],
)
def test_count_is_said_by_number_or_lists(fields: dict[str, Any], count: tuple[str, int]) -> None:
    """The number of pictures comes from `n`, or from whichever list there is."""
    assert GenerateBody.model_validate(fields).count == count


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"seed": 1, "seeds": [1]}, {"/seed", "/seeds"}),
        ({"seeds": [1], "latents": [[0.0]]}, {"/seeds", "/latents"}),
        ({"label": 1, "labels": [1]}, {"/label", "/labels"}),
        ({"n": 2, "seeds": [1], "labels": [1]}, {"/n", "/seeds", "/labels"}),
    ],
)
def test_fields_that_exclude_each_other_are_all_named(fields: dict[str, Any], named: set[str]) -> None:
    """A contradiction names each of its sides."""
    with pytest.raises(InvalidParameters) as caught:
        GenerateBody.model_validate(fields)
    assert pointers(caught) == named


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, {"/from", "/to"}),
        ({"from": 1}, {"/to"}),
        ({"keyframes": [{"seed": 1}, {"seed": 2}], "from": 1}, {"/keyframes", "/from"}),
        ({"keyframes": [{"seed": 1}, {"seed": 2}], "label_to": 1}, {"/keyframes", "/label_to"}),
    ],
)
def test_way_needs_ends_or_keyframes(fields: dict[str, Any], named: set[str]) -> None:
    """A way without ends, or with two kinds of them, names what is missing or too much."""
    with pytest.raises(InvalidParameters) as caught:
        InterpolateBody.model_validate(fields)
    assert pointers(caught) == named


def test_seed_keeps_its_spelling() -> None:
    """Whether a seed came as a string or as an integer is left to the sampler."""
    assert GenerateBody.model_validate({"seed": "007"}).seed == "007"
    assert GenerateBody.model_validate({"seed": 7}).seed == 7
    assert GenerateQuery.model_validate({"seed": "007"}).seed == "007"


def test_body_is_strict_and_query_is_text() -> None:
    """A query's numbers are text; a body's are numbers."""
    assert GenerateQuery.model_validate({"n": "3", "truncation_psi": "0.5", "metadata": "false"}).n == 3
    for field, value in (("n", "3"), ("truncation_psi", "0.5"), ("metadata", "false"), ("n", True)):
        with pytest.raises(ValidationError):
            GenerateBody.model_validate({field: value})
    assert GenerateBody.model_validate({"truncation_psi": 1}).truncation_psi == 1.0


def test_list_of_wrong_numbers_is_given_up_at_the_first() -> None:
    """A long list of wrong numbers makes one error."""
    with pytest.raises(ValidationError) as caught:
        GenerateBody.model_validate({"latents": [["a"] * 1000] * 1000})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.__name__)
def test_parameters_cannot_be_changed(model: type[BaseModel]) -> None:
    """What was validated stays as it was, and unknown fields are refused, in every schema."""
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


def test_query_schemas_become_openapi_parameters() -> None:
    """Each field stands under the name that a client writes, required where it has no default."""
    listed = {entry["name"]: entry for entry in openapi_parameters(InterpolateQuery)}
    assert {"from", "to", "steps", "mode", "model"} <= set(listed)
    assert {name for name, entry in listed.items() if entry["required"]} == {"from", "to"}
    assert all(entry["in"] == "query" and entry["schema"] for entry in listed.values())
    assert "model" not in {entry["name"] for entry in openapi_parameters(PermalinkQuery)}


def test_body_schema_is_referred_to_by_name() -> None:
    """A body's OpenAPI entry points to the component of its class."""
    content = openapi_body(GenerateBody)["requestBody"]["content"]
    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/GenerateBody"}}}
