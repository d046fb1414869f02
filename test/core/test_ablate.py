"""`syncl ablate` as a whole: every run once, nothing lost by a kill, nothing done twice, broken runs by name."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nuscenes_fixture import SCENES, VERSION, write_tiny_nuscenes

from syncl_core.checkpoint import load_checkpoint
from syncl_core.cli import main
from syncl_core.training.comparison.study import load_study
from syncl_core.training.distributed import Workers
from syncl_core.training.progress import read_log
from syncl_core.training.thresholds import at_threshold

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
pytest.importorskip("motmetrics", reason="motmetrics is not installed")
from syncl_core.data.nuscenes_clips import NuScenesClips  # noqa: E402
from syncl_core.training.evaluate import Evaluation  # noqa: E402

_CONFIG = """
name: tiny
image: {height: 32, width: 64}
model: {embed_dim: 16, num_queries: 8, num_layers: 1, num_heads: 2, ffn_dim: 16, reasoning_layers: 1, depth_bins: 4,
  dropout: 0.0, class_prior: 0.5, neutral_start: true}
track: {slots: 4}
train: {clip_length: 2, iterations: 4, workers: 0, log_every: 1, save_every: 1, freeze_backbone: true}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny data set and a configuration."""
    folder = tmp_path_factory.mktemp("ablate")
    write_tiny_nuscenes(folder / "data", sweeps_between=0)
    (folder / "tiny.yaml").write_text(_CONFIG)
    return folder


def _arguments(place: Path, out: str) -> list[str]:
    data = ["--data", str(place / "data"), "--split", "tiny_val", "--eval-split", "tiny_val", "--device", "cpu"]
    what = ["--tables", "4a/5", "--seeds", "2", "--jobs", "2"]
    return ["ablate", str(place / "tiny.yaml"), *data, *what, "-o", str(place / out)]


@pytest.fixture(scope="module")
def whole(place):
    """A comparison of two rows with two seeds that nobody disturbed."""
    assert main(_arguments(place, "whole")) == 0
    return place / "whole"


def _numbers(folder: Path) -> dict:
    """results.json without what a clock or a scale said."""
    results = json.loads((folder / "results.json").read_text())
    for part in (*results["rows"].values(), *results["runs"]):
        for name in ("measured", "cost", "version"):
            part.pop(name, None)
    return results


def test_every_run_is_there_with_all_its_numbers(whole):
    results = json.loads((whole / "results.json").read_text())
    runs = {(run["row"], run["seed"]): run for run in results["runs"]}
    assert runs.keys() == {(row, seed) for row in ("table4a/1", "table4a/5") for seed in (0, 1)}
    assert "/" not in results["evaluation"]["data"]  # the file is shown to others
    assert not results["missing"] and len({run["digest"] for run in results["runs"]}) == 4
    for (row, seed), run in runs.items():
        folder = whole / row / f"seed-{seed}"
        scores = json.loads((folder / "evaluations" / "iteration-0000004" / "scores.json").read_text())
        assert run["scores"] == {name: None if math.isnan(value) else value for name, value in scores.items()}
        assert {"amota", "amotp", "recall", "ids", "nds", "map", "amota/car"} <= scores.keys()
        assert run["iterations"] == 4 and run["version"] and run["device"] and run["measured"]["step_seconds"] > 0
        assert json.loads((folder / "settings.json").read_text())["train"]["seed"] == seed
        assert bool(run["curves"]) == (row == "table4a/5")
    # One seed: the same first weights and clips in both rows, so the baseline's own losses begin equal.
    first = {key: read_log(whole / key[0] / f"seed-{key[1]}")[0] for key in runs}
    for seed in (0, 1):
        assert first["table4a/1", seed]["losses/class"] == first["table4a/5", seed]["losses/class"]
    assert first["table4a/1", 0]["losses/class"] != first["table4a/1", 1]["losses/class"]
    # What training needs is gone at inference, or makes no difference.
    costs = {row: results["rows"][row]["cost"] for row in results["rows"]}
    assert costs["table4a/5"]["inference_equal"] is True and costs["table4a/5"]["inference_frames"] == 4
    assert "inference_equal" not in costs["table4a/1"]
    for row in costs.values():
        assert row["step_seconds"] > 0 and 0.2 < row["step_ratio"] < 5


def test_again_does_nothing_twice(place, whole, capsys):
    files = {
        path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != "results.json" and path.is_file()
    }
    before = (whole / "results.json").read_text()
    assert main(_arguments(place, "whole")) == 0
    said = capsys.readouterr()
    assert "4 runs -> " in said.out and (whole / "results.json").read_text() == before
    assert f"note: scenes to evaluate on are trained on, too: {SCENES[1]}; the figures" in said.err
    changed = {path.name for path, at in files.items() if path.stat().st_mtime_ns != at}
    assert changed <= {"results.json", "results.md", "results.png", "study.json", ".lock"}
    page = (whole / "results.md").read_text()
    (whole / "results.md").unlink()
    assert main(["ablate", "--report", str(whole)]) == 0 and (whole / "results.md").read_text() == page
    assert "- a run sees 4 clips, 0.0012 % of the paper's 337,560: a reduced budget" in page


def test_rows_of_earlier_calls_stay_on_the_page(place, whole):
    numbers = _numbers(whole)
    assert main([*_arguments(place, "whole"), "--tables", "4a/1"]) == 0
    assert _numbers(whole) == numbers and "table4a/5" in numbers["rows"]


def test_the_same_networks_are_evaluated_on_other_scenes(place, whole, capsys):
    other = place / "other"
    write_tiny_nuscenes(other, sweeps_between=0, gaps_ms=(500,) * 5)  # longer scenes
    arguments = ["ablate", "--evaluate", str(whole), "--eval-data", str(other), "--eval-split", "tiny_val"]
    weights = {path: path.stat().st_mtime_ns for path in whole.rglob("last.*")}
    assert main([*arguments, "-o", str(place / "again")]) == 0
    assert "4 runs -> " in capsys.readouterr().out
    ours, theirs = ({(run["row"], run["seed"]): run for run in _numbers(f)["runs"]} for f in (place / "again", whole))
    assert ours.keys() == theirs.keys() and weights == {path: path.stat().st_mtime_ns for path in whole.rglob("last.*")}
    for key, run in ours.items():
        assert run["scores"] != theirs[key]["scores"] and run["digest"] != theirs[key]["digest"]
        assert (run["curves"], run["iterations"]) == (theirs[key]["curves"], theirs[key]["iterations"])
        assert not list((place / "again" / key[0] / f"seed-{key[1]}").glob("last.*"))
    # On the scenes of the comparison itself nothing else comes out, with as many threads: a CPU's sums depend on them.
    arguments[arguments.index(str(other))] = str(place / "data")
    arguments += ["--jobs", "2"]
    assert main([*arguments, "-o", str(place / "same")]) == 0
    assert [run["scores"] for run in _numbers(place / "same")["runs"]] == [run["scores"] for run in theirs.values()]
    assert main([*arguments, "-o", str(place / "again")]) == 2
    assert "holds another run, evaluation.data: was " in capsys.readouterr().err
    assert main([*arguments, "-o", str(whole)]) == 2
    assert "needs another folder" in capsys.readouterr().err


def test_every_run_gets_the_threshold_that_is_best_on_other_scenes(place, whole, capsys):
    other = place / "tuning"
    write_tiny_nuscenes(other, sweeps_between=0, gaps_ms=(500,) * 5)
    arguments = ["ablate", "--evaluate", str(whole), "--eval-data", str(place / "data"), "--eval-split", "tiny_val"]
    tuning = ["--tune-data", str(other), "--tune-split", "tiny_val", "--thresholds", "0.9", "0.95"]
    assert main([*arguments, *tuning, "-o", str(place / "tuned")]) == 2
    assert f"--tune-data: {SCENES[1]} is a scene to evaluate on, too" in capsys.readouterr().err
    (other / VERSION / "splits.json").write_text(json.dumps({"tiny_val": [SCENES[0]]}))
    assert main([*arguments, *tuning, "-o", str(place / "tuned")]) == 0
    page = (place / "tuned" / "results.md").read_text()
    assert "every run with the threshold, of 0.9, 0.95, of its highest AMOTA on `tuning`, split `tiny_val`: " in page
    for run in _numbers(place / "tuned")["runs"]:
        folder = place / "tuned" / run["row"] / f"seed-{run['seed']}"
        amota = {
            name: json.loads((folder / "tuning" / f"threshold-{name}" / "scores.json").read_text())["amota"]
            for name in ("0.9", "0.95")
        }
        assert run["tuning"] == amota and amota[f"{run['threshold']:g}"] == max(amota.values())
        tracker = load_checkpoint(whole / run["row"] / f"seed-{run['seed']}" / "last.safetensors")
        clips = NuScenesClips(place / "data", tracker.config, "tiny_val")
        expected = Evaluation(clips, place / "by-hand", Workers())(at_threshold(tracker, run["threshold"]), 4)
        assert run["scores"] == {name: None if math.isnan(value) else value for name, value in expected.items()}
        # Scores of networks that know nothing are alike; their tracks are not.
        file = Path("iteration-0000004") / "tracks.json"
        tracks = (folder / "evaluations" / file).read_text()
        untuned = (whole / run["row"] / f"seed-{run['seed']}" / "evaluations" / file).read_text()
        assert run["threshold"] == 0.9 and tracks == (place / "by-hand" / file).read_text() != untuned
    # Again, nothing is done twice; another choice of thresholds is another comparison.
    done = {path: path.stat().st_mtime_ns for path in (place / "tuned").rglob("result.json")}
    assert main([*arguments, *tuning, "-o", str(place / "tuned")]) == 0 and len(done) == 4
    assert done == {path: path.stat().st_mtime_ns for path in done}
    capsys.readouterr()
    assert main([*arguments, *tuning[:-1], "-o", str(place / "tuned")]) == 2
    assert "tuning.thresholds: was [0.9, 0.95], is [0.9]" in capsys.readouterr().err
    assert main([*arguments, *tuning[:-1], "0", "-o", str(place / "none")]) == 2
    study = load_study(place / "tuned")
    assert study.tuning.thresholds == (0.9, 0.95) and load_study(whole).tuning is None


def _unfinished(folder: Path) -> list[Path]:
    """Runs that have a snapshot but no result."""
    return [path.parent for path in folder.rglob("last.pt") if not (path.parent / "result.json").exists()]


def test_killed_and_called_again_gives_equal_results(place, whole):
    """kill -9 for the command and one of its runs; the other run has lost its owner, saves and stops by itself."""
    code = "import sys; from syncl_core.cli import main; main(sys.argv[1:])"
    arguments = [*_arguments(place, "killed"), "--no-costs"]
    root = Path(__file__).parents[2]
    command = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, cwd=root)
    folder, deadline = place / "killed", time.monotonic() + 300
    while not _unfinished(folder) and command.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    caught = _unfinished(folder)
    os.kill(command.pid, signal.SIGKILL)
    assert caught, command.stderr.read().decode()
    os.kill(int((caught[0] / ".lock").read_text()), signal.SIGKILL)
    command.wait()
    assert not (caught[0] / "result.json").exists() and not (folder / "results.json").exists()
    assert main(arguments) == 0
    assert "Costs were not measured." in (folder / "results.md").read_text()
    assert "Measured after all runs" in (whole / "results.md").read_text()
    assert _numbers(folder) == _numbers(whole)
    assert [row["iteration"] for row in read_log(caught[0])] == list(range(1, 5))


def test_a_broken_run_is_named_and_the_others_stand(place, whole, capsys):
    numbers, run = _numbers(whole), whole / "table4a" / "5" / "seed-1"
    (run / "result.json").unlink()
    snapshot = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(snapshot[:1000])
    assert main(_arguments(place, "whole")) == 2
    reason = f"{run / 'last.pt'}: truncated or not a snapshot"
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"syncl: error: table4a/5, seed 1: {reason}")
    page, results = (whole / "results.md").read_text(), _numbers(whole)
    assert f"- table4a/5, seed 1: {reason}" in page and results["missing"].keys() == {"table4a/5, seed 1"}
    assert results["rows"]["table4a/5"]["seeds"] == [0] and results["rows"]["table4a/1"] == numbers["rows"]["table4a/1"]
    (run / "last.pt").write_bytes(snapshot)
    assert main(_arguments(place, "whole")) == 0
    assert _numbers(whole) == numbers and not (run / "error.txt").exists()


def test_another_configuration_needs_another_folder(place, whole, capsys):
    assert main([*_arguments(place, "whole"), "--set", "train.learning_rate=0.5"]) == 2
    expected = (
        f"{whole / 'table4a/1/seed-0'}: holds another run, train.learning_rate: was 0.0002, is 0.5; choose another -o"
    )
    assert capsys.readouterr().err == f"syncl: error: {expected}\n"
    assert load_study(whole).config.train.learning_rate == 0.0002
    assert main([*_arguments(place, "whole"), "--eval-data", "world", "--eval-split", "val"]) == 2
    assert "holds another run, evaluation.data: was " in capsys.readouterr().err  # said before scenes are drawn
