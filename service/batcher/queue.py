"""Who is next: the more urgent first, and among equals half a batch per request in rotation.

So a request for 64 pictures cannot hold up one for a single picture: that one has its turn in the next batch. Turns of
one item would be fairer still, but requests of one size would then all end with the same batch, and the engine would
wait until they have been sent and asked for anew.

Since a single picture would still wait for full batches to end, and then for its own, two things are done while small
requests come beside large ones: every other batch is of small requests only, and the others are an eighth as large.
"""

import math
from collections import OrderedDict, deque
from typing import Generic

from service.batcher.ticket import LEAST_URGENT, Entry, Item, Result, Ticket

TURNS = 2  # in a batch
SMALL_ITEMS = 4  # of a request that shall not wait for full batches
FEWEST_ITEMS = 16  # of a batch that is worth dividing
PART = 8
SMALL_COME_S = 0.5  # after a small request, more are expected for so long


class FairQueue(Generic[Item, Result]):
    """The requests with waiting items; `len` is the number of those items."""

    def __init__(self) -> None:
        self._levels: list[OrderedDict[Ticket[Item, Result], None]] = [OrderedDict() for _ in range(LEAST_URGENT + 1)]
        self._waiting = 0
        self._large = [0] * (LEAST_URGENT + 1)  # requests with more items, by level
        self._mixed_last = True
        self._small_came = -math.inf

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return self._waiting

    def add(self, ticket: Ticket[Item, Result]) -> None:
        """Put a new request's items at the end of its level."""
        self._levels[ticket.urgency][ticket] = None
        self._waiting += ticket.waiting
        if _is_large(ticket):
            self._large[ticket.urgency] += 1
        else:
            self._small_came = ticket.arrived

    def withdraw(self, ticket: Ticket[Item, Result]) -> bool:
        """Take a request's waiting items out; tell whether there were any."""
        level = self._levels[ticket.urgency]
        if ticket not in level:
            return False
        self._waiting -= ticket.waiting
        self._leave(ticket)
        return True

    def take(self, limit: int, now: float) -> tuple[list[Entry[Item, Result]], list[Ticket[Item, Result]]]:
        """Take up to `limit` items, and whatever is found on the way that is not to be served.

        Args:
            limit: Items wanted.
            now: Requests whose deadline is not after it are too late.

        Returns:
            Requests with the index of the item; and requests that are too late or whose caller has left.
        """
        batch: list[Entry[Item, Result]] = []
        dead: list[Ticket[Item, Result]] = []
        for urgency, level in enumerate(self._levels):
            if len(batch) == limit:
                break
            dead += self._withdraw_dead(level, now)
            small_alone = False
            if not batch and self._large[urgency] and limit >= FEWEST_ITEMS and now - self._small_came < SMALL_COME_S:
                small_alone = self._is_turn_of_small(urgency)
                limit = limit if small_alone else limit // PART
            turn = max(limit // TURNS, 1)
            turns = deque(ticket for ticket in level if not (small_alone and _is_large(ticket)))
            while turns and len(batch) < limit:
                ticket = turns.popleft()
                count = min(turn, ticket.waiting, limit - len(batch))
                batch += [(ticket, ticket.taken + number) for number in range(count)]
                ticket.taken += count
                self._waiting -= count
                if ticket.waiting:
                    turns.append(ticket)
                    level.move_to_end(ticket)
                else:
                    self._leave(ticket)
            if small_alone:
                break
        return batch, dead

    def _withdraw_dead(self, level: OrderedDict[Ticket[Item, Result], None], now: float) -> list[Ticket[Item, Result]]:
        """Take out the requests that are too late or whose caller has left."""
        dead = [ticket for ticket in level if ticket.future.done() or ticket.deadline <= now]
        for ticket in dead:
            self.withdraw(ticket)
        return dead

    def _is_turn_of_small(self, urgency: int) -> bool:
        """Say whether the next batch is of small requests only: every other one, where there are both kinds."""
        if self._large[urgency] == len(self._levels[urgency]):
            return False
        self._mixed_last = not self._mixed_last
        return not self._mixed_last

    def _leave(self, ticket: Ticket[Item, Result]) -> None:
        del self._levels[ticket.urgency][ticket]
        self._large[ticket.urgency] -= _is_large(ticket)

    def ahead_of(self, size: int, urgency: int) -> int:
        """Return how many waiting items have their turn before the last item of a new request of that size.

        In rotation, each request of the same urgency has at least as many items before our last one as we have.
        """
        more_urgent = sum(ticket.waiting for level in self._levels[:urgency] for ticket in level)
        return more_urgent + sum(min(ticket.waiting, size) for ticket in self._levels[urgency])


def _is_large(ticket: Ticket[Item, Result]) -> bool:
    return len(ticket.items) > SMALL_ITEMS
