"""What TensorBoard shows of a run: the rows of `stats.jsonl` as curves, the grids as pictures; needs the extra."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.errors import TrainingError

FOLDER_NAME = "tensorboard"
_FLUSH_S = 30  # the most that a crash can lose


def check_installed() -> None:
    """Raise `TrainingError`, naming the extra, unless TensorBoard's writer can be imported."""
    _writer_class()


def _writer_class() -> Any:
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "--tensorboard needs the package tensorboard, which is not installed: install the extra, "
            "pip install 'vitrine[tensorboard]'"
        ) from error


class Board:
    """Writes a run's events. The step of everything is the number of images seen.

    Args:
        folder: Folder of the run; events go into its `tensorboard/`.
        nimg: Images that the run has seen. What an interrupted run wrote after that is hidden.

    Raises:
        TrainingError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, nimg: int) -> None:
        self._folder, self._nimg = folder / FOLDER_NAME, nimg
        self._writer = self._open(nimg)

    def _open(self, nimg: int) -> Any:
        return _writer_class()(str(self._folder), purge_step=nimg + 1, flush_secs=_FLUSH_S)

    def row(self, row: Mapping[str, float | int | str]) -> None:
        """Write each number of a row of `stats.jsonl` as a point of the curve of its name."""
        nimg = round(float(row["kimg"]) * 1000)
        self._move_to(nimg)
        for name, value in row.items():
            if not isinstance(value, str) and name != "kimg":
                self._writer.add_scalar(name, value, nimg)

    def grid(self, path: Path, nimg: int) -> None:
        """Write a snapshot's grid, a PNG file, as a picture."""
        with Image.open(path) as image:
            pixels = np.asarray(image)
        self._move_to(nimg)
        self._writer.add_image("grid", pixels, nimg, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def _move_to(self, nimg: int) -> None:
        """Hide all events if the run has begun again, as it does at a lower learning rate."""
        if nimg < self._nimg:
            self._writer.close()
            self._writer = self._open(0)
        self._nimg = nimg

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
