"""The command line: a file per command, each with `add_parser` and `run`."""

import argparse
import os
import sys
from collections.abc import Sequence

from training.cli import evaluate, export, prepare, sample, train
from training.errors import TrainingError

COMMANDS = (prepare, train, evaluate, export, sample)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 1 after a mistake that is explained in one line.

    Args:
        arguments: The command line without the program's name; `None`: the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m training", description="Train generators and export bundles.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
