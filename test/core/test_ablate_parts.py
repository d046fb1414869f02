"""The parts of `syncl ablate`: rows and digests, means by hand, one line for every mistake, processes, clocks."""

import dataclasses
import errno
import fcntl
import json
import math
import mmap
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import save_checkpoint
from syncl_core.cli import main
from syncl_core.config import SynclConfig, config_to_dict, load_config, with_values
from syncl_core.data.clips import ClipDataset
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.io.folder_lock import locked
from syncl_core.losses.ablations import OPEN_CHOICES
from syncl_core.tracking.build import build_tracker
from syncl_core.training.ablations import ABLATIONS, ablated
from syncl_core.training.comparison import conduct, cost, crew, page, places, tasks
from syncl_core.training.comparison.page_tables import direction, sparkline
from syncl_core.training.comparison.study import (
    Place,
    Study,
    choose_rows,
    file_digest,
    first_difference,
    load_study,
    planned,
    run_of,
    save_study,
)
from syncl_core.training.distributed import Workers
from syncl_core.training.run import make_run
from syncl_core.world import writer

CONFIGS = Path(__file__).parents[2] / "config"


_BY_HAND = {  # (row, seed): AMOTA, AMOTP, NDS
    ("table4a/1", 0): (0.40, 1.3, 0.5),
    ("table4a/1", 1): (0.44, 1.5, 0.5),
    ("table4a/1", 2): (0.42, 1.4, 0.5),
    ("table4a/5", 0): (0.45, 1.2, 0.4),
    ("table4a/5", 1): (0.47, 1.6, 0.4),
    ("table4a/5", 2): (0.46, 1.3, None),
    ("open/force_best", 0): (0.39, 1.3, 0.5),
    ("open/force_best", 1): (0.42, 1.5, 0.5),
    ("open/force_best", 2): (0.39, 1.4, 0.5),
}


