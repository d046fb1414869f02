"""A frozen encoder's maps kept in a file: the same training as without, nothing frozen moves, files are shared."""

import dataclasses

import numpy as np
import pytest
import torch
from nuscenes_fixture import write_tiny_nuscenes
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import load_checkpoint, save_checkpoint
from syncl_core.classes import CAMERAS
from syncl_core.config import with_values
from syncl_core.data.clip_source import images_of, key_frames_of
from syncl_core.data.clips import ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.tracking.build import build_tracker
from syncl_core.training.encoded import EncodedFrames
from syncl_core.training.progress import read_log
from syncl_core.training.run import train
from syncl_core.world.source import WorldSource

FROZEN = {"freeze_encoder": True, "resize": [1.0, 1.0], "grid_mask": 0.0, "flip": 0.0, "iterations": 4, "save_every": 2}


def frozen_config(**train_keys):
    model = {"framework": "mutr3d", "detector": "detr3d", "num_queries": 20}
    model |= {"detr3d": {"tower": 1, "votes": True, "proposals": True}}
    return with_values(toy_config(), {"model": model, "train": FROZEN | train_keys, "syncl": {"enabled": True}})


def _losses(folder):
    return [{k: v for k, v in row.items() if k.startswith("loss")} for row in read_log(folder)]


def test_reading_the_maps_trains_as_making_them_does(tmp_path, monkeypatch):
    """Losses agree with a run that encodes every image; the frozen weights stay, the others learn."""
    torch.set_num_threads(1)
    config = frozen_config(log_every=1)
    start = build_tracker(config, 5)
    save_checkpoint(tmp_path / "start.safetensors", start)
    assert train(config, ToySource(), tmp_path / "kept", start=tmp_path / "start.safetensors")
    monkeypatch.setattr(EncodedFrames, "__call__", lambda self, clip: None)
    assert train(config, ToySource(), tmp_path / "made", start=tmp_path / "start.safetensors")
    for kept, made in zip(_losses(tmp_path / "kept"), _losses(tmp_path / "made"), strict=True):
        assert kept == pytest.approx(made, rel=1e-3)
    trained = load_checkpoint(tmp_path / "kept" / "last.safetensors").state_dict()
    for name, value in start.state_dict().items():
        frozen = name.startswith(start.ENCODER)
        assert torch.equal(trained[name], value) == frozen or name.endswith("bn.num_batches_tracked"), name


def test_runs_may_share_an_encoder_and_draw_the_rest(tmp_path):
    """Of a whole checkpoint the encoder alone: every seed has a decoder of its own, and all read the same maps."""
    torch.set_num_threads(1)
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, start := build_tracker(frozen_config(), 5))
    for seed in (0, 1):
        config = frozen_config(iterations=1, learning_rate=1e-9, start_with="encoder", seed=seed)
        assert train(config, ToySource(), tmp_path / f"{seed}", start=path, encoded=tmp_path / "maps")
        trained = load_checkpoint(tmp_path / f"{seed}" / "last.safetensors").state_dict()
        drawn = build_tracker(config, seed).state_dict()
        for name, value in trained.items():
            expected = start.state_dict() if name.startswith(start.ENCODER) else drawn
            torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0, msg=name)
        decoder = [name for name in drawn if name.startswith("pts_bbox_head.transformer.") and name.endswith("weight")]
        assert not any(torch.equal(drawn[name], start.state_dict()[name]) for name in decoder if drawn[name].dim() > 1)
    assert len(list((tmp_path / "maps").glob("encoded-*.f32"))) == 1


def test_maps_are_kept_in_full_precision_whatever_the_training_computes_in(tmp_path):
    torch.set_num_threads(1)
    config = frozen_config()
    save_checkpoint(tmp_path / "start.safetensors", build_tracker(config, 5))
    for precision in ("fp32", "bf16"):
        run = frozen_config(precision=precision)
        assert train(run, ToySource(), tmp_path / precision, start=tmp_path / "start.safetensors")
    full, half = ([f.read_bytes() for f in (tmp_path / p).glob("encoded-*.f32")] for p in ("fp32", "bf16"))
    assert len(full) == 1 and full == half


