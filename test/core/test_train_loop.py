"""The loop: it learns, it stops cleanly, and a killed run resumed is the run that was never killed."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import load_checkpoint, save_checkpoint
from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset
from syncl_core.errors import InputError
from syncl_core.losses.criterion import Criterion
from syncl_core.tracking.build import build_tracker
from syncl_core.training import run, snapshot
from syncl_core.training.clip_model import ClipModel
from syncl_core.training.progress import read_log
from syncl_core.training.run import train
from syncl_core.training.shares import clip_gradients

HELPERS = Path(__file__).parent


_VARIED = dict(
    iterations=8, clip_length=2, save_every=3, resize=(0.9, 1.2), flip=0.5, grid_mask=0.7, batch_norm="trained"
)


def _varied_config(**train):
    """Everything that is random takes part."""
    config = toy_config(**(_VARIED | train))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.2))


def _curve(folder: Path) -> list[dict]:
    rows = read_log(folder)
    return [{k: v for k, v in row.items() if k not in ("seconds", "data_share")} for row in rows]


_KILLED_RUN = """
import sys
sys.path[:0] = [{helpers!r}]
from pathlib import Path
from test_train_loop import ToySource, _varied_config
from syncl_core.training.run import train
import torch
torch.set_num_threads(1)
train(_varied_config(workers=1), ToySource(), Path({folder!r}), resume={resume})
"""


def _start_run(folder: Path, resume: bool = False, hang_up=signal.SIG_DFL, **how) -> subprocess.Popen:
    """`hang_up`: what it does at SIGHUP, whatever these tests were started by."""
    code = _KILLED_RUN.format(helpers=str(HELPERS), folder=str(folder), resume=resume)
    how |= {"stderr": subprocess.PIPE, "cwd": HELPERS.parents[1]}
    return subprocess.Popen(
        [sys.executable, "-c", code], preexec_fn=lambda: signal.signal(signal.SIGHUP, hang_up), **how
    )


def _wait_for_rows(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "log.jsonl").is_file() and len(read_log(folder)) >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"the run did not get this far: {process.stderr.read().decode()[-2000:]}")


def test_killed_and_resumed_is_never_killed(tmp_path):
    """kill -9 after five of eight steps: the resumed run repeats the fourth, from the snapshot, and ends bit-equal."""
    torch.set_num_threads(1)
    assert train(_varied_config(), ToySource(), tmp_path / "whole")
    process = _start_run(tmp_path / "killed")
    _wait_for_rows(tmp_path / "killed", 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read_log(tmp_path / "killed")) < 8 and (tmp_path / "killed" / "last.pt").is_file()
    resumed = _start_run(tmp_path / "killed", resume=True)
    assert resumed.wait(timeout=120) == 0, resumed.stderr.read().decode()
    whole, killed = _curve(tmp_path / "whole"), _curve(tmp_path / "killed")
    assert [row["iteration"] for row in killed] == list(range(1, 9))
    assert whole == killed
    first, second = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "killed"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops_and_the_run_goes_on(number, tmp_path):
    """SIGHUP comes when a terminal is closed, or its connection lost."""
    process = _start_run(tmp_path)
    _wait_for_rows(tmp_path, 2, process)
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    rows = read_log(tmp_path)
    assert 2 <= len(rows) < 8
    message = process.stderr.read().decode()
    assert f"interrupted after {len(rows)} iterations; go on with --resume" in message and "Traceback" not in message
    assert train(_varied_config(), ToySource(), tmp_path, resume=True)
    assert [row["iteration"] for row in read_log(tmp_path)] == list(range(1, 9))


def test_under_nohup_a_run_goes_on(tmp_path):
    process = _start_run(tmp_path, hang_up=signal.SIG_IGN)
    _wait_for_rows(tmp_path, 2, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0 and len(read_log(tmp_path)) == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_saves_too(number, tmp_path):
    """As torchrun, timeout, batch systems and terminals send it: to the processes that decode clips as well."""
    process = _start_run(tmp_path, start_new_session=True)
    _wait_for_rows(tmp_path, 2, process)
    for _ in range(2):  # the system's, and torchrun's
        os.killpg(process.pid, number)
        time.sleep(0.05)
    assert process.wait(timeout=60) == 0, process.stderr.read().decode()
    rows = read_log(tmp_path)
    assert 2 <= len(rows) < 8 and (tmp_path / "last.pt").is_file()
    message = process.stderr.read().decode()
    assert f"interrupted after {len(rows)} iterations" in message and "Traceback" not in message


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(content, path):
        path.write_bytes(b"half of")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"last.pt: cannot write it: .*unexpected pos") as caught:
        train(toy_config(iterations=1), ToySource(), tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*pt*"))


def test_a_loss_that_is_not_finite_names_the_clip_and_writes_nothing(tmp_path):
    """A learning rate beyond reason: some step's loss is not finite, and the snapshot is the one from before it."""
    wild = dict(learning_rate=1e30, max_gradient_norm=1e30, save_every=1)
    with pytest.raises(InputError, match=r"^iteration [2-8], toy-\d key frames \d to \d: ") as caught:
        train(toy_config(iterations=8, **wild), ToySource(), tmp_path)
    assert "\n" not in str(caught.value)
    done = int(str(caught.value).split(",")[0].removeprefix("iteration ")) - 1
    assert len(read_log(tmp_path)) == done
    assert torch.load(tmp_path / "last.pt", weights_only=True)["iteration"] == done


