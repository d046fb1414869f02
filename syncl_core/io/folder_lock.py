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
def locked(folder: Path, patient: bool = False) -> Iterator[None]:
    """The folder for this process alone, until the block or the process ends.

    Raises InputError if another one has it; a `patient` one waits for it.
    """
    make_folder(folder)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"{folder}: another syncl process is at work here") from None
        except OSError:
            pass  # a file system without locks, as clusters may have: better no guard than no training
        file.truncate(0)
        file.write(f"{os.getpid()}\n")  # for people
        file.flush()
        yield
