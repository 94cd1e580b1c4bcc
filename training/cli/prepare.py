"""`prepare SOURCE OUT`: pictures to one packed file."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from training.data import Label, PictureSet, pack
from training.errors import TrainingError
from training.readers import read_source

LICENCE_NAMES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md")


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("prepare", help="pack a folder of pictures into one file")
    parser.add_argument("source", type=Path, help="folder with IDX(.gz) files, or with one folder of images per class")
    parser.add_argument("out", type=Path, help="file to write, for example data/fashion.safetensors")
    parser.add_argument("--name", help="name of the data set (default: the source folder's name)")
    parser.add_argument("--labels", type=Path, help="JSON list, one entry per class: a name or {name, aliases}")
    parser.add_argument("--licence", help="the pictures' licence (default: the text of LICENSE in the source)")
    parser.add_argument("--size", type=int, help="crop and resize image files to SIZE x SIZE (default 64)")
    parser.add_argument(
        "--channels", type=int, choices=(1, 3, 4), help="1 grey, 3 RGB, 4 RGBA (default: as the source)"
    )
    parser.add_argument(
        "--alpha", choices=("file", "border"), help="make RGBA: alpha from the files, or by a plain border"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read, pack and say what was found."""
    if options.size is not None and not 8 <= options.size <= 1024:
        raise TrainingError(f"--size {options.size} is not in 8..1024")
    raw = read_source(options.source, size=options.size, channels=options.channels, alpha=options.alpha)
    labels = _read_labels(options.labels) if options.labels else [Label(name) for name in raw.label_names]
    data = pack(
        raw,
        options.out,
        name=options.name or options.source.resolve().name,
        labels=labels,
        licence=options.licence or _licence_in(options.source),
    )
    _describe(data, raw.skipped, options.out)


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


def _licence_in(source: Path) -> str:
    for name in LICENCE_NAMES:
        if (source / name).is_file():
            return (source / name).read_text(encoding="utf-8", errors="replace").strip()
    return "not stated"


def _describe(data: PictureSet, skipped: list[str], out: Path) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    height, width, channels = data.size
    console.print(f"{data.name}: {width}x{height}x{channels}, data hash {data.digest[:16]}", soft_wrap=True)
    table = Table("class", "train", "hold-out")
    for index, label in enumerate(data.labels):
        counts = [str(int(torch.sum(split.labels == index))) for split in (data.train, data.holdout)]
        table.add_row(f"{index} {label.name}", *counts)
    table.add_row("all", str(len(data.train)), str(len(data.holdout)))
    console.print(table)
    for line in skipped:
        console.print(f"skipped {line}", soft_wrap=True)
    console.print(f"wrote {out}; {len(skipped)} files skipped", soft_wrap=True)