class _Broken(ToySource):
    """One camera has a calibration that is not finite."""

    def frame_set(self, scene: str, index: int):
        frame_set = super().frame_set(scene, index)
        view = dataclasses.replace(frame_set.views[1], base_from_cam=np.full((4, 4), np.nan))
        return dataclasses.replace(frame_set, views=(frame_set.views[0], view, frame_set.views[2]))


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_data_names_scene_and_camera(tmp_path, workers):
    with pytest.raises(
        InputError, match=r"^100 clips .* the last: toy-\d key frames \d to \d: CAM_B at \d+ ns: [^\n]*not finite$"
    ):
        train(toy_config(workers=workers), _Broken(), tmp_path)


def test_weights_that_are_not_finite_are_noticed(tmp_path):
    tracker = build_tracker(toy_config())
    tracker.pts_bbox_head.input_proj.bias.data[0] = 3e38  # finite, so it may be loaded
    save_checkpoint(tmp_path / "wild.safetensors", tracker)
    with pytest.raises(InputError, match=r"^iteration 1, toy-\d key frames \d to \d: "):
        train(toy_config(iterations=2), ToySource(), tmp_path / "run", start=tmp_path / "wild.safetensors")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_tracker_starts_from_a_detector(tmp_path, capsys):
    config = toy_config(syncl=False, iterations=1, clip_length=1)
    detector = dataclasses.replace(config, model=dataclasses.replace(config.model, framework="none"))
    assert train(detector, ToySource(), tmp_path / "detector")
    start = tmp_path / "detector" / "last.safetensors"
    tiny_rate = toy_config(iterations=1, learning_rate=1e-12, weight_decay=0.0)
    assert train(tiny_rate, ToySource(), tmp_path / "tracker", start=start)
    assert capsys.readouterr().out == f"{start}: untrained: STReasoner, query_feat_embedding\n"
    before, after = load_checkpoint(start).state_dict(), load_checkpoint(tmp_path / "tracker" / "last.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after.state_dict()[name], value, atol=1e-6, rtol=0)
    assert after.state_dict()["query_feat_embedding.weight"].abs().max() < 1e-6
    spread = dataclasses.replace(tiny_rate, train=dataclasses.replace(tiny_rate.train, spread_start=True))
    assert train(spread, ToySource(), tmp_path / "spread", start=start)
    carried = load_checkpoint(tmp_path / "spread" / "last.safetensors").query_feat_embedding.weight
    assert carried.std(dim=0).max() < 0.1 < carried.std()  # nearly the same for every query


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train": {"learning_rate": 0.5}}, r"last.pt: train.learning_rate: the run has 0.001, the configuration 0.5$"),
        ({"model": {"num_queries": 17}}, r"last.pt: model.num_queries: the run has 16, the configuration 17$"),
    ],
)
def test_another_configuration_is_another_run(tmp_path, change, message):
    config = toy_config(iterations=1, clip_length=1, syncl=False)
    assert train(config, ToySource(), tmp_path)
    with pytest.raises(InputError, match=message):
        train(with_values(config, change), ToySource(), tmp_path, resume=True)
    assert train(with_values(config, {"train": {"workers": 1, "save_every": 5}}), ToySource(), tmp_path, resume=True)


def test_other_scenes_are_another_run(tmp_path):
    """A forgotten --data would go on with another data set, and with other numbers of clips."""
    config = toy_config(iterations=2, clip_length=1, syncl=False)
    assert train(config, ToySource(), tmp_path)
    for other in (ToySource(scenes=("toy-0", "toy-2")), ToySource(key_frames=3)):
        with pytest.raises(InputError, match=r"last.pt: is of a run on other scenes; give the --data"):
            train(config, other, tmp_path, resume=True)
    assert train(config, ToySource(), tmp_path, resume=True)


