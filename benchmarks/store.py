"""What every benchmark does with its figures: say where they come from, judge them, write JSON and Markdown."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, revision

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something that was to be shown, and whether it was.

    Attributes:
        claim: What the figure is.
        measured: The figure; one that is not a number never holds.
        limit: What it may be at most.
        at_least: Whether the limit is what it must be at least instead.
    """

    claim: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        found = "holds" if self.holds else "**fails**" if self.measured == self.measured else "**not measured**"
        return f"{self.claim}: {self.measured:.4g}, {bound} {self.limit:g}: {found}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found.

    Attributes:
        name: Of the files.
        title: Of the Markdown.
        how: One sentence on how it was measured, without a full stop.
        facts: All figures, for the JSON.
        lines: The Markdown that shows them.
        verdicts: What was to be shown.
        command: What to run for it; without it, the command line as it was given.
        dates: When each row was measured, ISO 8601 in UTC, if rows come from several runs; they then say by which
            commit, and the result has no date and commit of its own.
    """

    name: str
    title: str
    how: str
    facts: Mapping[str, Any]
    lines: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    command: str = ""
    dates: Sequence[str] = ()


def arguments(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks understand.

    Args:
        module: As in `python -m module`.
        description: The module's docstring.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder for what was found (default: %(default)s)"
    )
    return parser


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a Markdown table; numbers get four significant digits, and none that are not numbers are shown."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def store(result: Result, options: argparse.Namespace) -> None:
    """Print what was found, and write it as JSON and Markdown into the folder that `options` name."""
    origin = _origin(result)
    verdicts = [asdict(verdict) | {"holds": verdict.holds} for verdict in result.verdicts]
    document = _plain(origin | dict(result.facts) | {"verdicts": verdicts})
    parts = [f"# {result.title}", "", _sentence(result, origin), "", *result.lines, ""]
    parts += [f"- {verdict}" for verdict in result.verdicts]
    text = "\n".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{result.name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (options.results / f"{result.name}.md").write_text(text, encoding="utf-8")
    print(text)


def stored(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the JSON of that name in the folder that `options` name, null as not a number; empty if there is none."""
    path = options.results / f"{name}.json"
    facts: dict[str, Any] = _with_nan(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    return facts


def _origin(result: Result) -> dict[str, Any]:
    """Return what was run and where, and when and by which commit, unless the rows say that."""
    origin = {"command": result.command or shlex.join(["python", "-m", _module(), *sys.argv[1:]])}
    if not result.dates:
        origin |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": revision()}
    return origin | {"machine": describe()}


def _sentence(result: Result, origin: Mapping[str, Any]) -> str:
    """Return the origin in words."""
    machine = origin["machine"]
    if result.dates:
        made = f", {min(result.dates)[:10]} to {max(result.dates)[:10]}"
    else:
        made = f" at {origin['commit']}, {origin['date']}"
    return (
        f"`{origin['command']}`{made}: {machine['processor']}, {machine['cores']} cores "
        f"({machine['cpu_capability']}), torch {machine['torch']}; {result.how}."
    )


def _plain(value: Any) -> Any:
    """Return facts with null for what is not a number, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def _with_nan(value: Any) -> Any:
    """Return what `_plain` was given."""
    if isinstance(value, dict):
        return {key: _with_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return float("nan") if value is None else value


def _module() -> str:
    """Return the name of the module that was run."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else sys.argv[0]
