"""What `prepare` says about duplicates, and the preview that it writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.cli import main
from training.cli.prepare import save_preview
from training.data import Split

Write = Callable[..., Path]


def test_prepare_reports_copies_and_writes_a_preview(
    picture_folder: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A leak is named, near ones are counted, and the grid lies beside the packed file."""
    picture_folder("a", "b", count=15, under="set/train")
    folder = picture_folder("a", "b", count=12, under="set/test").parent
    assert main(["prepare", str(folder), str(tmp_path / "set.safetensors"), "--size", "16", "--fit", "pad"]) == 0
    text = capsys.readouterr().out
    assert f"dropped from the hold-out: {folder}/test/a/a-000.png: same pixels as {folder}/train/a/a-000.png\n" in text
    assert "dropped from the hold-out: and 14 more\n" in text
    assert "30 pictures are near duplicates of others (at most 4 of 64 bits of dHash and 16 grey levels apart)" in text
    assert f"preview {tmp_path}/set.preview.png\n" in text
    with Image.open(tmp_path / "set.preview.png") as preview:
        assert preview.size == (10 * 64, 2 * 64)


@pytest.mark.parametrize(("channels", "blank"), [(1, 255), (3, 255), (4, 0)])
def test_preview_fills_up_rows_of_small_classes(tmp_path: Path, channels: int, blank: int) -> None:
    """A class of three pictures has a row of its own, blank behind them."""
    images = torch.full((23, 64, 64, channels), 100, dtype=torch.uint8)
    save_preview(Split(images, torch.tensor([0] * 20 + [1] * 3)), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as preview:
        pixels = np.asarray(preview).reshape(128, 640, channels)
    assert (pixels[:64] == 100).all()
    assert (pixels[64:, :192] == 100).all()
    assert (pixels[64:, 192:] == blank).all()


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (35, 4), (1000, 10)])
def test_preview_without_classes_is_a_square_at_most(tmp_path: Path, count: int, rows: int) -> None:
    """Evenly spaced pictures stand for a large set, all of them for a small one."""
    split = Split(torch.zeros(count, 8, 8, 3, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    save_preview(split, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as preview:
        assert preview.size == (640, 64 * rows)
