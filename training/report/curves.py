"""Curves as SVG, drawn here so that the report needs neither a script nor a plotting library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 420, 150, 34
MAX_POINTS = 400


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, and its points."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over one axis, ready for the page: an SVG path for each, and the ends of both axes."""

    title: str
    paths: tuple[tuple[str, str], ...]  # name, d
    left: float
    right: float
    low: float
    high: float


def chart(title: str, lines: Sequence[Line]) -> Chart | None:
    """Return a chart of curves.

    Args:
        title: What is drawn.
        lines: Curves; long ones are thinned by means over equal pieces, what is not finite is left out.

    Returns:
        The chart, or `None` if the curves have no finite point.
    """
    thinned = [(line.name, _thinned(line.points)) for line in lines]
    points = [point for _, part in thinned for point in part]
    if not points:
        return None
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> str:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return f"{MARGIN + across * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN):.1f}"

    paths = tuple((name, "M" + " L".join(place(*point) for point in part)) for name, part in thinned if part)
    return Chart(title, paths, left, right, low, high)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [point for point in points if all(map(math.isfinite, point))]
    piece = math.ceil(len(finite) / MAX_POINTS) or 1
    parts = [finite[start : start + piece] for start in range(0, len(finite), piece)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
