"""On a device that is not the host all is as on the CPU, nothing of the host takes part, and nobody waits."""

import numpy as np
import other_autocast
import pytest
import torch
from other_device import ELSEWHERE, Elsewhere
from tiny_tracker import shake
from torch.utils import _pytree
from train_fixture import ToySource, toy_config

from syncl_core.config import with_values
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.losses.criterion import Criterion
from syncl_core.runtime.session import TrackerSession
from syncl_core.tracking.build import build_tracker
from syncl_core.training.clip_model import ClipModel, prepare, set_training, total_loss
from syncl_core.training.distributed import Workers
from syncl_core.training.optimizer import make_optimizer
from syncl_core.training.progress import read_log
from syncl_core.training.run import train
from syncl_core.training.shares import clip_gradients
from syncl_core.training.start import spread
from syncl_core.world.source import WorldSource

SMALL_STREAM = {"depth_bins": 32, "stream": {"memory_length": 16, "pushed": 8, "propagated": 8}}
MODELS = {
    "petr": {"framework": "none", "detector": "petr"},
    "pf_track petr": {"framework": "pf_track", "detector": "petr"},
    "pf_track petrv2": {"framework": "pf_track", "detector": "petrv2"},
    "mutr3d detr3d": {"framework": "mutr3d", "detector": "detr3d"},
    "mutr3d proposals": {"framework": "mutr3d", "detector": "detr3d", "detr3d": {"votes": True, "proposals": True}},
    "stream_petr": {"framework": "none", "detector": "stream_petr"} | SMALL_STREAM,
    "mutr3d stream_petr": {"framework": "mutr3d", "detector": "stream_petr"} | SMALL_STREAM,
}
EVERYBODY = {f"{kind}_threshold": 1e-4 for kind in ("score", "record", "filter", "output")}  # untrained ones, too
HELPS = {"dense_weight": 1.0, "denoising": 3, "dropped_tracks": 0.2, "false_tracks": 0.3, "lost_distance": 4.0}
STRATEGIES = {  # beside SynCL's own
    "baseline": {"enabled": False},
    "top_k": {"filter": {"method": "top_k"}},
    "deta": {"filter": {"method": "deta"}},
    "atss": {"filter": {"method": "atss"}},
    "sim_ota": {"filter": {"method": "sim_ota"}},
    "all_pairs": {"filter": {"pool": "all_pairs", "smoothing": 0.5}},
    "all_blocks": {"filter": {"pool": "all_blocks", "force_best": True}},
    "symmetric": {"contrastive": {"anchor": "symmetric", "blocks": "all", "vanished_negatives": True}},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _config(model: dict, syncl: dict | None = None, **train_keys):
    alone = model["framework"] == "none"
    values = {"model": model, "track": EVERYBODY, "syncl": {"enabled": True} | (syncl or {})}
    return with_values(toy_config(**({"clip_length": 1} if alone else {}) | train_keys), values)


def _tracker(config):
    tracker = build_tracker(config).eval()
    spread(tracker)  # queries that are all alike would be one track at most
    return tracker


def _close(ours, theirs) -> None:
    """Trees of tensors, each on its device."""
    pairs = list(zip(_pytree.tree_leaves(ours), _pytree.tree_leaves(theirs), strict=True))
    for here, there in pairs:
        if isinstance(here, torch.Tensor):
            assert (here.device.type, there.device) == ("cpu", ELSEWHERE)
            torch.testing.assert_close(here, there.cpu(), rtol=1e-3, atol=1e-4)
    assert any(isinstance(here, torch.Tensor) for here, _ in pairs)


def test_the_device_refuses_what_a_gpu_refuses_and_knows_who_waits():
    with Elsewhere() as traffic:
        there = torch.ones(3).to(ELSEWHERE, non_blocking=True)
        assert (there + torch.tensor(2.0))[there.long()].device == ELSEWHERE and not traffic.waits
        for forbidden in (lambda: there + torch.ones(3), lambda: there.index_put_((there.long(),), torch.ones(3))):
            with pytest.raises(RuntimeError, match="tensors of two devices"):
                forbidden()
        assert not traffic.reads and there.sum().item() == 3 and there.tolist() == [1, 1, 1] and len(traffic.reads) == 2
        assert there[there > 0].shape == (3,) and there.nonzero().shape == (3, 1) and len(traffic.reads) == 4
        torch.tensor([0, 1], device=ELSEWHERE)
        assert there[[0, 2]].shape == there[torch.tensor([0, 2])].shape == (2,) and len(traffic.waits) == 3
        there[there > 5] = 0.0
        assert len(traffic.reads) == 4
        there[there > 0] = torch.ones(3).to(ELSEWHERE, non_blocking=True)
        assert len(traffic.reads) == 5 and len(traffic.waits) == 3
        layer = torch.nn.Linear(3, 2).to(ELSEWHERE)
        layer(there).sum().backward()
        assert layer.weight.grad.cpu().tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_step_there_reads_nothing_and_waits_for_nothing(model):
    config = _config(model)
    tracker = _tracker(config)
    dataset = ClipDataset(ToySource(), config, augment=False)
    frames = [dataset[number].frames[-1] for number in range(3)]
    expected = _tracked(tracker, frames, torch.device("cpu"))
    with Elsewhere() as traffic:
        tracker, frames = tracker.to(ELSEWHERE), _pytree.tree_map(lambda tensor: tensor.to(ELSEWHERE), frames)
        traffic.waits.clear()
        found = _tracked(tracker, frames, ELSEWHERE)
        assert not traffic.reads and not traffic.waits
        _close(expected, found)
    assert expected[-1][1].valid.any()


@torch.no_grad()
def _tracked(tracker, frames: list, device: torch.device) -> list:
    """State and tracks after every frame."""
    state, found = tracker.init_state(1, device), []
    for frame in frames:
        state, tracks = tracker.step(state, frame)
        found.append((state, tracks))
    return found


def _trained(config, device: torch.device, traffic: Elsewhere | None = None) -> list:
    """Losses, stats and the norm of the gradient, of two steps; `traffic` where the device is elsewhere."""
    torch.manual_seed(0)
    model = ClipModel(build_tracker(config), Criterion(config)).to(device)
    prepare(model.tracker, config.train)
    set_training(model, config.train)
    optimizer, seen = make_optimizer(model, config.train), []
    dataset = ClipDataset(ToySource(), config)
    for number in range(2):
        clip = collate([dataset[number], dataset[number + 2]]).to(device)
        if traffic:
            traffic.waits.clear(), traffic.reads.clear()
        optimizer.zero_grad()
        loss = total_loss(model(clip.frames, clip.targets))
        loss.total.backward()
        norms = [clip_gradients(part, config.train.max_gradient_norm) for part in model.parts()]
        optimizer.step()
        if traffic:
            contrasts = model.criterion.strategy is not None and model.criterion.strategy.contrast is not None
            # For the Hungarian method, and how many queries the contrastive term has to compare.
            assert len(traffic.reads) == len(clip.targets) + contrasts
            assert not traffic.waits
        seen.append((loss.losses, loss.stats, norms))
    return seen


@pytest.mark.parametrize(
    "model, syncl, helps",
    [
        *[pytest.param(model, {}, HELPS if name.startswith("m") else {}, id=name) for name, model in MODELS.items()],
        *[pytest.param(MODELS["pf_track petr"], syncl, {}, id=name) for name, syncl in STRATEGIES.items()],
    ],
)
def test_training_there_is_the_same_and_reads_once_a_frame(model, syncl, helps):
    config = _config(model, syncl, **helps)
    expected = _trained(config, torch.device("cpu"))
    with Elsewhere() as traffic:
        found = _trained(config, ELSEWHERE, traffic)
        losses, device_losses = expected[0][0], found[0][0]
        _close(losses, device_losses)
        assert losses.keys() == device_losses.keys() and torch.isfinite(found[1][2][0])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_bfloat16_as_on_a_gpu_fits_together(model):
    """CUDA's autocast leaves other results in full precision than the CPU's, and operations ask for equal types."""
    other_autocast.register()
    config = _config(model, **({} if model["framework"] == "none" else HELPS))
    dataset = ClipDataset(ToySource(), config)
    with torch.no_grad():
        tracker = shake(_tracker(config), seed=0)  # or its first losses would hardly depend on the network
    model = ClipModel(tracker, Criterion(config))

    def total(device: torch.device) -> torch.Tensor:
        clip = collate([dataset[0], dataset[2]]).to(device)
        set_training(model.to(device), config.train)
        torch.manual_seed(0)  # of the helpers' draws
        return total_loss(model(clip.frames, clip.targets)).total

    expected = total(torch.device("cpu")).item()
    with Elsewhere():
        with torch.autocast("elsewhere", torch.bfloat16):
            loss = total(ELSEWHERE)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=0.1) and loss.item() != pytest.approx(expected, rel=1e-6)
        assert all(p.grad.isfinite().all().item() for p in model.parameters() if p.requires_grad)
        with torch.no_grad(), torch.autocast("elsewhere", torch.bfloat16):
            half = torch.ones(2, 2, device=ELSEWHERE) @ torch.ones(2, 2, device=ELSEWHERE)
            assert (half.dtype, half.exp().dtype) == (torch.bfloat16, torch.float32)
            state = model.eval().tracker.init_state(2, ELSEWHERE)
            types = [x.dtype for x in _pytree.tree_leaves(state)]
            for frame in collate([dataset[0], dataset[2]]).to(ELSEWHERE).frames:
                state, _ = model.tracker.step(state, frame)
            assert [x.dtype for x in _pytree.tree_leaves(state)] == types


