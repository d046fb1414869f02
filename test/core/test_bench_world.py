"""`syncl bench world` times what the world's source does, key frame by key frame, and says it in a table and a file."""

import json

import pytest

from syncl_core.bench import world
from syncl_core.bench.world import TOGETHER, WorldTimes, measure_world, world_table
from syncl_core.cli import main
from syncl_core.world.source import KEY_FRAMES


class Slow:
    """A source on a clock of its own: a scene takes 5 s, a call 1 s and 2 s a key frame more, ground truth 3 s."""

    def __init__(self, split, *, image_width, image_height, num_scenes, kept_scenes, device):
        self.scene_names, self.now, self.calls = tuple(f"scene {i}" for i in range(num_scenes)), 0.0, []
        assert (split, image_width, image_height, device) == ("train", 352, 128, "cpu") and kept_scenes >= num_scenes

    def frame_set(self, scene, index):
        return self.frame_sets(scene, (index,))

    def frame_sets(self, scene, indices):
        self.calls.append((scene, tuple(indices)))
        self.now += 1 + 2 * len(indices)

    def ground_truth(self, scene, index):
        self.now += 3

    def unseen_frame_set(self, scene, index):
        self.now += 5


def test_every_key_frame_is_timed_alone_and_with_others(monkeypatch):
    made = []
    monkeypatch.setattr(world, "WorldSource", lambda *given, **more: made.append(Slow(*given, **more)) or made[0])
    monkeypatch.setattr(world.time, "perf_counter", lambda: made[0].now)
    times = measure_world((352, 128), "cpu", frames=TOGETHER + 2, warmup=1)
    assert times.alone == (3.0,) * (TOGETHER + 2) and times.truth == (3.0,) * (TOGETHER + 2)
    assert times.together == (2 + 1 / TOGETHER,) * TOGETHER + (2.5,) * 2 and times.new_scene == (5.0, 5.0)
    drawn = [indices for scene, indices in made[0].calls if scene == "scene 1"]
    assert len(drawn) == TOGETHER + 1 and drawn[-1] == tuple(i for (i,) in drawn[:-1])
    assert (drawn[-1][0], drawn[-1][-1]) == (0, KEY_FRAMES - 1)  # streets fill and empty: all over the scene
    assert [scene for scene, _ in made[0].calls].count("scene 0") == 2  # the warm-up's


def test_what_is_timed_is_the_world():
    times = measure_world((64, 24), "cpu", frames=1, warmup=0)
    assert all(min(values) > 0 for values in (times.alone, times.together, times.truth, times.new_scene))


def test_rates_are_key_frames_over_time():
    times = {"alone": (1, 9), "together": (0.1, 0.3), "truth": (0.2, 0.4), "new_scene": (1.0,)}
    two = WorldTimes(width=64, height=24, device="cpu", **times)
    assert two.per_second == pytest.approx(5.0) and two.per_second_with_truth == pytest.approx(2.0)
    cells = [cell.strip() for cell in world_table([two], markdown=True).splitlines()[2].split("|")[1:-1]]
    assert cells[:4] == ["24x64", "cpu", "1000.0 / 9000.0", "100.0 / 300.0"]
    assert cells[4:] == ["200.0 / 400.0", "1000.0 / 1000.0", "5.0", "2.0"]


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    asked = ["--size", "64x24", "--frames", "2", "--warmup", "0", "--device", "cpu", "--markdown"]
    assert main(["bench", "world", *asked, "--json", str(tmp_path / "world.json")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 3 and rows[2].startswith("| 24x64 |")
    (figures,) = json.loads((tmp_path / "world.json").read_text())["world"]
    assert len(figures["alone"]) == 2 and f"{figures['per_second']:.1f} |" in rows[2]


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        (["--device", "abacus"], "'abacus'"),
        (["--device", "cuda:99"], "'cuda:99'"),
        (["--frames", "0"], "--frames"),
        (["--size", "8x4"], "image_width"),
        (["--size", "64x64"], "image_height"),
        (["-c", "petr_vov_320x800"], "--config is not for this"),
        (["--rate", "3"], "--rate is not for this"),
    ],
)
def test_a_bad_request_is_one_line(arguments, culprit, capsys):
    assert main(["bench", "world", "--warmup", "0", *arguments]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("syncl: error: ")]
    assert len(errors) == 1 and culprit in errors[0] and not captured.out
