"""A small recorded drive for the tests: six cameras, a car that moves and turns, everything known in closed form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.io import messages
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.topics import Topics, frame_of
from syncl_core.runtime.mounts import HEADINGS_DEG
from syncl_core.types import CameraModel, RawImage

START_NS = 1_600_000_000_000_000_000
WIDTH, HEIGHT = 320, 180
FIRST_NS = 50_000_000  # of the first image, after the first pose
PERIOD_NS = 83_000_000
TOPICS = Topics()
MODEL = CameraModel(
    width=WIDTH, height=HEIGHT, intrinsics=np.array([[250.0, 0.0, 160.0], [0.0, 250.0, 90.0], [0.0, 0.0, 1.0]])
)
CONFIG = """
image: {height: 64, width: 160}
model:
  embed_dim: 64
  num_queries: 40
  num_layers: 2
  num_heads: 4
  ffn_dim: 64
  reasoning_layers: 1
  depth_bins: 8
  class_prior: 0.26
track: {slots: 16}
"""


def global_from_base(t_ns: int) -> np.ndarray:
    seconds = (t_ns - START_NS) * 1e-9
    return geometry.transform((8.0 * seconds, 0.2 * seconds**2, 0.0), geometry.quaternion_from_yaw(0.1 * seconds))


def base_from_cam(index: int) -> np.ndarray:
    heading = np.radians(HEADINGS_DEG[CAMERAS[index]])
    forward = geometry.transform((1.5, 0.0, 1.5), geometry.quaternion_from_yaw(heading))
    upright = np.eye(4)
    upright[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera axes right, down, forward
    return forward @ upright


def picture(seed: int) -> np.ndarray:
    """RGB pixels [H, W, 3]: coarse random blocks, which survive compression and scaling."""
    blocks = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), np.uint8)
    return np.ascontiguousarray(blocks.repeat(20, axis=0).repeat(20, axis=1))


def jpeg(seed: int) -> RawImage:
    return RawImage(encoding="jpeg", data=simplejpeg.encode_jpeg(picture(seed), quality=80))


def write_drive(path: Path, seconds: float = 3.2, broken: dict[str, dict[int, Callable]] | None = None) -> Path:
    """Write the drive. `broken[camera][frame number](make, message)` makes what takes the place of that image."""
    with BagWriter(path) as bag:
        make = bag.types.make
        mounts = [(frame_of(camera), base_from_cam(i)) for i, camera in enumerate(CAMERAS)]
        static = [messages.transform_stamped(make, START_NS, "base_link", child, pose) for child, pose in mounts]
        bag.write(TOPICS.tf_static, messages.tf_message(make, static), START_NS)
        for t_ns in range(START_NS, START_NS + round((seconds + 0.2) * 1e9), 20_000_000):
            pose = messages.transform_stamped(make, t_ns, "odom", "base_link", global_from_base(t_ns))
            bag.write(TOPICS.tf, messages.tf_message(make, [pose]), t_ns)
        for frame in range(int(seconds * 1e9 // PERIOD_NS)):
            for i, camera in enumerate(CAMERAS):
                t_ns = START_NS + FIRST_NS + frame * PERIOD_NS + 7_000_000 * i
                info = messages.camera_info(make, t_ns, frame_of(camera), MODEL)
                bag.write(TOPICS.camera_info_of(camera), info, t_ns)
                message = messages.compressed_image(make, t_ns, frame_of(camera), jpeg(100 * frame + i))
                replace = (broken or {}).get(camera, {}).get(frame)
                bag.write(TOPICS.compressed_of(camera), replace(make, message) if replace else message, t_ns)
    return path
