"""Pictures as PNG files."""

from pathlib import Path

import cv2
import numpy as np

from syncl_core.io.files import whole_file


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Write an RGB image [H, W, 3] uint8, all or nothing. Raises InputError naming the file."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert ok, "cv2 encodes every uint8 image"
    with whole_file(path) as partial:
        partial.write_bytes(data)
