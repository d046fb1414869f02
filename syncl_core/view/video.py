"""RGB frames -> an H.264 video that browsers and desktop players open."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from syncl_core.errors import InputError
from syncl_core.io.files import whole_file


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, quality: int = 20) -> int:
    """Encode frames [H, W, 3] uint8 RGB of one size as mp4 and return their number.

    Odd sizes are padded by one black row or column (4:2:0 chroma needs even ones). `quality` is x264's constant rate
    factor: 0 is lossless, 23 ordinary. The file appears only when complete. Raises InputError naming the path if there
    is no frame or the file cannot be written.
    """
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: no frames to make a video of")
    if not fps > 0:
        raise InputError(f"{path}: frames per second must be positive, got {fps}")
    with whole_file(path) as partial:
        return _encode(partial, first, chain([first], frames), fps, quality)


def _encode(path: Path, first: np.ndarray, frames: Iterable[np.ndarray], fps: float, quality: int) -> int:
    try:
        import av
        from av.video.reformatter import ColorRange, Colorspace
    except ImportError as error:
        raise InputError(f"writing a video needs PyAV (pip install av): {error}") from None
    height, width = (side + side % 2 for side in first.shape[:2])
    padding = ((0, height - first.shape[0]), (0, width - first.shape[1]), (0, 0))
    # "faststart" puts the index first: a browser plays while it loads.
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryfast"}
        # Without these tags players guess the colour matrix from the picture's size.
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        count = 0
        for count, pixels in enumerate(frames, start=1):
            assert pixels.shape == first.shape, "all frames of a video have one size"
            frame = av.VideoFrame.from_ndarray(np.pad(pixels, padding), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            frame.pts, frame.time_base = count - 1, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return count
