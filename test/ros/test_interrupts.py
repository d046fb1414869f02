"""Ctrl-C at any time: no traceback, no half-finished result that looks like a whole one."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import live_node
from nuscenes_fixture import SCENES, write_tiny_nuscenes
from processes import ROOT, RosProcess, environment

from syncl_core.errors import InputError
from syncl_ros.children import folder_taken


@pytest.mark.parametrize("module", ["node", "demo", "soak", "bench_node"])
def test_while_a_program_still_imports_it_ends_in_silence(module, tmp_path, domain):
    """Importing torch and rclpy takes seconds; the first tenths of a second belong to Python itself."""
    env = environment(tmp_path, domain)
    command = [sys.executable, "-X", "importtime", "-m", f"syncl_ros.{module}", "--help"]
    with open(tmp_path / "imports.log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log)
        give_up = time.monotonic() + 30
        while "argparse" not in (tmp_path / "imports.log").read_text() and time.monotonic() < give_up:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    said = (tmp_path / "imports.log").read_text()
    assert code in (-signal.SIGINT, 130), (code, said[-500:])
    assert "Traceback" not in said


@pytest.mark.parametrize("given, expected", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_hears_of_its_policy_before_torch_loads_it(given, expected, tmp_path, domain):
    """As `ros2 run` starts it, without a launch file that would complete the environment."""
    env = environment(tmp_path, domain) | {"OMP_DISPLAY_ENV": "true"}
    env.pop("OMP_WAIT_POLICY")
    command = [sys.executable, "-m", "syncl_ros.node", "--help"]
    done = subprocess.run(
        command, env=env | ({"OMP_WAIT_POLICY": given} if given else {}), capture_output=True, text=True
    )
    assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr, done.stderr


def test_an_interrupt_that_comes_again_does_not_spoil_a_clean_end(tmp_path, domain):
    """The terminal sends one to every process, and ros2 launch passes its own on."""
    with RosProcess("node", env=environment(tmp_path, domain), folder=tmp_path) as tracker:
        tracker.wait_for_output("ready")
        give_up = time.monotonic() + 30
        while tracker.process.poll() is None and time.monotonic() < give_up:
            tracker.interrupt()
            time.sleep(0.002)
        assert tracker.wait() == 0, tracker.output()


@pytest.fixture
def no_nohup():
    """What these tests start does at SIGHUP what it always does, whatever started them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "number, autostart",
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGINT, False)],
)
def test_a_network_that_still_loads_is_left_at_once(number, autostart, tmp_path, domain, no_nohup):
    """ros2 launch kills what has not ended after ten seconds, and shared memory stays behind then."""
    given = ("0", "1", "--loads", "60", "--ros-args", "-p", f"autostart:={str(autostart).lower()}")
    with (
        live_node.watching(domain) as watcher,
        RosProcess(".slow_node", *given, env=environment(tmp_path, domain), folder=tmp_path) as tracker,
    ):
        if not autostart:
            watcher.wait(lambda: watcher.statuses, 60)
            watcher.begin_transition("configure")
        tracker.wait_for_output("loading")
        began_s = time.monotonic()
        tracker.interrupt(number)
        assert tracker.wait(30) == 0, tracker.output()
        assert time.monotonic() - began_s < 20 and "Traceback" not in tracker.output()


