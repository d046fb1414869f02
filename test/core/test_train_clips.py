"""The clips of a run: every one once per epoch, the same for a seed however they are computed."""

import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from nuscenes_fixture import SCENES, real_root, write_tiny_nuscenes
from torch.utils import _pytree
from train_fixture import ToySource, toy_config

from syncl_core import worker_signals
from syncl_core.config import SynclConfig
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.data.loader import RunSampler, make_loader
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.errors import InputError

CPU = torch.device("cpu")


def _equal(a, b) -> bool:
    first, second = (_pytree.tree_leaves((clip.frames, clip.targets)) for clip in (a, b))
    return a.names == b.names and all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_every_key_frame_ends_one_clip_per_epoch_in_another_order():
    dataset = ClipDataset(ToySource(key_frames=5), toy_config())
    assert len(dataset) == 10
    epochs = [[dataset[number].names[0] for number in range(10 * e, 10 * e + 10)] for e in range(2)]
    ends = {f"{scene} key frames {max(0, last - 2)} to {last}" for scene in ("toy-0", "toy-1") for last in range(5)}
    assert set(epochs[0]) == set(epochs[1]) == ends
    assert epochs[0] != epochs[1]
    other_seed = ClipDataset(ToySource(key_frames=5), toy_config(seed=1))
    assert [other_seed[number].names[0] for number in range(10)] != epochs[0]


def test_the_start_of_a_scene_is_repeated():
    dataset = ClipDataset(ToySource(), toy_config())
    clip = next(c for c in map(dataset.__getitem__, range(8)) if c.names[0].endswith("key frames 0 to 1"))
    assert [frame.t_ns.item() * 1e-9 for frame in clip.frames] == [0.5, 0.5, 1.0]
    assert [t.identity[0].tolist() for t in clip.targets] == [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3]]
    assert torch.equal(clip.targets[0].motion, clip.targets[1].motion)


def test_clips_at_the_start_of_a_scene_may_be_whole_ones_elsewhere():
    names = [ClipDataset(ToySource(key_frames=5), toy_config(scene_start="move"))[n].names[0] for n in range(10)]
    whole = ["0 to 2", "0 to 2", "1 to 3", "1 to 3", "2 to 4"]
    assert sorted(names) == [f"{scene} key frames {rows}" for scene in ("toy-0", "toy-1") for rows in whole]
    short = ClipDataset(ToySource(key_frames=2), toy_config(scene_start="move"))
    assert [len(set(short[number].numbers[0])) for number in range(4)] == [2, 2, 2, 2]  # the whole scene, filled up


def test_the_future_is_that_of_the_scene_not_of_the_clip():
    clip = next(
        c for c in map(ClipDataset(ToySource(), toy_config()).__getitem__, range(8)) if c.names[0].endswith("0 to 2")
    )
    car = [targets.motion_valid[0, 0].tolist() for targets in clip.targets]
    assert car == [[True] * 3 + [False], [True] * 2 + [False] * 2, [True] + [False] * 3]  # four key frames


def test_a_clip_that_cannot_teach_is_replaced_the_same_way_every_time():
    source = ToySource(empty=(("toy-0", 1), ("toy-0", 2), ("toy-1", 3)))
    dataset = ClipDataset(source, toy_config())
    clips = [dataset[number] for number in range(24)]
    usable = {"toy-0 key frames 0 to 0", *(f"toy-1 key frames 0 to {last}" for last in range(3))}
    assert {clip.names[0] for clip in clips} == usable
    assert all(_equal(clip, ClipDataset(source, toy_config())[number]) for number, clip in enumerate(clips[:8]))


class OneTorn(ToySource):
    """One key frame of one scene has an image that ends in the middle."""

    def frame_set(self, scene: str, index: int):
        if (scene, index) == ("toy-0", 2):
            raise InputError("CAM_A at 5 ns: corrupt JPEG")
        return super().frame_set(scene, index)


