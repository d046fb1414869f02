"""`syncl train` as a module, for PyTorch's launcher: torchrun --nproc-per-node 8 -m syncl_core.train CONFIG -o OUT"""

import argparse
import sys
from collections.abc import Sequence

from syncl_core.cli import exit_code
from syncl_core.commands import train


def main(argv: Sequence[str] | None = None) -> int:
    """Train. Returns the exit code: 0 done, 2 unusable input (one line on stderr), 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="syncl_core.train", epilog=train.EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    train.add_arguments(parser)
    return exit_code(train.run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
