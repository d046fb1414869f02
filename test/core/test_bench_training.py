"""`syncl bench train`: steps of a row and of the baseline take turns; what a frozen encoder makes is not timed."""

import json

import pytest
import torch
import yaml
from train_fixture import ToySource, toy_config

from syncl_core.bench import training
from syncl_core.bench.operations import Operations
from syncl_core.cli import main
from syncl_core.config import SynclConfig, with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.training.distributed import Workers
from syncl_core.training.encoded import EncodedFrames
from syncl_core.training.run import make_run

TINY = "image: {height: 32, width: 80}\nmodel: {num_layers: 1, num_queries: 8}\ntrack: {slots: 8}\n"


def test_step_times_take_turns_on_the_same_clips(tmp_path, monkeypatch):
    """A clock that says: the row takes three times as long."""
    config, calls, now = toy_config(syncl=False), [], [0.0]
    clips = [collate([ClipDataset(ToySource(), config)[i]]) for i in range(2)]
    row, baseline = (make_run(config, tmp_path, Workers(), 1) for _ in range(2))

    def optimise(run, clip, iteration):
        calls.append((run is row, clip is clips[iteration % 2], iteration))
        now[0] += 0.3 if run is row else 0.1

    monkeypatch.setattr(training, "optimise", optimise)
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    times = training.step_times(row, baseline, clips, clips)
    assert times["step_seconds"] == pytest.approx(0.3) and times["baseline_step_seconds"] == pytest.approx(0.1)
    assert times["step_ratio"] == pytest.approx(3.0) and times["step_ratio_spread"] == pytest.approx(0.0, abs=1e-9)
    assert all(same for _, same, _ in calls) and len(calls) == 28
    assert [c[0] for c in calls[:4]] == [False, True, True, False]
    calls.clear()
    assert (
        training.step_times(row, baseline, clips, clips, warmup=0, pairs=1)["step_ratio_spread"] == 0.0
        and len(calls) == 2
    )


def test_a_row_with_a_length_of_its_own_is_measured_on_it(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "step_times", lambda *given: seen.append(given) or {})
    config = with_values(SynclConfig(), yaml.safe_load(TINY))
    training.measure_steps(config, "table7/2", "cpu", warmup=0, pairs=1)
    ((row, baseline, ours, theirs, *_),) = seen
    assert [len(ours[0].frames), len(theirs[0].frames)] == [2, 3]
    assert ours[0].names[0].split()[-1] == theirs[0].names[0].split()[-1]  # the key frame they end with
    assert row.config.train.clip_length == 2 and baseline.config.train.clip_length == 3


def test_operations_are_those_that_compute():
    weight = torch.ones(2, 3, requires_grad=True)
    with Operations() as operations:
        total = torch.empty(3, 2).fill_(2.0).T.reshape(6) @ weight.reshape(6)  # fill, copy, dot
        assert operations.count == 3
        total.backward()  # ones, and a product
    assert operations.count == 5


def test_the_command_tells_the_ratio(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    asked = ["--frames", "2", "--warmup", "0", "--set", "train.clip_length=2", "--device", "cpu", "--markdown"]
    asked += ["--json", str(tmp_path / "steps.json")]
    assert main(["bench", "train", "-c", str(config), *asked]) == 0
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in cells] == ["row", "---------", "table4a/1", "table4a/5"]
    (_, theirs, one, few), (_, ours, ratio, more) = cells[2:]
    assert 500 < int(few) < int(more) < 2 * int(few)
    assert json.loads((tmp_path / "steps.json").read_text())["step_seconds"] == pytest.approx(float(ours), abs=1e-3)
    assert one == "1" and float(theirs) > 0 and float(ours) > 0 and 0.1 < float(ratio.split()[0]) < 10


def test_a_frozen_encoder_has_seen_all_clips_before(tmp_path, monkeypatch):
    train = {"freeze_encoder": True, "resize": [1.0, 1.0], "grid_mask": 0.0, "flip": 0.0}
    model = {"framework": "mutr3d", "detector": "detr3d", "num_queries": 20}
    config = with_values(toy_config(), {"model": model, "train": train})
    events = []
    monkeypatch.setattr(training, "training_source", lambda *_: ToySource())
    monkeypatch.setattr(training, "optimise", lambda run, clip, i: events.append("step"))
    see = EncodedFrames.__call__
    monkeypatch.setattr(EncodedFrames, "__call__", lambda self, clip: events.append("see") or see(self, clip))
    training.measure_steps(config, "table4a/5", "cpu", warmup=1, pairs=1)
    # Two batches, two rows; then each row's operations are counted once, on maps that are known.
    assert events == ["see"] * 4 + ["step"] * 4 + ["see"] * 2


def test_no_scenes_are_opened_that_are_not_timed(monkeypatch):
    """Room on the disk is asked for by the scene."""
    seen = []
    monkeypatch.setattr(training, "training_source", lambda *args: seen.append(args[3].train) or ToySource())
    monkeypatch.setattr(training, "optimise", lambda *_: None)
    config = with_values(toy_config(), {"train": {"scenes": 60, "first_scene": 3}})
    training.measure_steps(config, "table4a/5", "cpu", warmup=1, pairs=1)
    assert [(train.scenes, train.first_scene, train.iterations) for train in seen] == [(0, 0, 2)]


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        ([], "-c"),
        (["-c", "a.yaml", "-c", "b.yaml"], "-c"),
        (["-c", "CONFIG", "--ablation", "table9/1"], "table9/1"),
        (["-c", "CONFIG", "--set", "model.framework=none"], "model.framework"),
        (["-c", "CONFIG", "--set", "train.epoch=1"], "train.epoch"),
        (["-c", "CONFIG", "--frames", "0"], "--frames"),
        (["-c", "CONFIG", "--warmup", "-1"], "--warmup"),
        (["-c", "CONFIG", "--precision", "bf16"], "--set train.precision=bf16"),
        (["-c", "CONFIG", "--size", "160x90"], "--size"),
    ],
)
def test_a_bad_request_is_one_line(arguments, culprit, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    assert main(["bench", "train", *(str(config) if a == "CONFIG" else a for a in arguments)]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("syncl: error: ")]
    assert len(errors) == 1 and culprit in errors[0] and not captured.out
