"""`prepare SOURCE OUT`: pictures to one packed file."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from training.data import Label, PictureSet, Split, pack
from training.duplicates import NEAR_BITS, NEAR_RMS, Duplicates
from training.errors import TrainingError
from training.progress import save_grid
from training.readers import RawData, read_source

NUM_LISTED = 10  # of what may be there by the thousand
PREVIEW_COLUMNS = 10
PREVIEW_ROWS = 20
PREVIEW_PIXELS = 64


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("prepare", help="pack pictures into one file")
    parser.add_argument(
        "source",
        type=Path,
        help="folder with image files (a folder per class, or all in one), with IDX(.gz), CIFAR or Parquet files; "
        "a zip of one; a .parquet file",
    )
    parser.add_argument("out", type=Path, help="file to write, for example data/fashion.safetensors")
    parser.add_argument("--name", help="name of the data set (default: the source folder's name)")
    parser.add_argument("--labels", type=Path, help="JSON list, one entry per class: a name or {name, aliases}")
    parser.add_argument("--licence", help="the pictures' licence (default: the text of LICENSE in the source)")
    parser.add_argument("--size", type=int, help="resize image files to SIZE x SIZE (default 64)")
    parser.add_argument(
        "--channels", type=int, choices=(1, 3, 4), help="1 grey, 3 RGB, 4 RGBA (default: as the source)"
    )
    parser.add_argument(
        "--fit", choices=("crop", "pad", "stretch"), help="how image files become square (default crop, centred)"
    )
    parser.add_argument(
        "--alpha",
        choices=("file", "border", "threshold"),
        help="make RGBA: alpha from the files, by a plain background that touches the border, or by the distance "
        "from the border's colour (default: RGBA from the files if most are transparent somewhere)",
    )
    parser.add_argument(
        "--labels-file",
        type=Path,
        help="CSV or JSON with the class of each image file, as file,label (default: its folder's name)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read, pack and say what was found."""
    if options.size is not None and not 8 <= options.size <= 1024:
        raise TrainingError(f"--size {options.size} is not in 8..1024")
    raw = read_source(
        options.source,
        size=options.size,
        channels=options.channels,
        alpha=options.alpha,
        fit=options.fit,
        labels_file=options.labels_file,
    )
    labels = _read_labels(options.labels) if options.labels else [Label(name) for name in raw.label_names]
    data = pack(
        raw,
        options.out,
        name=options.name or _name_of(options.source),
        labels=labels,
        licence=options.licence or raw.licence or "not stated",
    )
    preview = options.out.with_suffix(".preview.png")
    save_preview(data.train, preview)
    _describe(data, raw, options.out, preview)


def _read_labels(path: Path) -> list[Label]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise TypeError(f"not a list but {type(entries).__name__}")
        return [
            Label(e) if isinstance(e, str) else Label(str(e["name"]), _words(e.get("aliases", []))) for e in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"--labels {path}: {error}; expected a JSON list of names or {{name, aliases}}") from error


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"aliases are not a list but {value!r}")
    return tuple(map(str, value))


def _name_of(source: Path) -> str:
    """Return the folder's name, or the file's without its ending."""
    whole = source.resolve()
    return whole.name if whole.is_dir() else whole.stem


def save_preview(split: Split, path: Path) -> None:
    """Write pictures as a grid: a row per class, the first classes if there are many.

    Args:
        split: Where they come from, evenly spaced.
        path: The PNG file to write.
    """
    classes = split.labels.unique()
    if len(classes) == 1:
        chosen = _spread(torch.arange(len(split)), PREVIEW_COLUMNS**2)
    else:
        rows = [_spread(torch.nonzero(split.labels == label)[:, 0], PREVIEW_COLUMNS) for label in classes]
        chosen = torch.cat(rows[:PREVIEW_ROWS])
    pixels = split.images[chosen.clamp(min=0)]
    pixels[chosen < 0] = 0 if pixels.shape[3] == 4 else 255
    save_grid(path, pixels, PREVIEW_COLUMNS, zoom=max(1, PREVIEW_PIXELS // pixels.shape[1]))


def _spread(indices: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` of `indices`, evenly spaced; of fewer, all in whole rows, filled up with -1."""
    if len(indices) >= count:
        return indices[torch.arange(count) * len(indices) // count]
    blanks = torch.full((-len(indices) % PREVIEW_COLUMNS,), -1)
    return torch.cat([indices, blanks])


def _describe(data: PictureSet, raw: RawData, out: Path, preview: Path) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    height, width, channels = data.size
    console.print(f"{data.name}: {width}x{height}x{channels}, data hash {data.digest[:16]}", soft_wrap=True)
    table = Table("class", "train", "hold-out")
    for index, label in enumerate(data.labels):
        counts = [str(int(torch.sum(split.labels == index))) for split in (data.train, data.holdout)]
        table.add_row(f"{index} {label.name}", *counts)
    table.add_row("all", str(len(data.train)), str(len(data.holdout)))
    console.print(table)
    for line in raw.skipped:
        console.print(f"skipped {line}", soft_wrap=True)
    for line in _about(raw.duplicates):
        console.print(line, soft_wrap=True)
    console.print(f"preview {preview}", soft_wrap=True)
    console.print(f"wrote {out}; {len(raw.skipped)} files skipped", soft_wrap=True)


def _about(found: Duplicates) -> Iterator[str]:
    """Yield what is to be said about pictures that are there twice; nothing if none is."""
    yield from (f"dropped from the hold-out: {line}" for line in _first(found.leaks))
    if found.copies:
        yield f"{len(found.copies)} copies within a split are kept:"
        yield from (f"  {line}" for line in _first(found.copies))
    if found.num_near:
        yield (
            f"{found.num_near} pictures are near duplicates of others (at most {NEAR_BITS} of 64 bits of dHash and "
            f"{NEAR_RMS:.0f} grey levels apart), {found.num_near_across} of them held out with one like them to train "
            "on; all are kept:"
        )
        yield from (f"  {line}" for line in found.near_examples)


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - NUM_LISTED
    return lines if more <= 0 else [*lines[:NUM_LISTED], f"and {more} more"]
