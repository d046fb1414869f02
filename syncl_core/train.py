"""`syncl train` as a module, for PyTorch's launcher: torchrun --nproc-per-node 8 -m syncl_core.train CONFIG -o OUT"""

import argparse
import sys
from collections.abc import Sequence

from syncl_core.commands import train
from syncl_core.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Train. Returns the exit code: 0 done, 2 unusable input (one line on stderr), 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="syncl_core.train", epilog=train.EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    train.add_arguments(parser)
    try:
        return train.run(parser.parse_args(argv))
    except InputError as error:
        print(f"syncl: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
