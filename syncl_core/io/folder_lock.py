"""One process at a time in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from syncl_core.errors import InputError
from syncl_core.io.files import make_folder

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, patient: bool = False) -> Iterator[bool]:
    """The folder for this process alone, until the block or the process ends.

    Yields whether that is sure: a file system may have no locks, as those of clusters, and better no guard than no
    training. Raises InputError if another process has it; a `patient` one waits for it.
    """
    make_folder(folder)
    sure = True
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"{folder}: another syncl process is at work here") from None
        except OSError:
            sure = False
        file.truncate(0)
        file.write(f"{os.getpid()}\n")  # for people
        file.flush()
        yield sure