class Blinded(ToySource):
    """Says of every key frame what it shows only once."""

    def __init__(self, *asked):
        super().__init__()
        object.__setattr__(self, "asked", list(asked))

    def frame_set(self, scene, index):
        assert (scene, index) not in self.asked, "its images were there before"
        self.asked.append((scene, index))
        return super().frame_set(scene, index)

    def unseen_frame_set(self, scene, index):
        frames = super().frame_set(scene, index)
        black = [dataclasses.replace(view.image, data=np.zeros_like(view.image.data)) for view in frames.views]
        views = [dataclasses.replace(view, image=image) for view, image in zip(frames.views, black, strict=True)]
        return dataclasses.replace(frames, views=tuple(views))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_kept_key_frames_are_not_asked_for_again(tmp_path, workers):
    """Within a run and by the next one, whose losses and maps are those of a run that saw everything."""
    torch.set_num_threads(1)
    config = frozen_config(log_every=1, batch_size=1, iterations=12)
    save_checkpoint(tmp_path / "start.safetensors", build_tracker(config, 5))
    again = frozen_config(log_every=1, batch_size=1, iterations=12, workers=workers)
    seeing, blinded = tmp_path / "seeing", tmp_path / "blinded"
    first = Blinded()
    assert train(config, ToySource(), seeing, start=tmp_path / "start.safetensors")
    assert train(config, first, blinded, start=tmp_path / "start.safetensors")
    (maps,) = blinded.glob("encoded-*.f32")
    assert _losses(blinded) == _losses(seeing)
    assert len(first.asked) == 8 and maps.read_bytes() == next(seeing.glob("encoded-*.f32")).read_bytes()
    before = maps.read_bytes()
    second = tmp_path / "second"
    assert train(again, Blinded(*first.asked), second, start=tmp_path / "start.safetensors", encoded=blinded)
    assert _losses(second) == _losses(seeing) and maps.read_bytes() == before


def test_marks_without_their_maps_count_for_nothing(tmp_path):
    """Whoever deletes the large file of the two gets the same losses from the next run, not maps of zeros."""
    torch.set_num_threads(1)
    config = frozen_config(log_every=1)
    save_checkpoint(tmp_path / "start.safetensors", build_tracker(config, 5))
    sources = {"first": Blinded(), "second": Blinded()}
    for name, source in sources.items():
        assert train(config, source, tmp_path / name, start=tmp_path / "start.safetensors", encoded=tmp_path / "maps")
        (maps,) = (tmp_path / "maps").glob("encoded-*.f32")
        assert maps.with_suffix(".done").is_file()
        maps.unlink()
    assert _losses(tmp_path / "first") == _losses(tmp_path / "second")
    assert sources["first"].asked == sources["second"].asked != []


def test_without_a_look_a_frame_has_all_but_its_images():
    config, frames = toy_config(), ToySource().frame_set("toy-1", 2)
    seen, unseen = (make_frame(frames, config.image, look=look) for look in (True, False))
    assert seen.images.any() and not unseen.images.any() and unseen.images.shape == seen.images.shape
    for name in ("image_from_model", "camera_valid", "global_from_model", "t_ns"):
        assert torch.equal(getattr(seen, name), getattr(unseen, name)), name


@torch.no_grad()
def test_what_is_read_is_what_the_tracker_sees_in_any_batch(tmp_path):
    config = frozen_config()
    tracker = build_tracker(config, 1).eval()
    dataset = ClipDataset(ToySource(), config, augment=False)
    clips = [dataset[i] for i in range(3)]
    encoded = EncodedFrames(tmp_path, tracker, "toy", len(dataset))
    first = encoded(collate(clips[:1]))
    together = collate(clips)
    for _ in range(2):  # made and read
        for frame, pyramid in zip(together.frames, encoded(together), strict=True):
            seen = tracker.encode(frame)
            assert pyramid.image_size == seen.image_size
            for name in ("levels", "sights", "votes"):
                for ours, theirs in zip(getattr(pyramid, name), getattr(seen, name), strict=True):
                    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first[0].levels[0], encoded(together)[0].levels[0][:1], atol=0, rtol=0)


