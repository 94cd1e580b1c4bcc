import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from training import progress
from training.progress import StatusLine, append_stats, duration, save_grid


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (5.4, "0:05"),
        (59.6, "1:00"),
        (309, "5:09"),
        (3600, "1:00:00"),
        (3909, "1:05:09"),
        (90000, "25:00:00"),
    ],
)
def test_duration_reads_like_a_clock(seconds: float, text: str) -> None:
    """Hours appear only when there are any."""
    assert duration(seconds) == text


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_status_line_off_a_terminal_prints_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log gets the first state at once, and then one line per interval."""
    clock, output = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "time", clock)
    status = StatusLine(Console(file=output, width=40))
    for now, text in ((100.0, "first"), (129.9, "between"), (130.0, "second " + "x" * 60), (140.0, "between")):
        clock.now = now
        status.show(text)
    status.close()
    assert output.getvalue().splitlines() == ["first", "second " + "x" * 60]


def test_status_line_on_a_terminal_rewrites_itself() -> None:
    """A terminal shows the newest state in place, and the cursor comes back at the end."""
    output = io.StringIO()
    status = StatusLine(Console(file=output, force_terminal=True, width=80))
    status.show("12.5% and counting")
    status.close()
    assert "12.5% and counting" in output.getvalue()
    assert output.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K") or "\x1b[?25h" in output.getvalue()


def test_append_stats_adds_one_object_per_line(tmp_path: Path) -> None:
    """The file grows by lines, and its folder is made."""
    path = tmp_path / "run" / "stats.jsonl"
    rows = [{"kimg": 0.064, "D_loss": 0.693}, {"kimg": 0.128, "D_loss": 0.7}]
    for row in rows:
        append_stats(path, row)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows


@pytest.mark.parametrize("channels", [1, 3])
def test_save_grid_lays_pictures_row_by_row(tmp_path: Path, channels: int) -> None:
    """Picture i stands in row i // columns, enlarged by whole pixels."""
    pixels = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 4, 5, channels) * 40
    pixels = pixels.clone()
    pixels[:, 0, 0] = 255
    save_grid(tmp_path / "grids" / "g.png", pixels, 3, zoom=2)
    with Image.open(tmp_path / "grids" / "g.png") as image:
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        assert image.size == (3 * 5 * 2, 2 * 4 * 2)
        for index in range(6):
            left, top = index % 3 * 10, index // 3 * 8
            cell = image.crop((left, top, left + 10, top + 8)).convert("L")
            assert [cell.getpixel(place) for place in ((0, 0), (1, 1))] == [255, 255]
            assert [cell.getpixel(place) for place in ((2, 0), (0, 2), (9, 7))] == [40 * index] * 3
