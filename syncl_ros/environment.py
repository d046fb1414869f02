"""What a ROS process of this project needs in its environment, wherever it was installed.

ROS 2 from wheels leaves AMENT_PREFIX_PATH unset, and the middleware's defaults lose most raw camera images
(docs/performance.md). A variable the user has set is never changed.
"""

import os
import sys
from pathlib import Path

from syncl_core.errors import InputError

PROFILE = "config/fastdds_large_images.xml"
LOCAL_PROFILE = "config/fastdds_large_images_localhost.xml"
# Fast DDS 2 (Humble, Jazzy) reads the first name, Fast DDS 3 (Kilted, Lyrical) the second.
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"  # such as LARGE_DATA: a profile would silently undo it


def ros_environment(*, domain_id: int | None = None, large_images: bool = True) -> dict[str, str]:
    """The environment for a child process: this one's, completed. `domain_id` sets ROS_DOMAIN_ID."""
    environment = {**os.environ, **missing_environment(large_images=large_images)}
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join(ament_prefixes())
    if domain_id is not None:
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    return environment


def missing_environment(*, large_images: bool = True) -> dict[str, str]:
    """What a process of a tracking machine should have and this one's environment does not say."""
    missing = {"OMP_WAIT_POLICY": "PASSIVE"}  # idle threads must not take the cores of the other processes
    if large_images and not any(name in os.environ for name in (*_PROFILE_VARIABLES, _TRANSPORTS)):
        # Humble adds a transport of this machine alone to those of a profile; later releases restrict them.
        local = os.environ.get("ROS_LOCALHOST_ONLY") == "1" and os.environ.get("ROS_DISTRO") == "humble"
        missing |= dict.fromkeys(_PROFILE_VARIABLES, str(share_file(LOCAL_PROFILE if local else PROFILE)))
    return {name: value for name, value in missing.items() if name not in os.environ}


def prepare_environment() -> None:
    """Complete this process's own environment. Call it before `rclpy.init`: ROS and Fast DDS look when they start."""
    os.environ.update(ros_environment())


def ament_prefixes() -> list[str]:
    """AMENT_PREFIX_PATH with this interpreter's own prefix first, where that prefix holds ROS packages."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    own = Path(sys.prefix, "share", "ament_index")
    return prefixes if sys.prefix in prefixes or not own.is_dir() else [sys.prefix, *prefixes]


def share_file(name: str) -> Path:
    """A file of the package's share folder, such as "config/tracker.yaml": from the source tree or an installation."""
    roots = [Path(__file__).resolve().parents[1], *(Path(p, "share", "syncl_ros") for p in ament_prefixes())]
    for root in roots:
        if (root / name).is_file():
            return root / name
    raise InputError(f"{name}: not in {' nor in '.join(map(str, roots))}; install the package again")