def test_means_and_spreads_by_hand(tmp_path, capsys):
    study = Study(
        **dict(config=SynclConfig(), rows=choose_rows("4a/5,4b/gmm,open/force_best"), seeds=(0, 1, 2)),
        **dict(training=Place(data="world"), evaluation=Place(data="world")),
    )
    save_study(tmp_path, study)
    assert load_study(tmp_path) == study
    for run in planned(study):
        amota, amotp, nds = _BY_HAND[run.row, run.seed]
        scores = {"amota": amota, "amotp": amotp, "recall": 0.5, "ids": 7.0, "nds": nds, "map": 0.3}
        scores |= {"amota/car": 0.5 if run.row == "table4a/1" else amota, "amota/bus": 0.25}
        folder = tmp_path / run.folder
        folder.mkdir(parents=True)
        values = {"row": run.row, "seed": run.seed, "digest": run.digest, "version": "v", "device": "d"}
        (folder / "result.json").write_text(json.dumps(values | {"iterations": 5, "scores": scores}))
        rows = [{"iteration": i, "stats/delta": [8.0, 4.0, 1.0][i] + run.seed} for i in range(3)]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["ablate", "--report", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["evaluation"] == {"data": "world", "version": "", "split": "", "scenes": 0}
    row = results["rows"]["table4a/5"]
    assert row["metrics"]["amota"] == pytest.approx({"mean": 0.46, "std": 0.01, "count": 3})
    assert row["metrics"]["nds"] == {"mean": 0.4, "std": 0.0, "count": 2}
    # Paired by seed: +5, +3, +4 percent, and -0.1, +0.1, -0.1 metres.
    assert row["differences"]["amota"] == pytest.approx({"mean": 0.04, "std": 0.01, "count": 3})
    assert row["differences"]["amotp"]["mean"] == pytest.approx(-0.1 / 3)
    assert row["differences"]["amotp"]["std"] == pytest.approx(math.sqrt(((0.2 / 3) ** 2 * 2 + (0.4 / 3) ** 2) / 2))
    assert row["differences"]["nds"]["count"] == 2
    page = (tmp_path / "results.md").read_text()
    assert "| table4a/1 | baseline | 3 | 42.0 +- 2.0 | 1.400 +- 0.100 | 50.0 +- 0.0 | 7.0 +- 0.0 |" in page
    assert "| 44.7 (+3.9) | +4.0 +- 1.0 | same | 1.262 (-0.081) | -0.033 +- 0.115 | unclear |" in page
    assert "49.7 (+2.0) | -10.0 +- 0.0 | opposite |" in page
    assert "table4b/gmm" in page  # shares its runs with table4a/5
    assert results["rows"]["table4b/gmm"]["metrics"] == row["metrics"] and len(results["runs"]) == 9
    assert "| open/force_best |  | -2.0 +- 1.0 |  |  | +0.000 +- 0.000 |  |  | +0.0 +- 0.0 |  |" in page
    assert "| table4a/1 | 25.0 +- 0.0 | 50.0 +- 0.0 |\n| table4a/5 | +0.0 +- 0.0 | -4.0 +- 1.0 |" in page  # bus, car
    assert "| `\u2588\u2584\u2581` | 9 to 2 |" in page
    assert "Inference was not measured" in page and "bit for bit |" not in page


def test_rows_that_are_one_network_share_their_runs():
    study = Study(
        **dict(config=SynclConfig(), rows=choose_rows("4a,4b,5"), seeds=(4, 5, 6)),
        **dict(training=Place(data="world"), evaluation=Place(data="world")),
    )
    assert len(study.rows) == 14 and study.rows[0] == "table4a/1"
    runs = list(planned(study))
    assert len(runs) == 33 and len({run.digest for run in runs}) == 33 and {run.seed for run in runs[:11]} == {4}
    shared = {"table5/1": "table4a/1", "table5/5": "table4a/5", "table4b/gmm": "table4a/5"}
    for row in study.rows:
        run = run_of(study, row, 5)
        assert run.row == shared.get(row, row) and run.config.train.seed == 5
        assert with_values(run.config, ABLATIONS[row].values) == run.config
    # The digest knows the data and the start, but not what does not touch numbers.
    same = dataclasses.replace(study, config=with_values(study.config, {"train": {"workers": 9, "save_every": 7}}))
    other = [
        dataclasses.replace(study, start_digest="x"),
        dataclasses.replace(study, evaluation=Place(data="world", scenes=3)),
        dataclasses.replace(study, config=with_values(study.config, {"train": {"batch_size": 2}})),
    ]
    digests = [run_of(s, "table5/2", 4).digest for s in (study, same, *other)]
    assert digests[0] == digests[1] and len(set(digests)) == 4


@pytest.mark.parametrize("name", ["ablation_cpu", "ablation_cpu_scratch", "ablation_gpu"])
def test_the_open_choices_fit_the_presets(name, capsys):
    assert main(["ablate", str(CONFIGS / f"{name}.yaml"), "--list", "--tables", "4a/5,open"]) == 0
    assert capsys.readouterr().out.endswith(f"{3 * (2 + len(OPEN_CHOICES))} runs: seeds 0, 1, 2\n")


def test_first_weights_and_clips_are_alike_in_all_rows(tmp_path):
    """Whatever a strategy draws for its own parameters; those of helping losses that all rows have, too."""
    base = toy_config(spread_start=True, dense_weight=0.5)
    configs = [with_values(base, ABLATIONS[row].values) for row in choose_rows("4a,5/2")]
    models = [make_run(config, tmp_path, Workers(), 1).model for config in configs]
    trackers = [{**model.tracker.state_dict(), **model.dense.state_dict(prefix="dense.")} for model in models]
    clips = [ClipDataset(ToySource(), config)[3] for config in configs]
    for tracker, clip in zip(trackers[1:], clips[1:], strict=True):
        assert tracker.keys() == trackers[0].keys() and clip.names == clips[0].names
        assert all(torch.equal(value, trackers[0][name]) for name, value in tracker.items())
        assert torch.equal(clip.frames[0].images, clips[0].frames[0].images)


def test_what_a_frozen_encoder_sees_is_kept_once_for_all_runs(tmp_path, monkeypatch):
    """In the folder of the comparison, not in that of a run."""
    asked = []
    monkeypatch.setattr(tasks, "train", lambda *where, **how: asked.append((where[2], how["encoded"])))
    monkeypatch.setattr(tasks, "training_source", lambda *_: ToySource())
    place = Place(data="-")
    study = Study(
        **dict(config=toy_config(), rows=choose_rows("4a/5"), seeds=(0, 1), training=place, evaluation=place),
    )
    for run in planned(study):
        assert not conduct._task(tmp_path, run, study, "").run("cpu")
    assert len({folder for folder, _ in asked}) == len(asked) > 1 and {shared for _, shared in asked} == {
        tmp_path / "encoded"
    }


def test_rows_of_one_stage_have_baselines_of_their_own(tmp_path):
    """Table 8 trains for longer, half of it on another detector: differences to Table 4a's baseline mean nothing."""
    rows = choose_rows("8")
    assert set(rows) == {f"table8/{number}" for number in range(1, 7)} and rows[:2] == ("table8/1", "table8/4")
    assert choose_rows("8/6") == ("table8/4", "table8/6") and choose_rows("") == ("table4a/1",)
    place = Place(data="world")
    study = Study(config=SynclConfig(), rows=rows, seeds=(0, 1), training=place, evaluation=place)
    for number, run in enumerate(planned(study)):
        folder = tmp_path / run.folder
        folder.mkdir(parents=True)
        values = {"row": run.row, "seed": run.seed, "digest": run.digest, "version": "v", "device": "d"}
        amota = 0.1 * int(run.row[-1]) + 0.01 * (number % 2)
        (folder / "result.json").write_text(json.dumps(values | {"iterations": 5, "scores": {"amota": amota}}))
    results = conduct.report(tmp_path, study)
    means = {row: 100 * results["rows"][row]["differences"]["amota"]["mean"] for row in rows}
    expected = {"table8/1": 0, "table8/2": 10, "table8/3": 20, "table8/4": 0, "table8/5": 10, "table8/6": 20}
    assert means == pytest.approx(expected, abs=1.5)
    text = (tmp_path / "results.md").read_text()
    assert "| table8/6 | 48.1 (+4.3) |" in text and "| table8/3 | 42.4 (+5.9) |" in text and ", 24 epochs of " in text


def test_a_start_that_changes_during_a_comparison_is_refused(tmp_path, monkeypatch):
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"as it was")
    monkeypatch.setattr(tasks, "train", lambda *where, **how: False)
    monkeypatch.setattr(tasks, "training_source", lambda *_: ToySource())
    place = Place(data="-")
    study = Study(
        **dict(config=toy_config(), rows=choose_rows("4a/5"), seeds=(0,), training=place, evaluation=place),
        **dict(start=str(start), start_digest=file_digest(start)),
    )
    first, second = (conduct._task(tmp_path, run, study, "") for run in planned(study))
    assert not first.run("cpu")
    start.write_bytes(b"as it is now")
    with pytest.raises(InputError, match="start.safetensors: has changed since the comparison began"):
        second.run("cpu")


