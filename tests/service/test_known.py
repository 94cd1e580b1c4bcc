"""What requests asked for before: which requests are the same, and how much is remembered."""

import pytest

from service.known import MAX_TARGET_BYTES, OVERHEAD_BYTES, Known, KnownAnswers


def scope(path: str = "/generate", query: bytes = b"seed=1", **headers: str) -> dict[str, object]:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "query_string": query, "headers": raw}


def known(etag: str = "1") -> Known:
    return Known(etag, [], [])


def test_same_request_is_known() -> None:
    """Path, query and Accept make it; other headers do not."""
    answers = KnownAnswers(1_000_000)
    answers.keep(scope(accept="image/png"), known("a"))

    assert answers.find(scope(accept="image/png", cookie="x")) == (known("a"), None)
    others = [scope(), scope(accept="image/*"), scope(query=b"seed=2", accept="image/png")]
    others.append(scope("/interpolate", accept="image/png"))
    assert [answers.find(other) for other in others] == [None] * 4


def test_least_recently_used_is_given_up() -> None:
    """What is asked for again stays."""
    answers = KnownAnswers(2 * (OVERHEAD_BYTES + 100))
    for number in (1, 2):
        answers.keep(scope(query=b"seed=%d" % number), known(str(number)))
    assert answers.find(scope(query=b"seed=1"))
    answers.keep(scope(query=b"seed=3"), known("3"))

    assert [bool(answers.find(scope(query=b"seed=%d" % number))) for number in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize(("room", "length"), [(0, 1), (10**6, MAX_TARGET_BYTES)])
def test_nothing_is_kept_without_room_or_of_huge_targets(room: int, length: int) -> None:
    """A client that varies a long query cannot push out everybody else's entries."""
    answers = KnownAnswers(room)
    answers.keep(scope(query=b"x" * length), known())
    assert answers.find(scope(query=b"x" * length)) is None


def test_everything_can_be_forgotten() -> None:
    """And then there is as much room as before."""
    answers = KnownAnswers(OVERHEAD_BYTES + 100)
    answers.keep(scope(), known("a"))
    answers.forget()
    assert answers.find(scope()) is None
    answers.keep(scope(), known("b"))
    assert answers.find(scope()) == (known("b"), None)
