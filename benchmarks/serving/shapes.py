"""`make bench-shapes`: growing resolutions beside the limit, mixed output sizes, animations.

The generators are one family at 64, 128 and 256 pixels, with weights that were drawn, and the shipped one at 28.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.serving.__main__ import FASHION
from benchmarks.serving.limit import images_per_s
from benchmarks.serving.load import get, run_round
from benchmarks.serving.models import products
from benchmarks.serving.servers import server
from benchmarks.store import Result, Verdict, arguments, store, table

CONNECTIONS = 64
FRAMES = 16
SIZES = ("", "&size=128", "&size=256")
RESOLUTIONS = {"fashion": 28, "product64": 64, "product128": 128, "product256": 256}


@dataclass
class Row:
    """A kind of request to a model, its pictures per second and its limit's, round by round."""

    name: str
    model: str
    path: Callable[[int], str]
    images: int = 1
    connections: int = CONNECTIONS
    found: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.shapes", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    rows = [Row(f"{side}x{side}", model, _plain(model)) for model, side in RESOLUTIONS.items()]
    rows.append(Row("64x64 in sizes 64, 128 and 256", "product64", _mixed))
    rows.append(Row(f"64x64, animation of {FRAMES} frames", "product64", _animation, FRAMES, 16))
    limits: dict[str, list[float]] = {model: [] for model in RESOLUTIONS}
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        models_dir = Path(folder)
        products(models_dir)
        shutil.copytree(FASHION, models_dir / "fashion" / "2")
        for number in range(options.rounds):
            with server("service", {"VITRINE_MODELS_DIR": folder, "VITRINE_DEFAULT_MODEL": "fashion"}) as up:
                for row in rows:
                    _measure(up.port, row, options.seconds)
                    print(f"round {number + 1}  {row.name:32} {row.found[-1]:8.1f} pictures/s", flush=True)
            for model, found in limits.items():
                (version,) = (models_dir / model).iterdir()
                found.append(images_per_s(version, options.seconds))
                print(f"round {number + 1}  limit {model:26} {found[-1]:8.1f} pictures/s", flush=True)
    shown = []
    for row in rows:
        rate, limit = median(row.found), median(limits[row.model])
        shown.append((row.name, rate, limit, f"{rate / limit:.2f}", median(row.latencies_ms), row.failed))
    facts = {
        "rounds": {row.name: row.found for row in rows},
        "limits": limits,
        "seconds_per_round": options.seconds,
    }
    how = (
        f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s, {CONNECTIONS} connections (16 for "
        "animations), every seed new; the limit draws and encodes single pictures of the model's own size"
    )
    heads = ("", "pictures/s", "limit", "share", "median ms", "failed")
    verdict = Verdict("requests that failed", sum(row.failed for row in rows), 0)
    store(Result("shapes", "Resolutions, sizes, animations", how, facts, table(heads, shown), [verdict]), options)


def _plain(model: str) -> Callable[[int], str]:
    return lambda number: f"/generate?model={model}&seed={number}"


def _mixed(number: int) -> str:
    return f"/generate?model=product64&seed={number}{SIZES[number % len(SIZES)]}"


def _animation(number: int) -> str:
    return f"/interpolate?model=product64&from={number}&to={number + 1}&steps={FRAMES}"


def _measure(port: int, row: Row, seconds: float) -> None:
    for lasting_s in (1.0, seconds):
        outcome = run_round(
            port, connections=row.connections, seconds=lasting_s, request=lambda number: get(row.path(number))
        )
    row.found.append(outcome.requests_per_s * row.images)
    row.latencies_ms.append(outcome.quantile_ms(0.5))
    row.failed += outcome.failed


if __name__ == "__main__":
    main()
