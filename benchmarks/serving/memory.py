"""Resident memory of the service with one model, beside a bare process that draws with the same generator.

The bare process (`benchmarks.serving.bare`) has imported torch, loaded the generator in the type and layout that the
service has chosen (where that is packed: as channels_last), and run it at the same batch size. The service is looked at
when it is ready, and again after 2,000 requests from 64 connections. A new process of each kind in every round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving.load import saturate
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import Usage, server, usage
from benchmarks.store import Result, Verdict, arguments, store, table

LIMIT = 1.3
# A bare process packs nothing.
FORMATS = {"channels_last": "channels_last", "contiguous": "contiguous_format", "packed": "channels_last"}
CHOSEN = ".variants.json"  # where the service notes, beside its models, how it runs each of them


@dataclass(frozen=True, slots=True)
class Round:
    """What the processes held: the bare one, the service when ready, and after its requests."""

    bare: Usage
    ready: Usage
    loaded: Usage
    requests: int

    @property
    def ratio(self) -> float:
        """Resident memory after the requests, of the bare process's."""
        return self.loaded.resident_mb / self.bare.resident_mb


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.memory", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        bundle = dcgan(Path(folder))
        for number in range(options.rounds):
            rounds.append(_round(bundle, options.requests))
            print(
                f"round {number + 1}: bare {rounds[-1].bare.resident_mb:.1f} MiB, ready "
                f"{rounds[-1].ready.resident_mb:.1f}, loaded {rounds[-1].loaded.resident_mb:.1f}",
                flush=True,
            )
        variant = _variant(bundle)
    _store(rounds, variant, options)


def _round(bundle: Path, requests: int) -> Round:
    settings = {"VITRINE_MODELS_DIR": str(bundle.parents[1]), "VITRINE_CACHE_MB": "0"}
    answered = 0
    with server("service", settings) as running:
        ready = usage(running.pid)
        while answered < requests:
            answered += len(saturate(running.port, 0.5).latencies_s)
        loaded = usage(running.pid)
    return Round(_bare(bundle, _variant(bundle)), ready, loaded, answered)


def _variant(bundle: Path) -> Mapping[str, Any]:
    """Return how the service has run the one bundle of its folder.

    Raises:
        RuntimeError: If it has not said so.
    """
    path = bundle.parents[1] / CHOSEN
    try:
        (variant,) = json.loads(path.read_text()).values()
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{path} should say how the one model was run: {error}") from error
    found: Mapping[str, Any] = variant
    return found


def _bare(bundle: Path, variant: Mapping[str, Any]) -> Usage:
    manifest = json.loads((bundle / "manifest.json").read_text())
    how = [variant["dtype"], FORMATS[variant["memory_format"]], variant["torch_threads"], variant["max_batch_images"]]
    command = [sys.executable, "-m", "benchmarks.serving.bare", bundle / "generator.pt", *how]
    command += [manifest["num_ws"], manifest["w_dim"]]
    with subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline().strip() != "ready":
                process.kill()
                raise RuntimeError("the bare process did not draw")
            return usage(process.pid)
        finally:
            process.stdin.close()


def _store(rounds: Sequence[Round], variant: Mapping[str, Any], options: argparse.Namespace) -> None:
    columns = {
        "a bare process": [one.bare for one in rounds],
        "the service, ready": [one.ready for one in rounds],
        f"the service, after {options.requests:,} requests": [one.loaded for one in rounds],
    }
    bare = median(one.bare.resident_mb for one in rounds)
    rows = []
    for name, column in columns.items():
        resident = median(held.resident_mb for held in column)
        anonymous = median(held.anonymous_mb for held in column)
        rows.append([name, resident, anonymous, resident / bare, max(held.threads for held in column)])
    facts: dict[str, Any] = {
        "variant": dict(variant),
        "ratio": median(one.ratio for one in rounds),
        "rounds": [asdict(one) for one in rounds],
    }
    how = (
        f"medians of {len(rounds)} rounds with new processes, DCGAN at 64x64x3 in {variant['dtype']}, "
        f"{variant['memory_format']}, batches of {variant['max_batch_images']}"
    )
    verdict = Verdict("resident memory after the requests, of the bare process's", facts["ratio"], LIMIT)
    lines = table(["", "resident MiB", "of it anonymous", "of the bare process", "threads"], rows)
    store(Result("memory", "Resident memory", how, facts, lines, [verdict]), options)


if __name__ == "__main__":
    main()
