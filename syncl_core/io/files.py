"""Files that are there whole or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syncl_core.errors import InputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` at the end; after an exception nothing is left.

    Folders are made as needed. Raises InputError naming the file where the disk refuses.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    make_folder(path.parent)
    try:
        try:
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot write it: {error.strerror or error}") from None


def remove_leftovers(*paths: Path) -> None:
    """Of processes that were killed while they wrote these files. Nobody may be writing them."""
    for path in paths:
        for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file so that readers see the old file or the new one. Raises InputError naming the file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, unless it is there. Raises InputError naming it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder: {error.strerror}") from None


def check_writable(path: str | Path) -> None:
    """Raise InputError where no file could be written to `path`: before the work starts, not after."""
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    probe = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.probe")
    make_folder(probe.parent)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot write it: {error.strerror or error}") from None


def refuse_existing(*paths: str | Path) -> None:
    """Raise InputError if one of `paths` is there already: before the work starts, not after."""
    for path in map(Path, paths):
        if path.exists():
            raise InputError(f"{path}: exists already; choose another place or give --overwrite")
