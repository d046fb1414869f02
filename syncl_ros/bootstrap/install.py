"""Set up everything in .venv: torch, ROS 2 and the project. Safe to repeat, to interrupt and to start twice.

usage: python3 syncl_ros/bootstrap/install.py [--with-tests] [--torch "PIP ARGUMENTS"]

Runs on a bare Python 3.10 to 3.12 with a C++ compiler. Where ROS 2 is sourced (ROS_DISTRO) that one is used; otherwise
ROS 2 Jazzy comes as wheels and the message types they lack are compiled (about 20 s on two cores).
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = (3, 10), (3, 12)


def main() -> int:
    """Returns the exit code: 0 ready, 1 a step failed, 2 the machine lacks something, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with-tests", action="store_true", help="also install what `make test` needs")
    parser.add_argument("--torch", default="", help="arguments for pip instead of the exact CPU build")
    args = parser.parse_args()
    problem = wrong_python()
    if problem:
        print("set-up:", problem, file=sys.stderr)
        return 2
    sys.path[0] = str(ROOT)
    try:
        return set_up(args)
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def wrong_python() -> str:
    """One line when this Python is too old or too new, or ""."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return ""
    names = ["python3.%d" % minor for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    found = [name for name in names if shutil.which(name)]
    advice = "run: make PYTHON=%s ..." % found[0] if found else "install one of them, then: make PYTHON=python3.12 ..."
    return "needs Python 3.10 to 3.12, %s is %d.%d; %s" % (sys.executable, *sys.version_info[:2], advice)


def obstacle(venv: Path, ros_distro: str) -> str:
    """What would make the set-up fail, before anything is done: one line, or ""."""
    from syncl_ros.bootstrap import machine

    problem = machine.unfit_environment(venv, ros_distro=ros_distro)
    problem = problem or machine.missing_from_machine(ROOT, ros_distro=ros_distro)
    if ros_distro and not problem:
        problem = machine.missing_from_ros(sys.executable, ros_distro)
    return problem


def remembered_torch(venv: Path, given: str) -> str:
    """What pip installs as torch: `given`, or what was given before, so that `make demo` keeps a CUDA build."""
    choice = venv / "torch-choice"
    if given:
        venv.mkdir(exist_ok=True)
        choice.write_text(given)
    return choice.read_text() if choice.exists() else ""


def set_up(args: argparse.Namespace) -> int:
    from syncl_ros.bootstrap.plan import LOCK_NAME, Place, make_plan, pip_environment
    from syncl_ros.bootstrap.steps import Stamps, StepFailed, only_one, run_steps

    torch = remembered_torch(ROOT / ".venv", args.torch.strip())
    place = Place(root=ROOT, torch=torch, ros_distro=os.environ.get("ROS_DISTRO", ""))
    steps = make_plan(place, with_tests=args.with_tests)
    stamps = Stamps(place.venv / "stamps")
    if all(map(stamps.is_done, steps)):
        return 0
    problem = obstacle(place.venv, place.ros_distro)
    if problem:
        print("set-up:", problem, file=sys.stderr)
        return 2
    start = time.monotonic()
    try:
        with only_one(place.venv / LOCK_NAME):
            run_steps(steps, stamps, place.venv / "log", pip_environment(place))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    print("set-up done in %.0f s: %s" % (time.monotonic() - start, place.venv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
