"""The command line: a file per command, each with `add_parser` and `run`."""

import argparse
import os
import sys
from collections.abc import Sequence

from training.cli import evaluate, export, prepare, presets, report, sample, sweep, train
from training.errors import LostProcessError, TrainingError

COMMANDS = (prepare, presets, train, sweep, evaluate, report, export, sample)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train generators and export bundles.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake is explained in one line.

    Args:
        arguments: The command line without the program's name; `None`: the process's own.

    Returns:
        The exit status: 0, 1 after a mistake, 130 after Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (TrainingError, OSError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        if isinstance(error, LostProcessError):
            # The threads of gloo may abort a process that ends in order, and its status would not be 1.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
