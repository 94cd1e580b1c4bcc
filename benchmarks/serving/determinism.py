"""`make bench-determinism`: what the same bytes in every batch cost, against `VITRINE_DETERMINISM=fast`.

In exact mode a batch of a size that rounds otherwise is padded to the next one that does not. A lone picture shows most
of it; a loaded server has full batches anyway.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.serving.__main__ import FASHION
from benchmarks.serving.load import lone, saturate
from benchmarks.serving.servers import metric, server
from benchmarks.store import Result, arguments, store, table


@dataclass
class Side:
    """A way to run the service, and its rounds."""

    dtype: str
    determinism: str
    per_s: list[float] = field(default_factory=list)
    lone_ms: list[float] = field(default_factory=list)
    padding: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.determinism", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    sides = [Side(dtype, mode) for dtype in ("float32", "bfloat16") for mode in ("exact", "fast")]
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        shutil.copytree(FASHION, Path(folder) / "fashion" / "2")
        for number in range(options.rounds):
            for side in sides:
                _measure(side, folder, options.seconds)
                print(
                    f"round {number + 1}  {side.dtype:8} {side.determinism:5} {side.per_s[-1]:8.1f}/s, "
                    f"alone {side.lone_ms[-1]:.2f} ms",
                    flush=True,
                )
    rows = [
        (side.dtype, side.determinism, median(side.per_s), median(side.lone_ms), f"{median(side.padding):.1%}")
        for side in sides
    ]
    heads = ("type", "determinism", "requests/s, 64 clients", "median ms, one client", "rows added, one client")
    how = f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s; `models/fashion/2`, no cache"
    facts = {
        "rounds": [
            {"dtype": side.dtype, "determinism": side.determinism, "per_s": side.per_s, "lone_ms": side.lone_ms}
            for side in sides
        ]
    }
    store(Result("determinism", "What equal bytes cost", how, facts, table(heads, rows)), options)


def _measure(side: Side, folder: str, seconds: float) -> None:
    settings = {
        "VITRINE_MODELS_DIR": folder,
        "VITRINE_CACHE_MB": "0",
        "VITRINE_DTYPE": side.dtype,
        "VITRINE_DETERMINISM": side.determinism,
    }
    with server("service", settings) as up:
        side.lone_ms.append(lone(up.port, seconds).quantile_ms(0.5))
        padded, drawn = (metric(up.port, f"vitrine_{name}_total") for name in ("padding_images", "images"))
        side.padding.append(padded / (padded + drawn))
        saturate(up.port, 1.0)
        side.per_s.append(saturate(up.port, seconds).requests_per_s)


if __name__ == "__main__":
    main()
