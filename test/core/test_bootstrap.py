"""Set-up: what is done is not repeated, what changed is, and failures say what to do. No network."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from syncl_ros.bootstrap import install, machine
from syncl_ros.bootstrap.plan import Place, make_plan, pip_environment, remove_half_installed
from syncl_ros.bootstrap.steps import Stamps, Step, StepFailed, only_one, run_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path):
    """Three steps that note their names; "b" depends on a file, "c" on "b"."""
    pins = tmp_path / "pins.txt"
    pins.write_text("one==1")
    done: list[str] = []

    def step(name: str, *inputs, needs=()) -> Step:
        return Step(name, name, inputs, lambda _log: done.append(name), "try again", needs)

    steps = [step("a", "fixed"), step("b", pins), step("c", "fixed", needs=("b",))]
    return steps, Stamps(tmp_path / "stamps"), tmp_path / "log", pins, done


def test_finished_steps_are_not_repeated(house):
    steps, stamps, logs, _, done = house
    for _ in range(3):
        run_steps(steps, stamps, logs, {})
    assert done == ["a", "b", "c"]


def test_a_changed_pin_redoes_its_step_and_what_needs_it(house):
    steps, stamps, logs, pins, done = house
    run_steps(steps, stamps, logs, {})
    pins.write_text("one==2")
    run_steps(steps, stamps, logs, {})
    assert done == ["a", "b", "c", "b", "c"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, StepFailed("no network"), OSError("disk full")])
def test_an_interrupted_step_continues(house, end):
    steps, stamps, logs, _, done = house

    def fail(_log):
        raise end

    with pytest.raises((KeyboardInterrupt, StepFailed)):
        run_steps([steps[0], replace(steps[1], run=fail), steps[2]], stamps, logs, {})
    assert done == ["a"]
    run_steps(steps, stamps, logs, {})
    assert done == ["a", "b", "c"]


def test_a_redone_step_that_fails_is_not_done(house):
    steps, stamps, logs, pins, _ = house
    run_steps(steps, stamps, logs, {})
    pins.write_text("one==2")

    def fail(_log):
        raise StepFailed("no")

    with pytest.raises(StepFailed):
        run_steps([steps[0], replace(steps[1], run=fail)], stamps, logs, {})
    pins.write_text("one==1")  # the old pin is back, but what is installed is unknown
    assert not stamps.is_done(steps[1])


def test_a_failure_names_step_log_and_advice(tmp_path):
    command = [sys.executable, "-c", "print('line one'); print('cannot find the wheel'); raise SystemExit(3)"]
    step = Step("torch", "torch", (), lambda log: log.call(command), "check the network")
    with pytest.raises(StepFailed) as caught:
        run_steps([step], Stamps(tmp_path / "stamps"), tmp_path / "log", dict(os.environ))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("set-up: step 'torch' failed:") and lines[0].endswith("code 3")
    assert "    cannot find the wheel" in lines
    assert lines[-2:] == [f"whole log: {tmp_path / 'log' / 'torch.log'}", "what to do: check the network"]


def test_a_second_setup_waits(tmp_path):
    lock, entered = tmp_path / "folder" / "lock", threading.Event()

    def second():
        with only_one(lock):
            entered.set()

    thread = threading.Thread(target=second)
    with only_one(lock):
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(5)
    thread.join()


def _copy_of_the_bootstrap(folder: Path) -> Path:
    for name in ("syncl_ros/bootstrap", "syncl_core/io/interfaces"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("setup.py", "pyproject.toml", "syncl_ros/__init__.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder / "syncl_ros" / "bootstrap" / "install.py"


def test_missing_compiler_is_the_first_line(tmp_path):
    script = _copy_of_the_bootstrap(tmp_path / "a clone")
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\n")
    apt.chmod(0o755)
    environment = {"PATH": str(apt.parent), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "missing on this machine: gcc (compiler), g++ (compiler)" in result.stderr
    assert "sudo apt-get install -y gcc g++" in result.stderr
    assert not (tmp_path / "a clone" / ".venv").exists()


def test_full_disk_and_foreign_platform_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_missing_packages", lambda compiler: {})
    assert machine.missing_from_machine(tmp_path, ros_distro="jazzy") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10**9))
    assert "1.0 GB free" in machine.missing_from_machine(tmp_path, ros_distro="jazzy")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert "aarch64" in machine.missing_from_machine(tmp_path, ros_distro="")


@pytest.mark.parametrize("version, accepted", [((3, 9), False), ((3, 10), True), ((3, 12), True), ((3, 13), False)])
def test_python_versions(monkeypatch, version, accepted):
    monkeypatch.setattr(install.sys, "version_info", (*version, 1))
    problem = install.wrong_python()
    assert (problem == "") == accepted
    if problem:
        assert f"is {version[0]}.{version[1]}" in problem and "PYTHON=python3.1" in problem


def test_half_installed_packages_are_removed(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "begun-1.dist-info", "~orch", "whole"):
        (site / name).mkdir(parents=True)
    (site / "whole-1.dist-info" / "RECORD").write_text("whole/a.py,,\nwhole-1.dist-info/INSTALLER,,\n")
    (site / "half-1.dist-info" / "RECORD").write_text("half/a.py,,\n")  # the wheel's own
    remove_half_installed(tmp_path)
    assert sorted(p.name for p in site.iterdir()) == ["whole", "whole-1.dist-info"]


class _CommandList:
    """Stands in for a Log: notes the commands, runs none."""

    def __init__(self):
        self.commands: list[list[str]] = []

    def call(self, command):
        self.commands.append([str(word) for word in command])


def _commands(place: Place, name: str) -> list[list[str]]:
    log = _CommandList()
    next(step for step in make_plan(place, with_tests=True) if step.name == name).run(log)
    return log.commands


def test_nothing_can_install_a_cuda_torch_by_accident(tmp_path):
    _copy_of_the_bootstrap(tmp_path)
    place = Place(root=tmp_path)
    commands = [command for step in make_plan(place, with_tests=True) for command in _commands(place, step.name)]
    installs = [command for command in commands if "install" in command]
    assert len(installs) >= 6
    for command in installs:
        assert "--no-deps" in command or command[-3:] == ["pip==26.3", "setuptools==80.10.2", "wheel==0.48.0"]
        assert all(word.endswith("+cpu") for word in command if word.startswith("torch"))


def test_another_torch_replaces_the_old_one(tmp_path):
    _copy_of_the_bootstrap(tmp_path)
    info = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "torch-2.13.0+cpu.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("torch-2.13.0+cpu.dist-info/INSTALLER,,\n")
    place = Place(root=tmp_path, torch="torch==2.13.0 --index-url https://example.org/cu130")
    uninstall, new = _commands(place, "torch")
    assert uninstall[-3:] == ["uninstall", "-y", "torch"]
    assert new[-3:] == ["torch==2.13.0", "--index-url", "https://example.org/cu130"]


def test_a_chosen_torch_stays_chosen(tmp_path):
    venv = tmp_path / ".venv"
    assert install.remembered_torch(venv, "") == ""
    cuda = "torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
    assert install.remembered_torch(venv, cuda) == cuda
    assert install.remembered_torch(venv, "") == cuda, "a plain `make demo` must not bring the CPU build back"
    assert install.remembered_torch(venv, "torch==2.13.0+cpu") == "torch==2.13.0+cpu"


def test_a_sourced_ros_needs_no_wheels_and_no_compiler():
    names = [step.name for step in make_plan(Place(root=ROOT, ros_distro="jazzy"), with_tests=False)]
    assert names == ["venv", "python", "torch", "ros", "project", "bytecode"]


def test_an_environment_of_another_kind_is_not_touched(tmp_path):
    version = f"version = {sys.version_info.major}.{sys.version_info.minor}.1"
    own, system = "include-system-site-packages = false", "include-system-site-packages = true"
    assert machine.unfit_environment(tmp_path, ros_distro="") == ""
    for text, distro, what in (
        (f"{own}\n{version}", "", ""),
        (f"{system}\n{version}", "jazzy", ""),
        (f"{own}\nversion = 3.1.1", "", "another Python"),
        (f"{system}\n{version}", "", "source its setup.bash"),
        (f"{own}\n{version}", "jazzy", "ROS 2 jazzy is sourced"),
    ):
        (tmp_path / "pyvenv.cfg").write_text(text)
        problem = machine.unfit_environment(tmp_path, ros_distro=distro)
        assert what in problem and bool(what) == bool(problem)


def test_what_a_sourced_ros_lacks_is_named(tmp_path):
    python = tmp_path / "python"
    for script, what in (
        ("exit 0", ""),
        ("echo vision_msgs.msg; echo tf2_msgs.msg", "install -y ros-jazzy-vision-msgs ros-jazzy-tf2-msgs"),
        ("echo rclpy", "source /opt/ros/jazzy/setup.bash"),
        ("exit 1", "source /opt/ros/jazzy/setup.bash"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        problem = machine.missing_from_ros(python, "jazzy")
        assert what in problem and bool(what) == bool(problem)


def test_the_calling_shell_cannot_lead_pip_astray():
    shell = {
        "PATH": "/bin",
        "PYTHONPATH": "/opt/other",
        "PIP_TARGET": "/somewhere",
        "VIRTUAL_ENV": "/other/venv",
        "PIP_INDEX_URL": "https://mirror",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "LD_LIBRARY_PATH": "/other/venv/lib",
    }
    clean = pip_environment(Place(root=ROOT), shell)
    assert clean.keys() & shell.keys() == {"PATH", "PIP_INDEX_URL"}
    sourced = pip_environment(Place(root=ROOT, ros_distro="jazzy"), shell)
    assert sourced["PYTHONPATH"] == "/opt/other"  # this is where a sourced ROS 2 keeps its packages
