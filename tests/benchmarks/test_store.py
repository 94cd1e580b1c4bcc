"""What benchmarks write, they can read; and what is committed is what they write of it."""

import json
from argparse import Namespace
from collections.abc import Callable
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

from benchmarks.store import RESULTS, Result, store, stored
from benchmarks.training import bars, dcgan, presets, settings

Facts = dict[str, Any]


def _dcgan(facts: Facts) -> Result:
    rows = [dcgan.Quality(**row) for row in facts["rows"]]
    return dcgan._result(facts["data"], facts["images_per_s"], rows, facts["minutes_each"])


def _presets(facts: Facts) -> Result:
    rows, floors = ([presets._row(row, row["commit"]) for row in facts[key]] for key in ("rows", "floors"))
    return presets._result(rows, floors, facts["minutes_each"], facts["threads"])


TRAINING: dict[str, Callable[[Facts], Result]] = {
    "bars": lambda facts: bars._result([bars._row(row) for row in facts["rows"]]),
    "dcgan": _dcgan,
    "presets": _presets,
    "settings": lambda facts: settings._result([settings._row(row) for row in facts["rows"]]),
}


def test_what_is_not_a_number_comes_back(tmp_path: Path) -> None:
    """JSON has no word for it: it is stored as null."""
    options = Namespace(results=tmp_path / "new")
    assert stored("some", options) == {}
    store(Result("some", "Some", "guessed", {"rows": [{"fcd": nan, "name": "a"}]}, []), options)

    assert "NaN" not in (options.results / "some.json").read_text("utf-8")
    (row,) = stored("some", options)["rows"]
    assert isnan(row.pop("fcd"))
    assert row == {"name": "a"}


def test_rows_of_several_runs_are_dated_from_the_first_to_the_last(tmp_path: Path) -> None:
    """Such a result has no date and commit of its own, whatever the order of its rows."""
    dates = [f"2026-11-{day}T10:00:00+00:00" for day in (21, 23, 20)]
    store(Result("some", "Some", "guessed", {}, [], command="make some", dates=dates), Namespace(results=tmp_path))

    assert "\n`make some`, 2026-11-20 to 2026-11-23: " in (tmp_path / "some.md").read_text("utf-8")
    assert {"date", "commit"}.isdisjoint(json.loads((tmp_path / "some.json").read_text("utf-8")))


@pytest.mark.parametrize("name", TRAINING)
def test_committed_rows_give_the_committed_table(name: str, tmp_path: Path) -> None:
    """But for the machine and the moment, storing them again changes nothing."""
    facts = stored(name, Namespace(results=RESULTS))
    store(TRAINING[name](facts), Namespace(results=tmp_path))

    found, committed = (json.loads((folder / f"{name}.json").read_text("utf-8")) for folder in (tmp_path, RESULTS))
    assert found.keys() == committed.keys()
    here = {"date", "commit", "machine"}
    assert {key: found[key] for key in found.keys() - here} == {key: committed[key] for key in found.keys() - here}
    tables = [(folder / f"{name}.md").read_text("utf-8").splitlines() for folder in (tmp_path, RESULTS)]
    for lines in tables:
        del lines[2]
    assert tables[0] == tables[1]
