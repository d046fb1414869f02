"""The steps from nothing to a working environment.

Every list of pins is complete, so pip installs it with --no-deps: nothing unlisted can come in, neither another numpy
nor torch's CUDA build.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncl_ros.bootstrap.machine import missing_from_ros
from syncl_ros.bootstrap.steps import Log, Step, StepFailed

TORCH_CPU = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD_TOOLS = ("pip==26.3", "setuptools==80.10.2", "wheel==0.48.0")
INTERFACES = ("autoware_perception_msgs", "tf2_msgs", "vision_msgs")
LOCK_NAME = "setup.lock"
NETWORK = "check the network (proxy, PIP_INDEX_URL) and run the same command again; it continues here"
# Settings of the calling shell that would send pip, or the new interpreter, somewhere else.
FOREIGN_VARIABLES = ("PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True)
class Place:
    """Where the environment is built, and from what."""

    root: Path  # the repository
    torch: str = ""  # arguments for `pip install`; "" = the CPU build
    ros_distro: str = ""  # name of a sourced ROS 2; "" = ROS 2 from wheels
    base_python: str = sys.executable

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def pins(self) -> Path:
        return self.root / "syncl_ros" / "bootstrap"


def make_plan(place: Place, *, with_tests: bool) -> list[Step]:
    """The steps in their order."""
    steps = [_venv_step(place), _pins_step(place, "python", "Python packages", "requirements.txt"), _torch_step(place)]
    steps += [_system_ros_step(place)] if place.ros_distro else [_ros_wheels_step(place), _interfaces_step(place)]
    steps.append(_project_step(place))
    if with_tests:
        steps.append(_pins_step(place, "tests", "test tools", "requirements-test.txt"))
    return [*steps, _bytecode_step(place, tuple(step.name for step in steps))]


def pip_environment(place: Place, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without what would lead pip or the new interpreter astray."""
    clean = {key: value for key, value in environment.items() if key not in FOREIGN_VARIABLES}
    if not place.ros_distro:
        clean.pop("PYTHONPATH", None)
        if clean.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):  # called from another environment with ROS wheels
            clean.pop("LD_LIBRARY_PATH", None)
    return {**clean, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _pip_install(place: Place, log: Log, *arguments: str | Path) -> None:
    remove_half_installed(place.venv)
    pip = [place.python, "-m", "pip", "install", "--progress-bar", "off", "--no-build-isolation", "--no-compile"]
    log.call([*pip, *arguments])


def _first_that_works(place: Place, log: Log, attempts: Sequence[Sequence[str | Path]]) -> None:
    for arguments in attempts[:-1]:
        try:
            return _pip_install(place, log, *arguments)
        except StepFailed:
            pass  # its output is in the log
    return _pip_install(place, log, *attempts[-1])


def remove_half_installed(venv: Path) -> None:
    """Drop what a killed pip left, which pip itself would take for installed.

    A wheel brings its own RECORD; pip's last act is to replace it by one that also names the file INSTALLER.
    """
    for site in venv.glob("lib/python3*/site-packages"):
        half = [info for info in site.glob("*.dist-info") if not _was_recorded(info / "RECORD")]
        for folder in [*half, *site.glob("~*")]:
            shutil.rmtree(folder, ignore_errors=True)


def _was_recorded(record: Path) -> bool:
    return record.exists() and "dist-info/INSTALLER," in record.read_text(encoding="utf-8")


def _venv_step(place: Place) -> Step:
    def run(log: Log) -> None:
        if not _has_pip(place, log):
            system = ["--system-site-packages"] if place.ros_distro else []
            log.call([place.base_python, "-m", "venv", *system, place.venv])
        _pip_install(place, log, *BUILD_TOOLS)

    version = sysconfig.get_python_version()
    advice = f"read the log; if it says ensurepip, install python{version}-venv. {NETWORK}"
    return Step("venv", "virtual environment .venv", (version, place.ros_distro, *BUILD_TOOLS), run, advice)


def _has_pip(place: Place, log: Log) -> bool:
    """Whether .venv has a whole pip. What a killed installation of pip left is removed."""
    remove_half_installed(place.venv)
    for site in place.venv.glob("lib/python3*/site-packages"):
        if not any(site.glob("pip-*.dist-info")):
            shutil.rmtree(site / "pip", ignore_errors=True)
    try:
        log.call([place.python, "-m", "pip", "--version"])
    except (StepFailed, OSError):
        return False
    return True


def _pins_step(place: Place, name: str, title: str, file: str) -> Step:
    pins = place.pins / file
    return Step(name, title, (pins,), lambda log: _pip_install(place, log, "--no-deps", "-r", pins), NETWORK)


def _torch_step(place: Place) -> Step:
    # An exact "+cpu" version exists only among CPU builds: no index can answer it with a CUDA build.
    default = [["--no-deps", TORCH_CPU, *index] for index in ([], ["--extra-index-url", TORCH_CPU_INDEX])]
    attempts = [shlex.split(place.torch)] if place.torch else default

    def run(log: Log) -> None:
        if any(place.venv.glob("lib/python3*/site-packages/torch-*.dist-info")):
            log.call([place.python, "-m", "pip", "uninstall", "-y", "torch"])  # 2.13.0+cpu would satisfy torch==2.13.0
        _first_that_works(place, log, attempts)

    advice = f"{NETWORK}; another build: make TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130'"
    return Step("torch", place.torch or TORCH_CPU, (place.torch or TORCH_CPU,), run, advice)


def _ros_wheels_step(place: Place) -> Step:
    files = (place.pins / "ros-jazzy.txt", place.pins / "ros-kilted.txt")
    attempts = [["--no-deps", "-r", file] for file in files]
    return Step("ros", "ROS 2 (Jazzy wheels)", files, lambda log: _first_that_works(place, log, attempts), NETWORK)


def _system_ros_step(place: Place) -> Step:
    def run(_log: Log) -> None:
        problem = missing_from_ros(place.python, place.ros_distro)
        if problem:
            raise StepFailed(problem)

    inputs = (place.ros_distro, os.environ.get("AMENT_PREFIX_PATH", ""))
    return Step("ros", f"ROS 2 {place.ros_distro} (installed)", inputs, run, "see above, then run again")


def _bytecode_step(place: Place, needs: tuple[str, ...]) -> Step:
    """On all cores, where pip takes one. Later may be too late: .venv may belong to somebody else then.

    Files for newer Pythons cannot be compiled, which is no failure.
    """
    script = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"

    def run(log: Log) -> None:
        for site in place.venv.glob("lib/python3*/site-packages"):
            log.call([place.python, "-c", script, site])

    return Step("bytecode", "byte code", (script,), run, "read the log, then run again", needs)


def _interfaces_step(place: Place) -> Step:
    script = place.pins / "build_interfaces.py"
    folder = place.root / "syncl_core" / "io" / "interfaces"
    definitions = sorted(file for package in INTERFACES for file in (folder / package).rglob("*.*") if file.is_file())
    numpy = [line for line in (place.pins / "requirements.txt").read_text().splitlines() if line.startswith("numpy")]
    command = [place.python, script, folder, *INTERFACES]
    return Step(
        name="interfaces",
        title="message types " + ", ".join(INTERFACES),
        inputs=(script, *numpy, *definitions),
        run=lambda log: log.call(command),
        advice="the log's first error line names the source; a killed compiler needs more memory: run again",
        needs=("ros",),
    )


def _project_step(place: Place) -> Step:
    return Step(
        name="project",
        title="syncl itself",
        inputs=(place.root / "setup.py", place.root / "pyproject.toml", str(place.root)),
        run=lambda log: _pip_install(place, log, "--no-deps", "-e", place.root),
        advice="read the log; setup.py and pyproject.toml must be those of the repository",
    )
