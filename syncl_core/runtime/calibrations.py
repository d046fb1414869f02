"""Whether a camera's calibration can be used, and what differs between two of them, in words."""

import numpy as np

from syncl_core.errors import InputError
from syncl_core.lens import check_lens
from syncl_core.types import CameraModel


def unusable(model: CameraModel) -> str:
    """Why a calibration cannot be used; "" = it can."""
    intrinsics = np.asarray(model.intrinsics)
    finite = intrinsics.shape == (3, 3) and np.isfinite(intrinsics).all()
    if not finite or intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0 or model.width <= 0 or model.height <= 0:
        return str(model)
    try:
        if model.lens is not None:
            check_lens(model.lens)
    except InputError as error:
        return str(error)
    return ""


def difference(old: CameraModel, new: CameraModel) -> str:
    """What differs between two calibrations; "" = nothing."""
    if (old.width, old.height) != (new.width, new.height):
        return f"images of {old.width}x{old.height} are now {new.width}x{new.height}"
    if change_px := float(np.abs(np.asarray(new.intrinsics) - old.intrinsics).max()):
        return f"its intrinsics, by up to {change_px:.2f} pixels"
    lenses = [(lens.model, *np.ravel(lens.intrinsics), *lens.coefficients) for lens in (old.lens, new.lens) if lens]
    return "its lens" if len(lenses) == 1 or len(set(lenses)) == 2 else ""