def test_killed_between_the_two_files_of_its_end_a_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Weights newer than the snapshot are made again, from the older one; the other way round they would be lost."""
    torch.set_num_threads(1)
    config = toy_config(iterations=4, save_every=3)
    assert train(config, ToySource(), tmp_path / "whole")

    def killed(path, done, *rest):
        if done == 4:
            raise KeyboardInterrupt
        save(path, done, *rest)

    save = snapshot.save_snapshot
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(snapshot, "save_snapshot", killed)
        train(config, ToySource(), tmp_path / "killed")
    (tmp_path / "killed" / "last.safetensors").unlink()
    assert train(config, ToySource(), tmp_path / "killed", resume=True)
    first, second = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "killed"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_stop_in_the_last_iteration_does_not_cost_the_last_scores(tmp_path, monkeypatch):
    scored = []

    def evaluate(tracker, done: int) -> dict[str, float]:
        scored.append(done)
        return {"score": 0.0}

    stopped = []
    monkeypatch.setattr(run, "any_of", lambda flag, workers: stopped.append(1) or len(stopped) == 4)
    config = toy_config(iterations=4, evaluate_every=2)
    assert train(config, ToySource(), tmp_path, evaluate=evaluate)
    assert scored == [2, 4]


def test_an_evaluation_that_fails_or_is_left_out_by_a_stop_is_made_up_and_costs_no_iteration(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    scored, broken = [], []

    def evaluate(tracker, done: int) -> dict[str, float]:
        if broken:
            raise InputError("no ground truth")
        scored.append(done)
        return {"score": 1.0 / done}

    config = toy_config(iterations=4, evaluate_every=2, save_every=100)
    assert train(config, ToySource(), tmp_path / "whole", evaluate=evaluate)
    whole, scored[:] = list(scored), []
    folder, stopped = tmp_path / "stopped", []
    with monkeypatch.context() as patch:
        patch.setattr(run, "any_of", lambda flag, workers: stopped.append(1) or len(stopped) == 2)
        assert not train(config, ToySource(), folder, evaluate=evaluate)
    assert not scored and not (folder / "best.safetensors").exists()
    broken.append(True)
    with pytest.raises(InputError, match="no ground truth"):
        train(config, ToySource(), folder, evaluate=evaluate, resume=True)
    broken.clear()
    with (folder / "log.jsonl").open("a") as log:  # of a process that was killed before it had saved its scores
        log.write('{"iteration": 2, "eval/score": 7.0}\n')
    (folder / ".last.pt.12345.partial").touch()  # of a process that was killed while it saved
    assert train(config, ToySource(), folder, evaluate=evaluate, resume=True)
    assert scored == whole == [2, 4] and _curve(folder) == _curve(tmp_path / "whole")
    best = [load_checkpoint(tmp_path / name / "best.safetensors").state_dict() for name in ("whole", "stopped")]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())
    assert not list(folder.glob(".*"))
    events = sorted(folder.glob("events.*"))[-1].read_bytes()
    assert bytes([2 << 3, 3]) in events[:120]  # TensorBoard hides what came before from step 3 on


def test_what_training_leaves_behind_does_not_shrink_the_trackers_steps():
    """Two parts, each scaled down by its own norm: a huge gradient of the contrastive network changes no tracker."""
    config = toy_config()
    model = ClipModel(build_tracker(config), Criterion(config))
    tracker, helpers = model.parts()
    assert {id(p) for part in (tracker, helpers) for p in part} == {id(p) for p in model.parameters()}
    assert {id(p) for p in tracker} == {id(p) for p in model.tracker.parameters()}
    for parameter in tracker:
        parameter.grad = torch.full_like(parameter, 1e-3)
    for parameter in helpers:
        parameter.grad = torch.full_like(parameter, 1e6)
    norms = [clip_gradients(part, 35.0) for part in model.parts()]
    assert norms[0] < 35.0 < norms[1]
    assert all(torch.equal(p.grad, torch.full_like(p, 1e-3)) for p in tracker)
    assert torch.stack([p.grad.norm() for p in helpers]).norm().item() == pytest.approx(35.0, rel=1e-3)
    plain = toy_config(syncl=False)
    assert len(ClipModel(build_tracker(plain), Criterion(plain)).parts()) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", None])
def test_a_torn_or_foreign_snapshot_is_named(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content) if content is not None else torch.save({"format": "other"}, path)
    with pytest.raises(InputError, match=r"last.pt: (truncated or not a snapshot|not a training snapshot)"):
        train(toy_config(), ToySource(), tmp_path, resume=True)


def test_training_is_the_ordinary_unroll(tmp_path):
    """The tracker in the loop sees what inference sees: with the truth's decisions its state holds the truth's ids."""
    from syncl_core.tracking.base import assigned

    config, source = toy_config(), ToySource()
    tracker, criterion = build_tracker(config), Criterion(config)
    clip = next(c for c in map(ClipDataset(source, config).__getitem__, range(8)) if c.names[0].endswith("0 to 2"))
    state, seen = tracker.init_state(), []
    for frame, targets in zip(clip.frames, clip.targets, strict=True):
        observation = tracker.observe(state, frame, all_layers=True, parallel=True)
        state = tracker.commit(observation, assigned(criterion.match(observation, targets).identity))
        seen.append(sorted(state.track_id[0][state.track_id[0] >= 0].tolist()))
    assert seen == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 3]]  # the fourth is born late, the third leaves
    assert list(itertools.chain(*seen))


def test_bfloat16_where_it_is_asked_for(tmp_path):
    """A CPU computes in full precision unless told otherwise; half of it is near that, and weights stay float32."""
    torch.set_num_threads(1)
    losses = {}
    for precision in ("fp32", "auto", "bf16"):
        assert train(toy_config(precision=precision, iterations=2), ToySource(), tmp_path / precision)
        losses[precision] = [row["loss"] for row in _curve(tmp_path / precision)]
    assert losses["auto"] == losses["fp32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    weights = load_checkpoint(tmp_path / "bf16" / "last.safetensors").state_dict().values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float32}
