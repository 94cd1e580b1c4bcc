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
    """

    name: str
    title: str
    how: str
    facts: Mapping[str, Any]
    lines: Sequence[str]
    verdicts: Sequence[Verdict] = ()


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
    machine = describe()
    origin = {
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": revision(),
        "machine": machine,
    }
    verdicts = [asdict(verdict) | {"holds": verdict.holds} for verdict in result.verdicts]
    document = _plain(origin | dict(result.facts) | {"verdicts": verdicts})
    text = "\n".join(
        [
            f"# {result.title}",
            "",
            f"`{origin['command']}` at {origin['commit']}, {origin['date']}: {machine['processor']}, "
            f"{machine['cores']} cores ({machine['cpu_capability']}), torch {machine['torch']}; {result.how}.",
            "",
            *result.lines,
            "",
            *(f"- {verdict}" for verdict in result.verdicts),
            "",
        ]
    ).replace("\n\n\n", "\n\n")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{result.name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (options.results / f"{result.name}.md").write_text(text, encoding="utf-8")
    print(text)


def _plain(value: Any) -> Any:
    """Return facts with null for what is not a number, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def _module() -> str:
    """Return the name of the module that was run."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else sys.argv[0]