def test_a_clip_with_a_torn_image_is_replaced_and_told(capsys):
    """One broken file of a download must not end a training of days."""
    dataset = ClipDataset(OneTorn(), toy_config(clip_length=1))
    clips = [dataset[number] for number in range(16)]
    shown = {clip.names[0] for clip in clips}
    assert "toy-0 key frames 2 to 2" not in shown and len(shown) == 7
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 2 and set(said) == {"note: CAM_A at 5 ns: corrupt JPEG; another clip takes its place"}
    again = ClipDataset(OneTorn(), toy_config(clip_length=1))
    assert all(_equal(clip, again[number]) for number, clip in enumerate(clips))


def test_without_any_ground_truth_it_says_so():
    nothing = ToySource(empty=tuple((scene, i) for scene in ("toy-0", "toy-1") for i in range(4)))
    with pytest.raises(InputError, match="100 clips in a row .* is the ground truth complete"):
        ClipDataset(nothing, toy_config())[0]
    with pytest.raises(InputError, match="no key frame"):
        ClipDataset(ToySource(scenes=()), toy_config())


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_a_run_and_workers_change_nothing(workers):
    """Two processes with a clip each see what one process with two clips sees; a resumed run goes on with the next."""
    config = toy_config(resize=(0.9, 1.2), flip=0.5)
    dataset = ClipDataset(ToySource(), config)
    alone = list(make_loader(dataset, RunSampler(2, 0, 6), workers, CPU))
    assert len(alone) == 6
    shares = [list(make_loader(dataset, RunSampler(1, 2, 6, rank, 2), workers, CPU)) for rank in (0, 1)]
    for iteration, (first, second) in enumerate(zip(*shares, strict=True), start=2):
        assert _equal(collate([dataset[2 * iteration], dataset[2 * iteration + 1]]), alone[iteration])
        for rank, clip in enumerate((first, second)):
            assert clip.names[0] == alone[iteration].names[rank]
            assert torch.equal(clip.frames[2].images[0], alone[iteration].frames[2].images[rank])


def test_loading_moves_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(make_loader(ClipDataset(ToySource(), toy_config()), RunSampler(1, 0, 2), 1, CPU)))
    assert torch.equal(before, torch.get_rng_state())


def test_more_workers_than_cpus_are_nobodys_warning(recwarn):
    loader = make_loader(
        ClipDataset(ToySource(), toy_config()), RunSampler(1, 0, 2), len(os.sched_getaffinity(0)) + 1, CPU
    )
    assert len(list(loader)) == 2 and not recwarn.list


def _serve_without_sigtimedwait() -> None:
    del worker_signals.signal.sigtimedwait
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `syncl` has it
    worker_signals.leave_signals_to_parent()
    time.sleep(60)


def test_a_worker_without_sigtimedwait_ends_at_sigterm():
    """macOS lacks it: a worker that blocks SIGTERM there could not be ended."""
    worker = multiprocessing.get_context("fork").Process(target=_serve_without_sigtimedwait)
    worker.start()
    time.sleep(0.5)
    worker.terminate()
    worker.join(5)
    ended = worker.exitcode
    worker.kill()
    assert ended == -signal.SIGTERM


_ORPHAN = """
import multiprocessing, time
from syncl_core import worker_signals
def serve():
    worker_signals.leave_signals_to_parent()
    time.sleep(60)
worker = multiprocessing.get_context("fork").Process(target=serve)
worker.start()
print("here", flush=True)
worker.join()
"""


def test_a_worker_does_not_outlive_a_parent_that_was_killed():
    """It would hold its memory, and the pipe that it inherited, for ever, and obey nobody."""
    with subprocess.Popen([sys.executable, "-c", _ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        parent.stdout.readline()
        time.sleep(0.5)
        parent.kill()
        parent.wait()
        killed_s = time.monotonic()
        assert parent.stdout.read() == "" and time.monotonic() - killed_s < 30  # the pipe has an end


def test_no_thread_brings_a_signal_while_children_start():
    """The kernel gives a signal that the main thread blocks to another one; Python answers it in the main thread."""
    idle = threading.Event()
    thread = threading.Thread(target=idle.wait)
    thread.start()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), worker_signals.held_for_children():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)
                through = True
            except KeyboardInterrupt:
                through = False
                raise
        assert through and signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
        idle.set()
        thread.join()