def test_an_interrupted_recording_leaves_a_bag_only_if_a_part_is_wanted(drive, tmp_path, domain):
    env = environment(tmp_path, domain)
    folders = {name: tmp_path / name for name in ("part", "whole", "empty")}
    for folder in folders.values():
        folder.mkdir()
    until = ("--until", "/never")

    def recorder(name: str, *options: str, topics: str = "/tf") -> RosProcess:
        arguments = ("-o", folders[name] / "bag", *until, *options, "--topics", topics)
        return RosProcess("recorder", *arguments, env=env, folder=folders[name])

    with (
        recorder("part") as part,
        recorder("whole", "--whole") as whole,
        recorder("empty", topics="/nothing") as empty,
        RosProcess("player", drive, "--loop", "--wait-for", "/recorder/ready", env=env, folder=tmp_path) as player,
    ):
        player.wait_for_output("played")  # one round: by now both have poses
        player.wait_for_output("played", count=2)
        codes = []
        for one in (part, whole, empty):
            one.interrupt()
            codes.append(one.wait(30))
        player.interrupt()
        assert player.wait(30) == 0, player.output()
    assert codes == [0, 130, 130], part.output() + whole.output() + empty.output()
    assert (folders["part"] / "bag" / "metadata.yaml").exists()
    for name, process in (("whole", whole), ("empty", empty)):
        assert [path.name for path in folders[name].iterdir() if "bag" in path.name] == []
        assert process.output() == "recorder: interrupted\n"


def test_a_demo_that_is_interrupted_leaves_no_tracks(tmp_path):
    root, output = write_tiny_nuscenes(tmp_path / "nuscenes"), tmp_path / "out"
    command = [sys.executable, "-m", "syncl_ros.demo", "--data", str(root), "--scene", SCENES[1], "-o", str(output)]
    with open(tmp_path / "demo.log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 90
            while "playing" not in _text(output / "log" / "player.log") and time.monotonic() < give_up:
                time.sleep(0.02)
            with pytest.raises(InputError, match="another demo is at work here"), folder_taken(output):
                pass
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        finally:
            process.kill()
    said = (tmp_path / "demo.log").read_text()
    assert code == 130 and "demo: interrupted" in said and "Traceback" not in said, said
    assert not (output / "tracks").exists() and not (output / "tracks.json").exists()
    with folder_taken(output):  # and the next one may begin
        pass


def _text(path) -> str:
    return path.read_text() if path.exists() else ""


def test_an_interrupted_measurement_says_so_instead_of_figures(tmp_path, domain):
    arguments = ("--seconds", 600, "--size", "64x36", "--domain", domain)
    with RosProcess("bench_node", *arguments, env=environment(tmp_path, domain), folder=tmp_path) as bench:
        time.sleep(4.0)
        bench.interrupt()
        assert bench.wait(60) in (130, -signal.SIGINT), bench.output()
    assert "Traceback" not in bench.output() and "| " not in bench.output()


def test_interrupted_robustness_tables_are_not_written(tmp_path):
    root, output = write_tiny_nuscenes(tmp_path / "nuscenes"), tmp_path / "out"
    config = tmp_path / "tiny.yaml"
    config.write_text("image: {height: 32, width: 80}\nmodel: {num_layers: 1, num_queries: 8}\ntrack: {slots: 8}\n")
    periods = [str(0.5 + 0.001 * i) for i in range(1000)]
    command = [sys.executable, "-m", "syncl_core.cli", "robustness", str(root), "-c", str(config), "-o", str(output)]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(
            [*command, "--periods", *periods],
            env=environment(tmp_path, 100),
            cwd=ROOT,
            stdout=said,
            stderr=said,
            preexec_fn=_heed_interrupts,
        )
        try:
            code = _interrupted(process, output)
        finally:
            process.kill()
            process.wait()
    assert code == 130, (tmp_path / "said").read_text()
    note, end = (tmp_path / "said").read_text().splitlines()
    assert note.startswith("note: no --checkpoint") and end == "syncl: interrupted" and not list(output.iterdir())


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupted(process: subprocess.Popen, output: Path) -> int | None:
    """The exit code of a process that is interrupted when it has made its folder; None if it goes on."""
    give_up = time.monotonic() + 60
    while not output.is_dir() and time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)
    code, give_up = None, time.monotonic() + 60
    while code is None and time.monotonic() < give_up:
        process.send_signal(signal.SIGINT)  # again: Python drops an interrupt that comes inside a finaliser
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(10)
    return code
