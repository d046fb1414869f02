"""Ctrl-C at any time: no traceback, no half-finished result that looks like a whole one."""

import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")

from nuscenes_fixture import SCENES, write_tiny_nuscenes
from processes import ROOT, RosProcess, environment

from syncl_core.errors import InputError
from syncl_ros.children import folder_taken


@pytest.mark.parametrize("module", ["node", "demo", "soak"])
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