def test_a_start_of_another_network_is_refused_before_anything_is_drawn(tmp_path, capsys):
    """Whether it is a file or a detector that would have to be trained first."""
    narrow, wide, out = tmp_path / "narrow.yaml", tmp_path / "wide.yaml", tmp_path / "out"
    for path, width in ((narrow, 16), (wide, 32)):
        model = {"embed_dim": width, "num_heads": 2, "num_layers": 1}
        config = with_values(toy_config(), {"model": model, "track": {"slots": 4}, "train": {"clip_length": 2}})
        path.write_text(yaml.safe_dump(config_to_dict(config)))
    weights = tmp_path / "wide.safetensors"
    save_checkpoint(weights, build_tracker(load_config(wide)))
    for start in (wide, weights):
        assert main(["ablate", str(narrow), "--init", str(start), "--train-scenes", "1", "-o", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert (
            re.match(rf"syncl: error: --init {start}: \S+ has shape .*, the network needs ", line) and not out.exists()
        )
    assert main(["ablate", str(wide), "--init", str(weights), "--list"]) == 0


def test_a_run_with_damaged_settings_is_named(tmp_path):
    place = Place(data="-")
    study = Study(config=toy_config(), rows=choose_rows("4a/5"), seeds=(0,), training=place, evaluation=place)
    task = conduct._task(tmp_path, next(planned(study)), study, "")
    task.folder.mkdir(parents=True)
    (task.folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match="settings.json: damaged; remove the folder of this run"):
        task.check()


def test_what_an_earlier_version_with_fewer_keys_made_still_counts(tmp_path):
    place = Place(data="world")
    study = Study(config=toy_config(), rows=choose_rows("4a/1"), seeds=(0,), training=place, evaluation=place)
    (run,) = planned(study)
    folder = tmp_path / run.folder
    folder.mkdir(parents=True)
    stored = json.loads(json.dumps(run.settings))
    del stored["track"]["class_memory"]
    (folder / "settings.json").write_text(json.dumps(stored))
    scores = {"row": run.row, "seed": 0, "digest": "of then", "version": "v", "device": "d", "scores": {"amota": 0.5}}
    (folder / "result.json").write_text(json.dumps(scores | {"iterations": 5}))
    conduct._task(tmp_path, run, study, "").check()
    assert not conduct.report(tmp_path, study)["missing"]
    stored["track"]["slots"] += 1
    (folder / "settings.json").write_text(json.dumps(stored))
    assert conduct.report(tmp_path, study)["missing"]


def test_one_stage_is_twice_as_long_however_the_length_is_given():
    counted = with_values(SynclConfig(), {"train": {"iterations": 100}})
    assert [ablated(counted, row).train.iterations for row in ("table8/3", "table4a/5")] == [200, 100]
    assert [ablated(SynclConfig(), row).train.epochs for row in ("table8/3", "table4a/5")] == [24, 12]


def test_scenes_drawn_for_other_images_are_not_used(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(writer, "write_world", lambda root, config, **_: drawn.append((root.name, config.image_width)))
    place = Place(data="world", split="train", scenes=2)
    for width in (64, 96):
        config = with_values(toy_config(), {"image": {"width": width}})
        places.draw(tmp_path, Study(config=config, rows=(), seeds=(), training=place, evaluation=place))
    assert drawn == [(f"world-train-2-{width}", width) for width in (64, 64, 96, 96)]


def test_rows_nobody_asked_for_need_not_fit():
    """Table 8's StreamPETR cannot have a neutral start."""
    config = with_values(SynclConfig(), {"model": {"neutral_start": True}})
    with pytest.raises(InputError, match="neutral_start"):
        with_values(config, ABLATIONS["table8/4"].values)
    study = Study(
        **dict(config=config, rows=choose_rows("4a/1"), seeds=(0,)),
        **dict(training=Place(data="world"), evaluation=Place(data="world")),
    )
    assert [run.row for run in planned(study)] == ["table4a/1"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "syncl ablate needs CONFIG and -o OUT, or --report OUT"),
        (["{config}"], "syncl ablate needs CONFIG and -o OUT"),
        (["{config}", "-o", "{out}", "--tables", "9"], "--tables 9: unknown; tables: 4a, 4b, 5"),
        (["{config}", "-o", "{out}", "--tables", "4a/9"], "--tables 4a/9: unknown"),
        (["{config}", "-o", "{out}", "--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (["{config}", "-o", "{out}", "--jobs", "0"], "--jobs: expected 1 or more, got 0"),
        (["{config}", "-o", "{out}", "--init", "/no.safetensors"], "/no.safetensors: cannot read the weights"),
        (["{config}", "-o", "{out}", "--set", "model.framework=none"], "{config}: model.framework: none has no tracks"),
        (["{config}", "-o", "{out}", "--data", "/nowhere"], "/nowhere: no such folder; expected a nuScenes root"),
        (["{config}", "-o", "{out}", "--data", "/d", "--train-scenes", "3"], "--train-scenes: only the world is drawn"),
        (["{config}", "-o", "{out}", "--thresholds", "0.2"], "--thresholds: thresholds are only chosen on scenes"),
        (["{config}", "-o", "{out}", "--tune-split", "val"], "--tune-split: thresholds are only chosen on"),
        (["{config}", "-o", "{out}", "--tune-scenes", "8"], "--tune-scenes: thresholds are only chosen on"),
        (
            ["{config}", "-o", "{out}", "--set", "train.epochs=6"],
            "--set train.epochs: this training counts in train.iterations (500)",
        ),
        (["{config}", "-o", "{out}", "--tables", "4a,8"], "--tables 8: these rows train for longer than others"),
        (["--report", "{out}"], "{out}/study.json: no such file"),
        (["--report", "{out}", "{config}"], "syncl ablate --report OUT writes into OUT; leave out CONFIG"),
        (["--report", "{out}", "--seeds", "5"], "syncl ablate --report OUT writes into OUT; leave out --seeds"),
        (["--evaluate", "{out}", "-o", "{out}x", "--seeds", "4"], "--seeds is for training; --evaluate OUT takes the"),
        (["--evaluate", "{out}", "-o", "{out}x", "--set", "a=1"], "--set is for training; --evaluate OUT takes the"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    known = {"config": CONFIGS / "ablation_gpu.yaml", "out": tmp_path / "out"}
    assert main(["ablate", *(a.format(**known) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"syncl: error: {message.format(**known)}") and error.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


def test_scenes_drawn_for_a_comparison_are_all_used(tmp_path, monkeypatch):
    """A tracker's and a detector's own `train.scenes` are for trainings by themselves; else the page tells them."""
    studies, nothing = [], {"runs": [], "missing": {}}
    monkeypatch.setattr(conduct, "compare", lambda folder, study, *rest: studies.append(study) or nothing)
    names = [str(CONFIGS / f"mutr3d_world_256x704{which}.yaml") for which in ("", "_detector")]
    asked = ["ablate", names[0], "--init", names[1], "--set", "train.first_scene=7", "-o", str(tmp_path / "out")]
    for own in ([], ["--train-scenes", "80"]):
        assert main([*asked, *own]) == 0
    for study, kept in zip(studies, ((7, 60, 60), (0, 0, 0)), strict=True):
        train = study.config.train
        assert (train.first_scene, train.scenes, study.detector.train.scenes) == kept
    assert page._training(studies[0]) == "`world`, split `train`, 60 scenes at most, from scene 7 on"
    assert page._training(studies[1]) == "80 scene(s) of `world`, split `train`"


def test_the_list_says_what_would_be_trained(capsys):
    assert main(["ablate", str(CONFIGS / "ablation_cpu.yaml"), "--list", "--seeds", "3"]) == 0
    text = capsys.readouterr().out
    assert text.endswith("33 runs: seeds 0, 1, 2\n") and re.search(r"table4b/gmm +table4a/5 ", text)


@pytest.mark.parametrize(
    ("name", "first", "framework"),
    [("ablation_gpu", "ablation_gpu_detector", "none"), ("ablation_cpu", "ablation_cpu_detector", "mutr3d")],
)
def test_presets_start_from_their_detector(name, first, framework, capsys):
    files = [str(CONFIGS / f"{file}.yaml") for file in (name, first)]
    assert main(["ablate", files[0], "--init", files[1], "--list"]) == 0
    assert f"the detector {first}, then 33 runs" in capsys.readouterr().out
    tracker, detector = (config_to_dict(load_config(file)) for file in files)
    assert tracker["image"] == detector["image"] and tracker["classes"] == detector["classes"]
    assert tracker["model"] | {"framework": framework} == detector["model"]


@dataclasses.dataclass(frozen=True)
class _Errand:
    """A task without a network."""

    name: str
    folder: Path
    what: str

    def run(self, device: str) -> bool:
        (self.folder / "began").write_text(device)
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "fail":
            raise ValueError("two\nlines")
        if self.what == "refuse":
            raise InputError("not with me")
        if self.what == "wait":
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                (self.folder / "saved").write_text("")
                return False
        return self.what != "stop"


def test_a_crew_says_why_somebody_broke(tmp_path):
    errands = [_Errand(what, tmp_path / what, what) for what in ("die", "fail", "refuse", "stop", "succeed")]
    broken = crew.conduct(errands, 2, "device {}".format)
    assert broken == {
        "die": "was ended by signal 9; did the memory run out?",
        "fail": f"ValueError: two lines; see {tmp_path / 'fail' / 'run.log'}",
        "refuse": "not with me",
        "stop": "was stopped from outside; start again to go on",
    }
    assert "Traceback" in (tmp_path / "fail" / "run.log").read_text()
    assert {(tmp_path / e.name / "began").read_text() for e in errands} <= {"device 0", "device 1"}
    assert {name: (tmp_path / name / "error.txt").read_text().strip() for name in broken} == broken


def test_an_interrupted_crew_saves_and_stops(tmp_path):
    errands = [_Errand(f"{i}", tmp_path / f"{i}", "wait") for i in range(3)]

    def look(working):
        if len(working) == 2 and all((errand.folder / "began").exists() for errand in working):
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        crew.conduct(errands, 2, lambda _: "", look)
    assert time.monotonic() - started < 40
    assert [(tmp_path / f"{i}" / "saved").exists() for i in range(3)] == [True, True, False]


def test_a_setting_that_was_not_there_is_called_nothing():
    assert first_difference({"start": {"file": ""}}, {"start": {"file": "x"}}) == "start.file: was nothing, is x"
    assert first_difference({"a": 0}, {"a": None}) == "a: was 0, is nothing" and not first_difference(
        {"a": 0}, {"a": 0}
    )


def test_a_folder_has_one_command_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another syncl process is at work here"):
        with locked(tmp_path):
            pytest.fail("both have it")
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_guards_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_inference_is_compared_bit_for_bit():
    config, source = toy_config(), ToySource()
    frames = [make_frame(source.frame_set("toy-0", i), config.image) for i in range(4)]
    trackers = [build_tracker(config) for _ in range(2)]
    for tracker in trackers:
        tracker.STReasoner.track_cls[-1].bias.data += 4.0  # rows become tracks
    assert cost.inference_times(*trackers, frames)["inference_equal"] is True
    with torch.no_grad():
        trackers[1].STReasoner.track_reg[-1].bias[0] += 1e-6
    assert cost.inference_times(*trackers, frames)["inference_equal"] is False


def test_peak_memory_begins_anew():
    before = cost._reset_peak(torch.device("cpu"))
    if not before:
        pytest.skip("this system does not tell a process's memory")
    pages = mmap.mmap(-1, 64 * 2**20)  # not from the heap, which may have so much room already
    for start in range(0, len(pages), mmap.PAGESIZE):
        pages[start] = 1
    pages.close()
    assert cost._peak(torch.device("cpu")) - before > 60 * 2**20
    assert cost._peak(torch.device("cpu")) - cost._reset_peak(torch.device("cpu")) > 50 * 2**20
    assert cost._peak(torch.device("cpu")) - cost._reset_peak(torch.device("cpu")) < 10 * 2**20


def test_sparklines_and_directions():
    assert sparkline([]) == "" and sparkline([5.0, 5.0]) == "\u2581\u2581"
    assert sparkline([0.0, 7.0, 3.0]) == "\u2581\u2588\u2584" and len(sparkline(list(range(1000)))) == 24
    assert sparkline([0.0, 2.0, 8.0, 6.0], columns=2) == "\u2581\u2588"
    spread = {"mean": -0.2, "std": 0.1, "count": 3}
    assert [direction(x, spread) for x in (-1.0, 1.0)] == ["same", "opposite"]
    assert direction(1.0, spread | {"std": 0.2}) == direction(1.0, spread | {"std": None}) == "unclear"
    assert direction(1.0, {"mean": None, "std": None, "count": 0}) == "-"
