"""The parts in which a batch is run that did not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

from service.batcher.ceiling import Ceiling
from service.batcher.ticket import Entry, Item, Result


def divided(batch: Sequence[Entry[Item, Result]], ceiling: Ceiling) -> list[Sequence[Entry[Item, Result]]]:
    """Divide a batch that did not fit.

    Args:
        batch: What was tried, or a part of it.
        ceiling: Learns that it did not fit, and says what may.

    Returns:
        Its parts, the one to run next last; none if no smaller batch can run.
    """
    size = ceiling.did_not_fit(len(batch))
    return [batch[first : first + size] for first in reversed(range(0, len(batch), size))] if size else []


def still_wanted(part: Sequence[Entry[Item, Result]]) -> list[Entry[Item, Result]]:
    """Return the entries whose request has not ended while other parts ran."""
    return [entry for entry in part if not entry[0].future.done()]
