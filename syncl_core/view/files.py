"""Picture files that appear when they are complete, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from syncl_core.errors import InputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` at the end; after an exception nothing is left.

    Folders are made as needed. Raises InputError naming the file where the disk refuses.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot write it: {error.strerror or error}") from None


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Write an RGB image [H, W, 3] uint8. Raises InputError naming the file."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert ok, "cv2 encodes every uint8 image"
    with whole_file(path) as partial:
        partial.write_bytes(data)
