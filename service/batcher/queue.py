"""Who is next: the more urgent first, and among equals one item per request in rotation.

So a request for 64 pictures cannot hold up one for a single picture: that one has its turn in the next batch.
"""

from collections import OrderedDict
from typing import Generic

from service.batcher.ticket import LEAST_URGENT, Item, Result, Ticket


class FairQueue(Generic[Item, Result]):
    """The requests with waiting items; `len` is the number of those items."""

    def __init__(self) -> None:
        self._levels: list[OrderedDict[Ticket[Item, Result], None]] = [OrderedDict() for _ in range(LEAST_URGENT + 1)]
        self._waiting = 0

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return self._waiting

    def add(self, ticket: Ticket[Item, Result]) -> None:
        """Put a new request's items at the end of its level."""
        self._levels[ticket.urgency][ticket] = None
        self._waiting += ticket.waiting

    def withdraw(self, ticket: Ticket[Item, Result]) -> bool:
        """Take a request's waiting items out; tell whether there were any."""
        level = self._levels[ticket.urgency]
        if ticket not in level:
            return False
        del level[ticket]
        self._waiting -= ticket.waiting
        return True

    def take(self, limit: int, now: float) -> tuple[list[tuple[Ticket[Item, Result], int]], list[Ticket[Item, Result]]]:
        """Take up to `limit` items, and whatever is found on the way that is not to be served.

        Args:
            limit: Items wanted.
            now: Requests whose deadline is not after it are too late.

        Returns:
            Requests with the index of the item; and requests that are too late or whose caller has left.
        """
        batch: list[tuple[Ticket[Item, Result], int]] = []
        dead: list[Ticket[Item, Result]] = []
        for level in self._levels:
            while level and len(batch) < limit:
                ticket = next(iter(level))
                if ticket.future.done() or ticket.deadline <= now:
                    self.withdraw(ticket)
                    dead.append(ticket)
                    continue
                batch.append((ticket, ticket.taken))
                ticket.taken += 1
                self._waiting -= 1
                if ticket.waiting:
                    level.move_to_end(ticket)
                else:
                    del level[ticket]
        return batch, dead

    def ahead_of(self, size: int, urgency: int) -> int:
        """Return how many waiting items have their turn before the last item of a new request of that size.

        In rotation, each request of the same urgency has as many turns before our last item as we have items.
        """
        more_urgent = sum(ticket.waiting for level in self._levels[:urgency] for ticket in level)
        return more_urgent + sum(min(ticket.waiting, size) for ticket in self._levels[urgency])
