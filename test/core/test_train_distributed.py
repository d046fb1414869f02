"""Two processes (gloo) are one process with twice the clips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nuscenes_fixture import write_tiny_nuscenes
from test_encoded import frozen_config  # noqa: F401 - for the processes
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import load_checkpoint
from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset
from syncl_core.data.loader import RunSampler, make_loader
from syncl_core.losses.criterion import Criterion
from syncl_core.tracking.build import build_tracker
from syncl_core.training import distributed, run
from syncl_core.training.clip_model import ClipModel, set_training, total_loss
from syncl_core.training.progress import read_log
from syncl_core.training.shares import whole

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]


def gradients(
    batch_size: int, workers: distributed.Workers, engine: str = "ddp", smoothing: float = 0.0
) -> dict[str, torch.Tensor]:
    """Of the first iteration, averaged over processes."""
    config = with_values(toy_config(batch_size=batch_size), {"syncl": {"filter": {"smoothing": smoothing}}})
    torch.manual_seed(0)
    model = ClipModel(build_tracker(config), Criterion(config))
    with torch.no_grad():  # queries that differ, or all costs would be alike
        model.tracker.query_feat_embedding.weight.uniform_(-1, 1)
    set_training(model, config.train)
    distributed_model = distributed.distribute(model, workers, engine)
    sampler = RunSampler(batch_size, 0, 1, workers.rank, workers.size)
    (clip,) = make_loader(ClipDataset(ToySource(), config), sampler, 0, workers.device)
    total_loss(distributed_model(clip.frames, clip.targets)).total.backward()
    return {name: whole(parameter.grad) for name, parameter in model.named_parameters()}


CASES = [("ddp", 0.0), ("fsdp", 0.0), ("ddp", 0.5)]  # engine, smoothing of the filter's threshold
_PROCESS = """
import sys
sys.path[:0] = [{helpers!r}]
import torch
from test_train_distributed import CASES, distributed, gradients
torch.set_num_threads(1)
workers = distributed.join("cpu")
for engine, smoothing in CASES:
    torch.save(gradients(1, workers, engine, smoothing), {folder!r} + f"/{{engine}}-{{smoothing}}-{{workers.rank}}.pt")
distributed.leave()
"""


def _torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A folder with the gradients that each of two processes has, of all cases."""
    folder = tmp_path_factory.mktemp("of_two")
    (folder / "process.py").write_text(_PROCESS.format(helpers=str(HELPERS), folder=str(folder)))
    done = _torchrun(str(folder / "process.py"))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(("engine", "smoothing"), CASES)
def test_two_processes_have_the_gradients_of_one(of_two, engine, smoothing):
    alone = gradients(2, distributed.Workers(), smoothing=smoothing)
    first, second = (torch.load(of_two / f"{engine}-{smoothing}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert alone.keys() == first.keys() and sum(g.abs().sum() > 0 for g in alone.values()) > 0.9 * len(alone)
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-6, rtol=1e-3)


_SHARED = """
import sys
sys.path[:0] = [{helpers!r}]
from pathlib import Path
import torch
from test_train_distributed import ToySource, distributed, frozen_config, run, toy_config, with_values
torch.set_num_threads(1)
workers = distributed.join("cpu")
folder = Path({folder!r})

def go(name, engine="fsdp", iterations=4, evaluate=None, config=toy_config(), **how):
    settings = dict(engine=engine, iterations=iterations, save_every=2, evaluate_every=3 if evaluate else 0)
    config = with_values(config, {{"train": settings}})
    assert run.train(config, ToySource(), folder / name, workers, evaluate=evaluate, **how)

def die(tracker, iteration):
    raise ZeroDivisionError

norm = torch.nn.BatchNorm1d(2)
norm.running_mean += workers.rank
distributed.share_statistics(norm)
assert norm.running_mean.tolist() == [0.0, 0.0], "everybody has the first process's statistics"
go("whole")
try:
    go("killed", evaluate=die)
except ZeroDivisionError:
    go("killed", resume=True)
go("ddp", "ddp")
for engine in ("fsdp", "ddp"):
    go("second-" + engine, engine, 1, lambda *_: {{"score": 1.0}}, start=folder / "whole" / "last.safetensors")
    go("mutr3d-" + engine, engine, 3, config=frozen_config(log_every=1))
distributed.leave()
"""


def test_shares_train_as_copies_do_and_are_saved_whole(tmp_path):
    """FSDP: the losses and files of DDP; a run that died goes on exactly; weights to start from are shared out."""
    script = tmp_path / "process.py"
    script.write_text(_SHARED.format(helpers=str(HELPERS), folder=str(tmp_path)))
    done = _torchrun(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    curves = {
        path.parent.name: [row["loss"] for row in read_log(path.parent) if "loss" in row]
        for path in tmp_path.glob("*/log.jsonl")
    }
    assert len(curves["whole"]) == 4 and curves["whole"] == curves["killed"]
    assert curves["whole"] == pytest.approx(curves["ddp"], rel=1e-3)
    assert curves["mutr3d-fsdp"] == pytest.approx(curves["mutr3d-ddp"], rel=1e-3)  # it has a weight that is one number
    assert curves["second-fsdp"] == pytest.approx(curves["second-ddp"], rel=1e-3)
    assert curves["second-fsdp"][0] != pytest.approx(curves["whole"][0], rel=1e-2)

    shares, copies = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "ddp"))
    _assert_alike(shares["model"], copies["model"])
    _assert_alike(shares["optimizer"], copies["optimizer"])
    alone = run.make_run(toy_config(iterations=4), tmp_path, distributed.Workers(), 1)
    alone.model.load_state_dict(shares["model"])
    alone.optimizer.load_state_dict(shares["optimizer"])
    for name in ("whole/last", "second-fsdp/best"):
        load_checkpoint(tmp_path / f"{name}.safetensors")
    saved = load_checkpoint(tmp_path / "whole" / "last.safetensors").state_dict()
    assert all(torch.equal(value, alone.model.tracker.state_dict()[name]) for name, value in saved.items())


def _assert_alike(first, second):
    """The same structure, shapes and kinds; numbers nearly."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            _assert_alike(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-2)


_CONFIG = """
name: tiny
image: {height: 32, width: 64}
model: {embed_dim: 32, num_queries: 16, num_layers: 2, num_heads: 2, ffn_dim: 64, reasoning_layers: 1, depth_bins: 8}
track: {slots: 8}
train: {clip_length: 2, iterations: 2, workers: 0, log_every: 1, save_every: 2, evaluate_every: 2, batch_norm: trained}
syncl: {enabled: true}
"""


def test_torchrun_trains_saves_evaluates_and_resumes(tmp_path):
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    pytest.importorskip("motmetrics", reason="motmetrics is not installed")
    root = write_tiny_nuscenes(tmp_path / "data", sweeps_between=0)
    config = tmp_path / "tiny.yaml"
    config.write_text(_CONFIG)
    arguments = ["-m", "syncl_core.train", str(config), "--data", str(root), "--split", "tiny_val"]
    arguments += ["--eval-split", "tiny_val", "-o", str(tmp_path / "run"), "--device", "cpu"]
    done = _torchrun(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained weights ->") == 1
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert [row["iteration"] for row in rows] == [1, 2]
    assert (tmp_path / "run" / "evaluations" / "iteration-0000002" / "scores.json").is_file()
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert len(content["ranks"]) == 2 and not torch.equal(content["ranks"][0]["cpu"], content["ranks"][1]["cpu"])

    from syncl_core import train

    alone = train.main([*arguments[2:], "--resume"])
    assert alone == 2  # a run of two processes; one line on stderr, see test_train_command
