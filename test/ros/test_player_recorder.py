"""Player and recorder as real processes, without the node."""

import signal

import pytest

pytest.importorskip("rclpy")

from processes import RosProcess, environment

from syncl_core.io.bag_reader import BagReader


def content(path) -> list[tuple[int, str, str, bytes]]:
    with BagReader(path) as reader:
        return sorted((t_ns, topic, kind, bytes(data)) for topic, kind, t_ns, data in reader.messages())


def test_what_is_played_is_recorded_byte_for_byte(drive, tmp_path, domain):
    env = environment(tmp_path, domain)
    with BagReader(drive) as reader:
        topics = [*reader.topics, "/clock"]
        duration_s = (reader.end_ns - reader.start_ns) * 1e-9
    copy = tmp_path / "copy"
    playing = (drive, "--rate", 2, "--clock", 50, "--wait-for", "/recorder/ready")
    with (
        RosProcess("recorder", "-o", copy, "--header-time", "--topics", *topics, env=env, folder=tmp_path) as recorder,
        RosProcess("player", *playing, env=env, folder=tmp_path) as player,
    ):
        assert player.wait(120) == 0, player.output()
        assert not copy.exists()  # nothing half-written can be seen
        recorder.interrupt(signal.SIGTERM)
        assert recorder.wait(30) == 0, recorder.output()
    played_s = float(player.output().rsplit(" in ", 1)[1].split()[0])
    assert duration_s / 2 - 0.1 < played_s < duration_s  # slower only on a busy machine
    recorded = content(copy)
    for sent, received in zip(content(drive), (row for row in recorded if row[1] != "/clock"), strict=True):
        assert received[:3] == sent[:3]
        padding = -len(sent[3]) % 4  # the middleware fills payloads up to whole words
        assert received[3] in (sent[3], sent[3] + bytes(padding))
    ticks = [row[0] for row in recorded if row[1] == "/clock"]
    assert abs(len(ticks) - 50 * duration_s / 2) <= 2 and ticks == sorted(ticks)


def test_a_player_gives_up_waiting_and_stops_when_told(drive, tmp_path, domain):
    env = environment(tmp_path, domain)
    lonely, looping = tmp_path / "lonely", tmp_path / "looping"
    lonely.mkdir()
    looping.mkdir()
    waiting = (drive, "--wait-for", "/tracker/ready", "--wait-timeout", 1)
    with (
        RosProcess("player", *waiting, env=env, folder=lonely) as first,
        RosProcess("player", drive, "--loop", "--rate", 0.1, env=env, folder=looping) as second,
    ):
        second.wait_for_output("playing")
        second.interrupt(signal.SIGTERM)
        assert second.wait(10) == 0, second.output()
        assert first.wait(60) == 2
        assert first.output() == "player: error: nobody said true on /tracker/ready within 1 s\n"
