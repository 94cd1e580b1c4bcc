"""Those who were refused: when they are told to come again, and that they find a place then."""

import pytest

from service.batcher.waitlist import LATE_S, LONGEST_S, MAX_PLACES, Waitlist


def book(waitlist: Waitlist, key: object, now: float = 0.0, *, free_in_s: float = 2.0, items_s: float = 1.0) -> int:
    return waitlist.book(key, now, free_in_s=free_in_s, items_s=items_s)


def test_each_is_given_a_time_of_its_own() -> None:
    """The first when the queue is worked off, the others at half of the rate at which it drains, if half return."""
    waitlist = Waitlist()
    assert [book(waitlist, key) for key in "abcd"] == [2, 3, 4, 5]
    assert book(waitlist, "e", now=100) == 2, "a list that has run dry begins anew"
    assert book(Waitlist(), "a", free_in_s=0.01) == 1, "never zero"


def test_those_who_never_return_are_not_waited_for() -> None:
    """And those who always do are."""
    waitlist, now = Waitlist(), 0.0
    for number in range(500):
        book(waitlist, number, now)
        now += 100
    assert [book(waitlist, key, now) for key in "abcd"] == [2, 3, 3, 3], "a wait that is nearly nothing is rounded up"
    for number in range(500):
        now += 100
        wait_s = book(waitlist, number, now)
        assert waitlist.claim(number, now + wait_s)
    now += 100
    assert [book(waitlist, key, now) for key in "abcd"] == [2, 4, 6, 8]


def test_place_is_taken_once_and_in_time() -> None:
    """Neither too early, nor too late, nor twice."""
    waitlist = Waitlist()
    assert book(waitlist, "a") == 2
    assert [waitlist.claim("a", now) for now in (0.0, 1.4, 2 + LATE_S + 0.1)] == [False] * 3
    assert waitlist.claim("a", 1.6)
    assert not waitlist.claim("a", 1.6)
    assert not waitlist.claim("b", 1.6)
    assert not waitlist.claim(None, 1.6)


def test_who_asks_again_too_early_keeps_the_place() -> None:
    """And is told what is left of the time, so that asking often books nothing more."""
    waitlist = Waitlist()
    assert [book(waitlist, "a", now) for now in (0.0, 0.5, 1.5)] == [2, 2, 1]
    assert len(waitlist) == 1
    assert book(waitlist, "b") == 3
    assert waitlist.claim("a", 2.0)


def test_places_that_nobody_takes_are_forgotten() -> None:
    """Who comes too late is refused like anybody else, and told a new time."""
    waitlist = Waitlist()
    for key in "abc":
        book(waitlist, key)
    assert book(waitlist, "d", now=50) == 2
    assert len(waitlist) == 1
    assert book(waitlist, "a", now=50) == 3


@pytest.mark.parametrize("key", [None, "late"])
def test_nobody_waits_longer_than_the_longest(key: str | None) -> None:
    """A list that is full to the last minute promises nothing more, and what it promised stays."""
    waitlist = Waitlist()
    while book(waitlist, object()) < LONGEST_S:
        pass
    kept = len(waitlist)
    assert book(waitlist, key) == LONGEST_S
    assert len(waitlist) == kept
    assert not waitlist.has(key, float(LONGEST_S))


def test_number_of_places_is_bounded() -> None:
    """However many clients vary their requests."""
    waitlist = Waitlist()
    for key in range(MAX_PLACES + 10):
        book(waitlist, key, items_s=1e-9)
    assert len(waitlist) == MAX_PLACES
