"""Places for those who were refused and told when to come again.

A `Retry-After` that only says how long the queue is now sends everybody back at the same time, into the next full
queue. So each refused request is given a time of its own: the waitlist hands out half of the drain rate, and whoever
comes back at that time is admitted beyond the queue's limit. The other half, and all that nobody comes back for, is for
new requests. How many do come back is learned, since browsers do not, and nobody shall wait behind them.
"""

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

SHARE = 0.5  # of the drain rate
LONGEST_S = 60  # nobody is told to wait longer, and who would have to has no place
EARLY_S, LATE_S = 0.5, 2.0  # around the time that was told
MAX_PLACES = 50_000
RETURNING_AT_FIRST, WEIGHT = 0.5, 0.01  # the share of those who come back, and of the newest of them in it


@dataclass(frozen=True, slots=True)
class Place:
    """When a request shall come again, and the seconds that its items take, times how likely it was to come."""

    due: float
    expected_s: float


class Waitlist:
    """Who was told to come again, and when; times are seconds of any clock."""

    def __init__(self) -> None:
        self._places: dict[Hashable, Place] = {}
        self._booked: deque[tuple[Hashable, Place]] = deque()  # about in the order of their times
        self._expected_s = 0.0  # of all places
        self._returning = RETURNING_AT_FIRST

    def __len__(self) -> int:
        """Return the number of places that are kept."""
        return len(self._places)

    def book(self, key: Hashable, now: float, *, free_in_s: float, items_s: float) -> int:
        """Keep a place for a refused request.

        Args:
            key: By which it will be known again; `None`: it gets no place.
            now: The time.
            free_in_s: Seconds until what is queued now has been worked off.
            items_s: Seconds that its items take.

        Returns:
            Seconds after which it shall come again.
        """
        self._forget_late(now)
        place = self._places.get(key)
        if place is not None and place.due > now:
            return max(1, math.ceil(place.due - now))
        wait_s = max(1, math.ceil(free_in_s + self._expected_s / SHARE))
        if wait_s > LONGEST_S:
            return LONGEST_S
        if key is not None and len(self._booked) < MAX_PLACES:
            self._leave(key)
            place = self._places[key] = Place(now + wait_s, items_s * self._returning)
            self._booked.append((key, place))
            self._expected_s += place.expected_s
        return wait_s

    def has(self, key: Hashable, now: float) -> bool:
        """Tell whether a request has a place now."""
        place = self._places.get(key)
        return place is not None and place.due - EARLY_S <= now <= place.due + LATE_S

    def claim(self, key: Hashable, now: float) -> bool:
        """Take the place of a request that has come back in time; tell whether it had one."""
        if not self.has(key, now):
            return False
        self._leave(key)
        self._returning += WEIGHT * (1 - self._returning)
        return True

    def _forget_late(self, now: float) -> None:
        while self._booked and self._booked[0][1].due + LATE_S < now:
            key, place = self._booked.popleft()
            if self._places.get(key) is place:
                self._leave(key)
                self._returning -= WEIGHT * self._returning

    def _leave(self, key: Hashable) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            self._expected_s -= place.expected_s
