"""`syncl doctor`: is this machine's environment complete?"""

import argparse

OLDEST_TORCH = (2, 7)  # the first with torch.utils._pytree.register_dataclass, without which the tensors do not import

EXAMPLES = """examples:
  syncl doctor                                        this machine: torch, CUDA, numpy, ROS, middleware
  ros2 run syncl_ros doctor --ros-args -p vehicle:=my_car.yaml      the vehicle: cameras, times, transforms
  python -m syncl_ros.doctor --ros-args -p vehicle:=my_car.yaml     the same

Exit code 1 if something must be changed.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="say what is missing on this machine",
        description="Check torch, CUDA, numpy, decoders, ROS and the middleware, and say what to change.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    findings = [*_python(), *_torch(), *_packages(), *_ros(), *_middleware()]
    for bad, text in findings:
        print(f"{'CHANGE' if bad else 'ok    '}  {text}")
    print("the vehicle's topics: ros2 run syncl_ros doctor (or python -m syncl_ros.doctor)")
    return int(any(bad for bad, _ in findings))


def _python():
    import platform
    import sys

    version = platform.python_version()
    yield sys.version_info < (3, 10), f"Python {version} on {platform.platform()}"


def _torch():
    try:
        import torch
    except (ImportError, OSError) as error:
        yield True, f"torch cannot be imported ({error}): pip install torch, the build that fits this machine"
        return
    old = tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH
    change = ": too old, pip install torch 2.7 or newer, the build that fits this machine" if old else ""
    yield old, f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads{change}"
    if torch.version.cuda is None:
        yield False, "this torch is a CPU build: device cuda:0 is not possible"
    elif not torch.cuda.is_available():
        yield True, f"torch was built for CUDA {torch.version.cuda} but finds no GPU: check nvidia-smi and the driver"
    else:
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            yield (
                False,
                f"cuda:{i}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
            )
    try:  # torch and numpy must have been built for the same binary interface
        torch.zeros(1).numpy()
    except RuntimeError as error:
        yield True, f"torch and numpy do not fit ({error}): install a numpy that this torch was built for"


def _packages():
    import importlib
    import importlib.util

    needed = {
        "numpy": "",
        "cv2": "opencv-python-headless",
        "yaml": "pyyaml",
        "scipy": "",
        "simplejpeg": "",
        "safetensors": "",
        "rosbags": "",
        "PIL": "pillow",
        "tqdm": "",
    }
    for name, package in needed.items():
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            yield True, f"{name} cannot be imported ({error}): pip install {package or name}"
            continue
        yield False, f"{name} {getattr(module, '__version__', '')}".rstrip()
    optional = {
        **{"nuscenes": "no nuScenes root, no evaluation", "av": "no video"},
        **dict.fromkeys(("motmetrics", "pandas"), "no evaluation of tracks"),
    }
    for name, use in optional.items():
        if importlib.util.find_spec(name) is None:
            yield False, f"{name} is not installed (optional): {use}"


def _ros():
    import importlib.util
    import os

    if importlib.util.find_spec("rclpy") is None:
        yield False, "ROS 2 is not found: bags and nuScenes work, the node does not; source a ROS 2 or run make setup"
        return
    distribution = os.environ.get("ROS_DISTRO", "")
    yield False, f"ROS 2 {distribution or 'from wheels'}"
    for name in ("vision_msgs", "sensor_msgs", "tf2_msgs", "diagnostic_msgs", "std_srvs", "lifecycle_msgs"):
        if importlib.util.find_spec(name) is None:
            package = f"ros-{distribution or '$ROS_DISTRO'}-{name.replace('_', '-')}"
            yield True, f"the message package {name} is missing: apt install {package}"
    optional = {
        "autoware_perception_msgs": "no ~/tracked_objects",
        "message_filters": "no sync.policy approximate_time",
        "cv_bridge": "raw images only in rgb8, bgr8, rgba8, bgra8, mono8",
    }
    for name, use in optional.items():
        if importlib.util.find_spec(name) is None:
            yield False, f"{name} is not installed (optional): {use}"


def _middleware():
    import os
    from pathlib import Path

    implementation = os.environ.get("RMW_IMPLEMENTATION", "the default, Fast DDS")
    yield False, f"middleware: {implementation}, ROS_DOMAIN_ID {os.environ.get('ROS_DOMAIN_ID', '0')}"
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    for name, path in given.items():
        yield not Path(path).is_file(), f"{name}={path}" + ("" if Path(path).is_file() else ": no such file")
    if not given:
        yield False, "no Fast DDS profile is set: the node loads config/fastdds_large_images.xml, other nodes do not"
    memory = Path("/dev/shm")
    if memory.is_dir():
        free = os.statvfs(memory)
        free_mb = free.f_bavail * free.f_frsize / 1e6
        text = f"/dev/shm: {free_mb:.0f} MB free"
        yield free_mb < 256, text + (": whole images need more; docker run --shm-size=1g" if free_mb < 256 else "")
    limit = Path("/proc/sys/net/core/rmem_max")
    if limit.is_file():
        yield False, f"net.core.rmem_max {int(limit.read_text()) / 1e6:.1f} MB (matters between machines)"