def _nuscenes_config(**train) -> SynclConfig:
    config = toy_config(**train)
    return dataclasses.replace(config, rig=SynclConfig().rig, sync=SynclConfig().sync)


def test_nuscenes_splits_become_clips(tmp_path):
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    root = write_tiny_nuscenes(tmp_path, sweeps_between=0)
    config = _nuscenes_config()
    clips = NuScenesClips(root, config)
    assert clips.scene_names == SCENES and NuScenesClips(root, config, "tiny_val").scene_names == SCENES[1:]
    assert NuScenesClips(root, config, first_scene=1).scene_names == SCENES[1:]
    assert NuScenesClips(root, config, num_scenes=1).scene_names == SCENES[:1]
    with pytest.raises(InputError, match=rf"^{root}: split 'tiny_val' has the scenes 0 to 0, got first scene = 1"):
        NuScenesClips(root, config, "tiny_val", first_scene=1)
    clips = pickle.loads(pickle.dumps(clips))
    assert [clips.num_key_frames(scene) for scene in SCENES] == [4, 4]
    clip = next(c for c in map(ClipDataset(clips, config).__getitem__, range(8)) if c.names[0].endswith("0 to 2"))
    names = ("car", "walker", "barrier")  # the truck has no points, the far car is out of range, the dog no class
    assert sorted(config.classes[i] for i in clip.targets[0].label[0]) == sorted(("car", "pedestrian", "barrier"))
    assert clip.targets[0].identity.tolist() == [list(range(len(names)))]
    assert clip.frames[0].camera_valid.all() and clip.frames[0].images.shape == (1, 6, 3, 32, 64)


def test_of_a_partly_filled_root_the_longest_run_counts(tmp_path):
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    root = write_tiny_nuscenes(tmp_path, sweeps_between=0)
    images = sorted((root / "samples" / "CAM_BACK").glob("*.jpg"))
    assert len(images) == 8
    images[1].unlink()  # the second key frame of the first scene
    for image in images[4:]:
        image.unlink()
    clips = NuScenesClips(root, _nuscenes_config())
    assert clips.scene_names == SCENES[:1] and clips.num_key_frames(SCENES[0]) == 2
    assert clips.sample(SCENES[0], 0) == clips.data.samples(SCENES[0])[2]
    with pytest.raises(
        InputError, match=rf"^{root}: no key frame of split 'tiny_val' has images of CAM_FRONT, .* on disk$"
    ):
        NuScenesClips(root, _nuscenes_config(), "tiny_val")


def test_boxes_of_real_clips_lie_where_the_images_show_them():
    """Real boxes, through targets and augmentation, project into an image: at least one for every camera."""
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    config = _nuscenes_config(clip_length=2, resize=(0.94, 1.25))
    config = dataclasses.replace(config, image=dataclasses.replace(config.image, height=128, width=320))
    clips = NuScenesClips(real_root("nuscenes_two_frames"), config, "two_frames")
    clip = next(c for c in map(ClipDataset(clips, config).__getitem__, range(4)) if c.names[0].endswith("0 to 1"))
    targets, frame = clip.targets[1], clip.frames[1]
    center = torch.cat([targets.box[0][:, [0, 1, 4]].double(), torch.ones(targets.box.shape[1], 1)], dim=1)
    u, v, depth, _ = (frame.image_from_model[0] @ center.T).unbind(1)  # [N, M] each
    inside = (depth > 1) & (u / depth > 0) & (u / depth < 320) & (v / depth > 0) & (v / depth < 128)
    assert inside.any(dim=1).all() and inside.any(dim=0).float().mean() > 0.9
    assert np.isfinite(targets.box.numpy()).all() and targets.motion_valid[0].sum() == 0  # nothing follows
    first = clip.targets[0]
    assert first.motion_valid[0, :, 0].float().mean() > 0.8 and not first.motion_valid[0, :, 1:].any()
