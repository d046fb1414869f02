"""What the machine must bring along: checked before anything is downloaded, said in one line.

Every function returns that line, or "" when all is well. `ros_distro` is the name of a sourced ROS 2; "" means ROS 2
comes as wheels.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

FREE_BYTES = 3 * 10**9  # 1.9 GB installed, 0.3 GB of downloads, room for results
ROS_MODULES = {  # import name: apt package without "ros-<distro>-"
    "rclpy": "rclpy",
    "sensor_msgs.msg": "sensor-msgs",
    "vision_msgs.msg": "vision-msgs",
    "visualization_msgs.msg": "visualization-msgs",
    "nav_msgs.msg": "nav-msgs",
    "geometry_msgs.msg": "geometry-msgs",
    "tf2_msgs.msg": "tf2-msgs",
    "std_msgs.msg": "std-msgs",
    "rosgraph_msgs.msg": "rosgraph-msgs",
    "diagnostic_msgs.msg": "diagnostic-msgs",
    "lifecycle_msgs.msg": "lifecycle-msgs",
    "std_srvs.srv": "std-srvs",
}


def missing_from_machine(folder: Path, *, ros_distro: str) -> str:
    """Platform, interpreter, compiler, disk."""
    if not ros_distro and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return (
            f"ROS 2 wheels exist for Linux x86_64 only, this is {sys.platform} {platform.machine()}: "
            "install ROS 2 Humble or Jazzy, source its setup.bash and run the command again"
        )
    packages = _missing_packages(compiler=not ros_distro)
    if packages:
        what = ", ".join(packages)
        if shutil.which("apt-get"):
            return f"missing on this machine: {what}; run: sudo apt-get install -y {' '.join(packages.values())}"
        return f"missing on this machine: {what}; install them with the system's package manager"
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        return f"{folder}: {free / 1e9:.1f} GB free, the set-up needs {FREE_BYTES / 1e9:.0f} GB: free some space"
    return ""


def _missing_packages(*, compiler: bool) -> dict[str, str]:
    """What is missing: the apt package that brings it."""
    python = f"python{sysconfig.get_python_version()}"
    missing = {}
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        missing[f"{python}'s venv module"] = f"{python}-venv"
    if compiler:  # for the message types that no wheel brings
        missing.update({f"{tool} (compiler)": tool for tool in ("gcc", "g++") if not shutil.which(tool)})
        if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            missing[f"{python}'s headers (Python.h)"] = f"{python}-dev"
    return missing


def missing_from_ros(python: str | Path, ros_distro: str) -> str:
    """The ROS packages the node imports, as `python` finds them."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: print(name)\n"
    )
    result = subprocess.run([str(python), "-c", code, *ROS_MODULES], capture_output=True, text=True, check=False)
    absent = result.stdout.split()
    if result.returncode or "rclpy" in absent:
        return (
            f"ROS_DISTRO is {ros_distro}, but {python} cannot import rclpy: source /opt/ros/{ros_distro}/setup.bash "
            "and use its Python (make PYTHON=/usr/bin/python3 ...), or `unset ROS_DISTRO` to get ROS 2 as wheels"
        )
    if absent:
        packages = " ".join(f"ros-{ros_distro}-{ROS_MODULES[name]}" for name in absent)
        return f"ROS 2 {ros_distro} lacks {', '.join(absent)}; run: sudo apt-get install -y {packages}"
    return ""


def unfit_environment(venv: Path, *, ros_distro: str) -> str:
    """An environment is made for one Python, and for ROS wheels or for a sourced ROS 2. It cannot become another."""
    config = venv / "pyvenv.cfg"
    if not config.exists():
        return ""
    text = config.read_text()
    wanted = sysconfig.get_python_version()
    if not re.search(rf"^version(_info)? = {re.escape(wanted)}\b", text, re.MULTILINE):
        return f"{venv} was made with another Python than {wanted}: set PYTHON to that one, or `make clean`"
    made_for_system = "include-system-site-packages = true" in text
    if made_for_system and not ros_distro:
        return f"{venv} was made for a sourced ROS 2: source its setup.bash, or `make clean` to use ROS wheels"
    if ros_distro and not made_for_system:
        return f"{venv} was made with ROS wheels, but ROS 2 {ros_distro} is sourced: `make clean` first"
    return ""
