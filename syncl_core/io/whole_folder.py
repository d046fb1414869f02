"""Folders that are there whole or not at all."""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from syncl_core.errors import InputError
from syncl_core.io.files import make_folder
from syncl_core.io.folder_lock import LOCK, locked


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, which must be empty or missing, to write into.

    It takes the folder's place if the block ends well and is gone if not. What killed processes left is removed first.
    """
    folder = folder.resolve()  # a link to an empty folder stays one
    make_folder(folder.parent)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        _remove_unless_in_use(left)
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        with locked(partial):
            yield partial
            os.replace(partial, folder)
            (folder / LOCK).unlink()
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(InputError), locked(folder) as for_sure:
        if for_sure:
            shutil.rmtree(folder, ignore_errors=True)
