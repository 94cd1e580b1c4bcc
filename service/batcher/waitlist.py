"""Places for those who were refused and told when to come again.

A `Retry-After` that only says how long the queue is now sends everybody back at the same time, into the next full
queue. So each refused request is given a time of its own: the waitlist hands out half of the drain rate, and whoever
comes back at that time is admitted beyond the queue's limit. The other half, and all that nobody comes back for, is for
new requests.
"""

import math
from collections import deque
from collections.abc import Hashable

SHARE = 0.5  # of the drain rate
LONGEST_S = 60  # nobody is told to wait longer, and who would have to has no place
EARLY_S, LATE_S = 0.5, 10.0  # around the time that was told
MAX_PLACES = 50_000


class Waitlist:
    """Who was told to come again, and when; times are seconds of any clock."""

    def __init__(self) -> None:
        self._due: dict[Hashable, float] = {}
        self._booked: deque[tuple[float, Hashable]] = deque()  # about in the order of their times
        self._taken_until = 0.0

    def __len__(self) -> int:
        """Return the number of places that are kept."""
        return len(self._due)

    def book(self, key: Hashable, now: float, *, free_in_s: float, items_s: float) -> int:
        """Return after how many seconds a refused request shall come again, and keep a place for it then.

        Args:
            key: By which it will be known again; `None`: it gets no place.
            now: The time.
            free_in_s: Seconds until what is queued now has been worked off.
            items_s: Seconds that its items take.
        """
        self._forget_late(now)
        due = self._due.get(key)
        if due is not None and due > now:
            return max(1, math.ceil(due - now))
        at = max(self._taken_until, now + free_in_s)
        wait_s = max(1, math.ceil(at - now))
        if wait_s > LONGEST_S:
            return LONGEST_S
        self._taken_until = at + items_s / SHARE
        if key is not None and len(self._booked) < MAX_PLACES:
            self._due[key] = now + wait_s
            self._booked.append((now + wait_s, key))
        return wait_s

    def has(self, key: Hashable, now: float) -> bool:
        """Tell whether a request has a place now."""
        due = self._due.get(key)
        return due is not None and due - EARLY_S <= now <= due + LATE_S

    def claim(self, key: Hashable, now: float) -> bool:
        """Take the place of a request that has come back in time; tell whether it had one."""
        if not self.has(key, now):
            return False
        del self._due[key]
        return True

    def _forget_late(self, now: float) -> None:
        while self._booked and self._booked[0][0] + LATE_S < now:
            due, key = self._booked.popleft()
            if self._due.get(key) == due:
                del self._due[key]
