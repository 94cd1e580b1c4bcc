"""`report RUN`: one HTML file that says what was trained, how, and how good it is."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from training.report import REPORT_NAME, write_report


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("report", help="write a run's report, one HTML file without outside resources")
    parser.add_argument("run_folder", type=Path, metavar="run", help="folder of a run")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {REPORT_NAME} in the run's folder)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the report, and say where to."""
    out = options.out or options.run_folder / REPORT_NAME
    write_report(options.run_folder, out)
    Console().print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