def test_files_are_shared_by_who_sees_the_same(tmp_path, monkeypatch):
    """Another process with the same weights reads; other weights, data or settings get a file of their own."""
    config = frozen_config(clip_length=1)
    dataset = ClipDataset(ToySource(), config, augment=False)
    clip = collate([dataset[i] for i in range(4)])
    assert len({numbers for (numbers,) in clip.numbers}) == 4
    EncodedFrames(tmp_path, build_tracker(config, 1).eval(), "toy", len(dataset))(clip)
    again, made = build_tracker(config, 1).eval(), []
    encode = again.encode
    monkeypatch.setattr(again, "encode", lambda frame: made.append(1) or encode(frame))
    EncodedFrames(tmp_path, again, "toy", len(dataset))(clip)
    assert len(made) == 1, "the first tells the maps' shapes, the others are read"
    EncodedFrames(tmp_path, again, "other", len(dataset))(clip)
    EncodedFrames(tmp_path, build_tracker(config, 2).eval(), "toy", len(dataset))(clip)
    brighter = with_values(config, {"image": {"mean": [1.0, 2.0, 3.0]}})
    EncodedFrames(tmp_path, build_tracker(brighter, 1).eval(), "toy", len(dataset))(clip)
    assert len(list(tmp_path.glob("*.f32"))) == 4
    encoder = {name: value for name, value in again.state_dict().items() if name.startswith(again.ENCODER)}
    same, lower = {"num_queries": 9, "num_layers": 1, "detr3d": {"proposals": False}}, {"detr3d": {"ground": -1.0}}
    for number, values in ((4, same), (5, lower)):
        other = build_tracker(with_values(config, {"model": values}), 3).eval()
        other.load_state_dict(encoder, strict=False)
        EncodedFrames(tmp_path, other, "toy", len(dataset))(clip)
        assert len(list(tmp_path.glob("*.f32"))) == number, values


def test_other_images_of_the_same_key_frames_have_maps_of_their_own(tmp_path):
    """The same scenes drawn at another width, the endless world and what was written of it, another folder."""
    worlds = [WorldSource("val", num_scenes=1, image_width=width) for width in (160, 160, 176)]
    assert images_of(worlds[0]) == images_of(worlds[1]) != images_of(worlds[2])
    assert {key_frames_of(world) for world in worlds} == {"world-val-00 40"}
    config = with_values(toy_config(), {"rig": {"cameras": list(CAMERAS)}})
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from syncl_core.data.nuscenes_clips import NuScenesClips

    roots = [write_tiny_nuscenes(tmp_path / name, sweeps_between=0) for name in ("here", "there")]
    clips = [NuScenesClips(root, config) for root in (roots[0], roots[0], roots[1])]
    assert images_of(clips[0]) == images_of(clips[1]) != images_of(clips[2])
    assert key_frames_of(clips[0]) == key_frames_of(clips[2])


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    config = frozen_config()
    dataset = ClipDataset(ToySource(), config, augment=False)
    encoded = EncodedFrames(tmp_path, build_tracker(config, 1).eval(), "toy", 10**9)
    with pytest.raises(InputError, match=r"^train.freeze_encoder: .*encoded-.* GB more, .* GB are free"):
        encoded(collate([dataset[0]]))
    assert not list(tmp_path.iterdir())


def test_clips_say_which_key_frames_they_are():
    config = frozen_config(clip_length=2)
    dataset = ClipDataset(ToySource(), config, augment=False)
    clip = collate([dataset[i] for i in range(len(dataset))])
    assert np.shape(clip.numbers) == (8, 2)
    for name, (first, last) in zip(clip.names, clip.numbers, strict=True):
        scene, rows = name.split(" key frames ")
        start = 4 * ToySource().scene_names.index(scene)
        assert [first - start, last - start] == [int(row) for row in rows.split(" to ")]


@pytest.mark.parametrize(
    ("key", "value"),
    [("grid_mask", 0.5), ("flip", 0.5), ("resize", [0.9, 1.1]), ("batch_norm", "trained"), ("dense_weight", 1.0)],
)
def test_what_cannot_be_kept_is_refused(key, value):
    with pytest.raises(InputError, match=rf"^train.{key}: .*train.freeze_encoder"):
        frozen_config(**{key: value})


def test_only_mutr3d_keeps_maps():
    with pytest.raises(InputError, match="^train.freeze_encoder: only mutr3d with detr3d can, got pf_track with petr"):
        with_values(toy_config(), {"train": FROZEN})