@pytest.mark.parametrize("name", ["pf_track petr", "mutr3d proposals"])
def test_a_whole_run_and_a_session_there(name, tmp_path):
    config = _config(MODELS[name], iterations=2, grid_mask=1.0)
    source = ToySource()
    sets = [source.frame_set("toy-0", index) for index in range(4)]
    tracker = _tracker(config)

    def tracks(device: torch.device) -> list:
        session = TrackerSession(tracker.to(device).step, tracker.init_state, config, device)
        found = [session.process(one).objects for one in sets[:2]]
        session.restore(session.snapshot())
        found += [session.process(one).objects for one in sets[2:]]
        session.close()
        return found

    assert train(config, source, tmp_path / "cpu", Workers(device=torch.device("cpu")))
    expected = tracks(torch.device("cpu"))
    with Elsewhere():
        assert train(config, source, tmp_path / "elsewhere", Workers(device=ELSEWHERE))
        tracker.to(ELSEWHERE)
    with Elsewhere() as traffic:
        found = tracks(ELSEWHERE)
    assert len(traffic.reads) <= 3 * len(sets) + 1
    first, second = (read_log(tmp_path / kind) for kind in ("cpu", "elsewhere"))
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=1e-4) and len(second) == 2
    for here, there in zip(expected, found, strict=True):
        assert len(here) and here.ids == there.ids
        np.testing.assert_allclose(here.centers, there.centers, atol=1e-3)


def test_the_world_is_drawn_there_as_here():
    pictures = []
    with Elsewhere():
        for device in ("cpu", ELSEWHERE):
            source = WorldSource("val", image_width=64, num_key_frames=1, num_scenes=1, device=device)
            views = source.frame_set(source.scene_names[0], 0).views
            pictures.append(np.stack([np.frombuffer(view.image.data, np.uint8) for view in views]).astype(int))
    assert pictures[0].std() > 10 and (abs(pictures[0] - pictures[1]) <= 2).mean() > 0.99
