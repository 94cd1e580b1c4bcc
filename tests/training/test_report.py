"""The report: one file, nothing from outside, true to the run's folder, and whatever is missing is left out."""

import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from training.cli import main
from training.errors import TrainingError
from training.report import render
from training.report.curves import HEIGHT, MARGIN, MAX_POINTS, WIDTH, Line, chart
from training.report.folders import without_folders

FACTS = {
    "config": {"preset": "tiny", "widths": [16, 16], "seed": 0},
    "budget": {"minutes": 2.0, "kimg": None},
    "data": {"file": "/somewhere/<b>.safetensors", "name": "shop & <script>alert(1)</script>", "digest": "ab" * 32},
    "environment": {"torch": "2.13.0", "device": "cpu"},
}
METRIC = {"name": "fcd", "value": 1.2345, "floor": 0.031, "n_real": 60000, "n_fake": 10000, "n_floor": 10000}
SPACE = {"feature_space": "labels-cnn/1", "feature_digest": "cd" * 32}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run with all that a report can show."""
    folder = tmp_path / "run"
    (folder / "grids").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(FACTS))
    rows = [
        {
            "kimg": k,
            "elapsed_s": 6.0 * k,
            "D_loss": 0.7 - k / 100,
            "G_loss": 0.8,
            "logit_gap": 0.1 * k,
            "images_per_s": 9,
        }
        for k in range(1, 21)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "stats.jsonl").write_text(text + '{"kimg": 21, "D_lo')  # cut off by a crash
    for number in range(9):
        Image.new("L", (20, 20), number).save(folder / "grids" / f"{number:06d}.png")
    Image.new("L", (20, 20)).save(folder / "memorisation.png")
    (folder / "evaluation.json").write_text(
        json.dumps({"snapshot": "000007.safetensors", "metrics": [METRIC | SPACE], "notes": ["too <few>"]})
    )
    (folder / "scores.json").write_text(json.dumps({"best": "000007.safetensors", "fcd": {"000007.safetensors": 1.23}}))
    return folder


def test_report_shows_the_run_and_needs_nothing_else(run: Path) -> None:
    """Settings, figures with floors, six of nine grids, curves; no script, no address, no markup of names."""
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()

    assert re.search(
        r"<td>fcd</td><td class=\"n\">1\.234</td><td class=\"n\">0\.031</td>\s*<td class=\"n\">10000</td>", html
    )
    assert "20 thousand images\nin 2 minutes" in html
    assert "000007.safetensors (best)" in html
    assert "too &lt;few&gt;" in html
    titles = re.findall(r"<figcaption>(\d+) thousand images</figcaption>", html)
    assert (len(titles), titles[0], titles[-1]) == (6, "0", "8")
    assert html.count("data:image/png;base64,") == 7
    assert html.count("<svg") == 3
    assert "shop &amp; &lt;script&gt;" in html
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|https?://", html)


def test_report_of_a_fresh_run_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    """No figures, grids or curves yet: it says what to do next."""
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    html = (tmp_path / "r.html").read_text()
    assert "has not been evaluated yet" in html
    assert "<svg" not in html


def test_report_in_a_bundle_shows_no_training_pictures(run: Path) -> None:
    """It is headed by the model, keeps figures, grids and curves, and says where the closest pairs stand."""
    html = render(run, "shop, version 2", in_bundle=True)
    assert "<h1>shop, version 2</h1>" in html
    assert html.count("data:image/png;base64,") == 6
    assert "Closest to training pictures" not in html
    assert "training pictures do not leave with the model" in html
    assert html.count("<svg") == 3
    assert "<td>fcd</td>" in html


@pytest.mark.parametrize("in_bundle", [False, True])
def test_report_names_no_folder_of_the_machine(run: Path, in_bundle: bool) -> None:
    """Whatever a run's files hold, absolute paths are cut down to their last names."""
    facts = FACTS | {
        "data": {"file": "/home/jo doe/shop.safetensors", "name": "/home/jo doe/shop", "digest": "ab" * 32},
        "environment": {"device": "cpu", "from": "see /srv/secret/runs/7, or C:\\Users\\jo\\run"},
    }
    (run / "run.json").write_text(json.dumps(facts))
    html = render(run, "a run", in_bundle=in_bundle)
    for folder in ("home", "jo doe", "srv", "secret", "Users", str(run.parent)):
        assert folder not in html
    assert "<td>see 7, or run</td>" in html
    assert "<td>name</td><td>shop</td>" in html
    assert "feature space labels-cnn/1, cdcdcdcdcdcdcdcd" in html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/sets/shop", "shop"),
        ("/home/jo doe/my shop", "my shop"),
        ("~/sets/shop", "shop"),
        ("'/data/sets/shop' and /tmp/x.y", "'shop' and x.y"),
        ("C:\\sets\\my shop", "my shop"),
        ("labels-cnn/1", "labels-cnn/1"),
        ("fcd_class/t-shirt/top", "fcd_class/t-shirt/top"),
        ("CC BY 4.0, https://example.org/licence/4", "CC BY 4.0, https://example.org/licence/4"),
        ("1 / 2", "1 / 2"),
    ],
)
def test_paths_lose_their_folders_and_nothing_else_does(text: str, expected: str) -> None:
    """Names with a slash and addresses are no paths of a machine; values in dicts and lists are looked into."""
    assert without_folders({"a": [text, 1, None]}) == {"a": [expected, 1, None]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", {"config": {"preset": "tiny"}, "data": {"name": "x"}}),
        ("evaluation.json", {"metrics": [{"name": "fcd"}]}),
    ],
)
def test_file_that_lacks_something_is_one_error(run: Path, name: str, content: dict[str, object]) -> None:
    """Not a traceback of the template's."""
    (run / name).write_text(json.dumps(content))
    with pytest.raises(TrainingError, match="lacks what its report needs"):
        render(run, "a run")


def test_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line; and a damaged evaluation is named."""
    assert main(["report", str(tmp_path)]) == 1
    assert "is not the folder of a run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    (tmp_path / "evaluation.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 1
    assert "evaluation.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def points_of(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", path)]


def test_chart_spans_its_frame() -> None:
    """The least and greatest values touch the frame's corners."""
    made = chart("t", [Line("a", ((0.0, 1.0), (10.0, 3.0)))])
    assert made is not None
    assert points_of(made.paths[0][1]) == [(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, MARGIN)]
    assert (made.left, made.right, made.low, made.high) == (0, 10, 1, 3)


def test_chart_thins_long_curves_and_leaves_out_what_is_not_finite() -> None:
    """A long run is drawn by means; NaN is no place."""
    made = chart("t", [Line("a", tuple((float(x), float(x % 2)) for x in range(10_000)))])
    assert made is not None
    assert len(points_of(made.paths[0][1])) <= MAX_POINTS
    assert chart("t", [Line("a", ((0.0, math.nan), (math.inf, 1.0)))]) is None
    flat = chart("t", [Line("a", ((1.0, 5.0),))])
    assert flat is not None
    assert points_of(flat.paths[0][1]) == [(WIDTH / 2, HEIGHT / 2)]
