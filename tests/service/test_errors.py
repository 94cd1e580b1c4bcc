"""The tree of exceptions: each has one status and one slug, those of the contract."""

import re
from collections.abc import Iterator

import pytest

from service import errors
from service.errors import FieldError, InvalidParameters, VitrineError

CONTRACT = {
    "malformed": 400,
    "out-of-memory": 503,
    "not-found": 404,
    "model-not-found": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "too-large": 413,
    "unsupported-media-type": 415,
    "invalid-parameters": 422,
    "overloaded": 429,
    "internal": 500,
    "starting": 503,
    "draining": 503,
    "engine-unavailable": 503,
    "deadline-exceeded": 504,
}


def tree(root: type[VitrineError] = VitrineError) -> Iterator[type[VitrineError]]:
    """Return a class and all below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_slugs_and_statuses_are_those_of_the_contract() -> None:
    """Every documented failure of this version has a class, and no class has another slug."""
    assert {error.slug: error.status for error in tree()} == CONTRACT


@pytest.mark.parametrize("error", list(tree()), ids=lambda error: error.__name__)
def test_error_keeps_what_it_was_told(error: type[VitrineError]) -> None:
    """Detail, fields and headers reach the handler, and every class has a title."""
    fields = (FieldError("/n", "too many"),)
    raised = error("why", errors=fields, headers={"Retry-After": "1"})
    assert (str(raised), raised.detail, raised.errors, raised.headers) == ("why", "why", fields, {"Retry-After": "1"})
    assert raised.title
    assert error("why").headers == {}


def test_tree_in_the_docstring_is_the_tree() -> None:
    """The module's drawing names every class with the status that it has."""
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"─ (\w+)(?: (\d{3}))?", errors.__doc__))
    classes = {error.__name__: error for error in tree() if error is not VitrineError}
    assert set(drawn) == set(classes)
    assert all(not status or int(status) == classes[name].status for name, status in drawn.items())


def test_error_of_one_field_names_it_in_detail_and_pointer() -> None:
    """A short cut for the commonest case."""
    error = InvalidParameters.of("/keyframes/1/label", "unknown")
    assert error.detail == "keyframes/1/label: unknown"
    assert error.errors == (FieldError("/keyframes/1/label", "unknown"),)
