"""Failures as RFC 9457 documents."""

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from service.errors import DeadlineExceeded, InvalidParameters, Malformed, Overloaded, VitrineError
from service.problems import SHOWN_FIELDS, invalid_parameters, pointer_to, problem_response


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    seed: StrictInt | StrictStr = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    n: Annotated[int, Field(ge=1)] = 1
    word: str = ""
    seeds: list[StrictInt | StrictStr] = []
    inner: list[Inner] = []


def refused(content: str) -> VitrineError:
    """Return the error of a body."""
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(content)
    return invalid_parameters(caught.value)


def pointers(content: str) -> list[str]:
    """Return the fields that the error of a body names."""
    return [field.pointer for field in refused(content).errors]


def test_problem_has_the_members_of_rfc_9457() -> None:
    """Type, title, status, detail and instance; a media type of its own; never stored."""
    answer = problem_response(DeadlineExceeded("too late"), "request-1")
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = json.loads(bytes(answer.body))
    assert document.pop("type").endswith("/problems/deadline-exceeded")
    assert document == {"title": "Deadline exceeded", "status": 504, "detail": "too late", "instance": "request-1"}


def test_problem_has_the_errors_headers_and_fields() -> None:
    """Retry-After is a header, and wrong fields are listed."""
    assert problem_response(Overloaded("full", headers={"Retry-After": "3"}), "").headers["retry-after"] == "3"
    document = json.loads(bytes(problem_response(InvalidParameters.of("/n", "too many"), "").body))
    assert document["errors"] == [{"pointer": "/n", "detail": "too many"}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"n": 0}', ["/n"]),
        ('{"n": 0, "word": 1}', ["/n", "/word"]),
        ('{"seeds": [1, 1.5]}', ["/seeds/1"]),
        ('{"inner": [{"seed": true}]}', ["/inner/0/seed"]),
        ('{"inner": [{"str": 1}]}', ["/inner/0/str"]),
        ('{"int": 1}', ["/int"]),
        ('{"a[]": 1}', ["/a[]"]),
        ('{"a/b~": 1}', ["/a~1b~0"]),
        ('{"": 1}', ["/"]),
        ("[]", [""]),
    ],
)
def test_pointer_names_the_clients_own_field(content: str, expected: list[str]) -> None:
    """Branches of unions are no fields; a client's own names are, however they look."""
    assert pointers(content) == expected


def test_branches_of_a_union_are_one_finding() -> None:
    """What was given and each of what is allowed stand in one sentence."""
    (field,) = refused('{"seeds": [true]}').errors
    assert field.detail == "Input should be a valid integer, or: Input should be a valid string, got True"


def test_long_input_is_cut() -> None:
    """A client's own text is shown back only in part."""
    (field,) = refused(json.dumps({"n": "x" * 10_000})).errors
    assert len(field.detail) < 200
    assert field.detail.endswith("...")


def test_findings_are_limited() -> None:
    """Thousands of mistakes make a short document."""
    error = refused(json.dumps({str(index): 1 for index in range(1000)}))
    assert len(error.errors) == SHOWN_FIELDS
    assert len(error.detail) < 2000


@pytest.mark.parametrize("content", ["", "{", '{"n": 1,}', "nonsense", "[" * 1000])
def test_text_that_is_no_json_is_malformed(content: str) -> None:
    """Where there is nothing to validate the error is another one."""
    assert isinstance(refused(content), Malformed)


@pytest.mark.parametrize(("steps", "expected"), [((), ""), (("a", 0, "b"), "/a/0/b"), (("a/b", "~", ""), "/a~1b/~0/")])
def test_pointer_is_that_of_rfc_6901(steps: tuple[Any, ...], expected: str) -> None:
    """Slashes and tildes are escaped."""
    assert pointer_to(*steps) == expected
