"""What stands in the report, gathered from the run's folder."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

from training.errors import TrainingError
from training.files import replacing
from training.generators import run_facts
from training.report.curves import Chart, Line, chart
from training.report.folders import without_folders

REPORT_NAME = "report.html"
MAX_GRIDS = 6
CHARTS = {
    "losses": ("D_loss", "G_loss"),
    "logit gap, real minus generated": ("logit_gap",),
    "gradient penalties": ("r1_penalty", "r2_penalty"),
    "learning rate": ("learning_rate",),
    "images/s": ("images_per_s",),
}
READING = {
    "fcd": "distance of the distributions in the classifier's features; lower is better",
    "precision": "part of the samples that look like real pictures",
    "recall": "part of the real pictures' variety that samples reach",
    "density": "how close samples lie to real pictures",
    "coverage": "part of the real pictures that have a sample nearby",
    "accuracy": "part of the samples that show the label they were asked for",
    "kid": "distance of the distributions, without bias by the number of samples; lower is better",
    "fid_lucic10k": "distance of the distributions in the Inception network, as Lucic et al. 2018; lower is better",
    "fid_clean": "distance of the distributions in the Inception network, as Parmar et al. 2022; lower is better",
}


def write_report(run: Path, out: Path) -> None:
    """Write the report of a run as one HTML file without outside resources.

    Args:
        run: Folder of a run; what it does not hold yet (an evaluation, say) is left out.
        out: File to write, atomically.

    Raises:
        TrainingError: If the folder is not a run, or a file in it is damaged.
    """
    html = render(run, run.resolve().name)
    with replacing(out) as beside:
        beside.write_text(html, encoding="utf-8")


def render(run: Path, title: str, *, in_bundle: bool = False) -> str:
    """Return the report of a run as HTML, without paths of the machine that it was trained on.

    Args:
        run: Folder of a run.
        title: What the report is headed with.
        in_bundle: Whether it goes where the model goes: then it shows no training pictures.

    Returns:
        The page.

    Raises:
        TrainingError: If the folder is not a run, or a file in it is damaged.
    """
    environment = Environment(
        loader=PackageLoader("training.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    stats = _stats(run / "stats.jsonl")
    evaluation = without_folders(_json(run / "evaluation.json"))
    try:
        return environment.get_template("report.html").render(
            title=title,
            in_bundle=in_bundle,
            facts=without_folders(run_facts(run)),
            evaluation=evaluation,
            spaces=_spaces(evaluation),
            scores=without_folders(_json(run / "scores.json")),
            reading=READING,
            charts=_charts(stats),
            last=stats[-1] if stats else None,
            grids=_grids(run / "grids"),
            memorisation=None if in_bundle else _image(run / "memorisation.png"),
            written=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except (UndefinedError, KeyError) as error:
        raise TrainingError(f"a file in {run} lacks what its report needs: {error}") from error


def _spaces(evaluation: Any) -> list[tuple[str, str]]:
    """Return name and digest of each feature space of an evaluation, once, in the order of the metrics."""
    metrics = evaluation["metrics"] if evaluation else []
    pairs = ((entry["feature_space"], entry["feature_digest"]) for entry in metrics if entry["feature_digest"])
    return list(dict.fromkeys(pairs))


def _json(path: Path) -> Any:
    """Return a file's content, or `None` if there is no such file.

    Raises:
        TrainingError: If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TrainingError(f"{path} is damaged: {error}") from error


def _stats(path: Path) -> list[dict[str, Any]]:
    """Return the rows of `stats.jsonl`; a last one that was cut off by a crash is left out."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def _charts(stats: Sequence[dict[str, Any]]) -> list[Chart]:
    charts = []
    for title, names in CHARTS.items():
        lines = [Line(name, tuple((row["kimg"], row[name]) for row in stats if name in row)) for name in names]
        charts.append(chart(title, lines))
    return [one for one in charts if one is not None]


def _grids(folder: Path) -> list[tuple[str, str]]:
    """Return the name and data URL of up to `MAX_GRIDS` grids, spread over the run, the last among them."""
    paths = sorted(folder.glob("*.png"))
    if len(paths) > MAX_GRIDS:
        paths = [paths[round(index * (len(paths) - 1) / (MAX_GRIDS - 1))] for index in range(MAX_GRIDS)]
    return [(f"{int(path.stem)} thousand images", url) for path in paths if (url := _image(path))]


def _image(path: Path) -> str | None:
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
