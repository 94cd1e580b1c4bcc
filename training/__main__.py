"""The commands: prepare, train, evaluate, export, sample."""

import sys

from training.cli import main

if __name__ == "__main__":
    sys.exit(main())
