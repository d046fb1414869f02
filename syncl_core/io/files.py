"""Files that are there whole or not at all."""

import os
from pathlib import Path

from syncl_core.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that readers see the old file or the new one. Raises InputError naming the file."""
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write it: {error.strerror}") from None
    except BaseException:  # an interrupt leaves nothing half-written either
        partial.unlink(missing_ok=True)
        raise


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, unless it is there. Raises InputError naming it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder: {error.strerror}") from None


def refuse_existing(*paths: str | Path) -> None:
    """Raise InputError if one of `paths` is there already: before the work starts, not after."""
    for path in map(Path, paths):
        if path.exists():
            raise InputError(f"{path}: exists already; choose another place or give --overwrite")
