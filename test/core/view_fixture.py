"""A rig of six small grey cameras and boxes to put in front of them."""

import numpy as np
import simplejpeg

from syncl_core import geometry
from syncl_core.classes import CAMERAS
from syncl_core.types import CameraModel, CameraView, FrameSet, ObjectSet, RawImage

MODEL = CameraModel(width=320, height=180, intrinsics=np.array([[200.0, 0, 160], [0, 200, 90], [0, 0, 1]]))
HEADINGS = dict(zip(CAMERAS, np.radians([0, -55, 55, 180, 110, -110]), strict=True))
BASE_FROM_FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])


def turned(yaw: float) -> np.ndarray:
    return geometry.transform([0.0, 0.0, 0.0], geometry.quaternion_from_yaw(yaw))


def make_view(camera: str, pose: np.ndarray) -> CameraView:
    data = simplejpeg.encode_jpeg(np.full((MODEL.height, MODEL.width, 3), 90, np.uint8), 95)
    return CameraView(
        camera=camera,
        t_ns=0,
        image=RawImage(encoding="jpeg", data=data),
        model=MODEL,
        base_from_cam=turned(HEADINGS[camera]) @ BASE_FROM_FORWARD,
        global_from_base=pose,
    )


def make_set(t_ns: int = 0, pose: np.ndarray | None = None) -> FrameSet:
    pose = geometry.transform([100.0, 50.0, 0.0], geometry.quaternion_from_yaw(0.7)) if pose is None else pose
    views = tuple(make_view(camera, pose) for camera in CAMERAS)
    return FrameSet(t_ns=t_ns, global_from_base=pose, base_from_model=np.eye(4), views=views)


def make_objects(centers, t_ns: int = 0, ids: tuple[str, ...] | None = None) -> ObjectSet:
    centers = np.asarray(centers, dtype=np.float64).reshape(-1, 3)
    count = len(centers)
    return ObjectSet(
        t_ns=t_ns,
        ids=ids or tuple(f"0badcafe-{i}" for i in range(count)),
        labels=("car",) * count,
        scores=np.full(count, 0.5),
        centers=centers,
        sizes=np.full((count, 3), [4.0, 2.0, 1.5]),
        rotations=np.tile([1.0, 0, 0, 0], (count, 1)),
        velocities=np.full((count, 2), np.nan),
    )


def in_front_of(frame_set: FrameSet, camera: str, distance: float = 12.0) -> np.ndarray:
    """The global point `distance` metres along a camera's optical axis."""
    view = next(v for v in frame_set.views if v.camera == camera)
    return geometry.transform_points(view.global_from_base @ view.base_from_cam, np.array([0.0, 0.0, distance]))
