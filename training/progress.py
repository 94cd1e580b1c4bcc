"""What a run shows and keeps: the status line, `stats.jsonl`, and a grid of pictures from fixed latents."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from training.files import replacing

PLAIN_INTERVAL_S = 30.0


def duration(seconds: float) -> str:
    """Return a span as `1:05:09` or `5:09`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class StatusLine:
    """One line that is rewritten on a terminal, and a plain line every half minute elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("starting") if console.is_terminal else None
        self._last = -math.inf
        if self._status:
            self._status.start()

    def show(self, text: str) -> None:
        """Show `text` as the run's state."""
        if self._status:
            self._status.update(text)
        elif time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._last = time.monotonic()
            self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._status:
            self._status.stop()


def append_stats(path: Path, row: Mapping[str, float | int | str]) -> None:
    """Append one JSON object as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def save_grid(path: Path, pixels: Tensor, columns: int, *, zoom: int = 1) -> None:
    """Write pictures as one PNG, row by row.

    Args:
        path: File to write, atomically.
        pixels: uint8 (N, H, W, C), N a multiple of `columns`.
        columns: Pictures per row.
        zoom: Whole factor by which every pixel is repeated.
    """
    count, height, width, channels = pixels.shape
    grid = pixels.reshape(count // columns, columns, height, width, channels).permute(0, 2, 1, 3, 4)
    grid = grid.reshape(count // columns * height, columns * width, channels)
    grid = grid.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    array = torch.squeeze(grid, -1).numpy() if channels == 1 else grid.numpy()
    with replacing(path) as beside:
        Image.fromarray(array).save(beside, "png")
