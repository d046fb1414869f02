"""Looking at the heads changes nothing, and what is written is what the network computed."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from nuscenes_fixture import SCENES, write_tiny_nuscenes
from test_cli import CONFIG
from tiny_tracker import drive, tiny_tracker

from syncl_core.cli import main
from syncl_core.head_dump import HeadDump
from syncl_core.io.submission import read_submission
from syncl_core.tracking.state import init_state


@pytest.fixture(scope="module")
def tracker():
    return tiny_tracker(3, born=0.4)


@torch.inference_mode()
def _run(step, config, frames) -> list:
    state, results = init_state(config), []
    for frame in frames:
        state, tracks = step(state, frame)
        results.append((state, tracks))
    return results


def _equal(a, b) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_steps_are_the_trackers_own(tracker):
    dump, frames = HeadDump(tracker), drive(4)
    watched = _run(functools.partial(dump.step, "scene"), tracker.config, frames)
    plain = _run(tracker.step, tracker.config, frames)
    assert all(_equal(a, b) for pair in zip(watched, plain, strict=True) for a, b in zip(*pair, strict=True))
    assert any(tracks.valid.any() for _, tracks in plain)


def test_file_holds_every_layer_of_every_frame(tracker, tmp_path):
    dump, frames = HeadDump(tracker), drive(3)
    steps = _run(functools.partial(dump.step, "scene"), tracker.config, frames)
    dump.save(tmp_path / "heads.npz")
    model, rows = tracker.config.model, tracker.config.model.num_queries + tracker.config.track.slots
    with np.load(tmp_path / "heads.npz") as heads:
        assert heads["scene"].tolist() == ["scene"] * 3
        assert heads["t_ns"].tolist() == [frame.t_ns.item() for frame in frames]
        assert heads["logits"].shape == (3, model.num_layers, rows, 10)
        assert heads["boxes"].shape == (3, model.num_layers, rows, 10)
        assert heads["features"].shape == (3, rows, model.embed_dim)
        for i, (_, tracks) in enumerate(steps):
            for field in dataclasses.fields(tracks):
                assert np.array_equal(heads[f"tracks.{field.name}"][i], getattr(tracks, field.name)[0].numpy())
        # The first frame has no tracks: it can be computed by hand.
        with torch.inference_mode():
            head = tracker.decode(tracker.encode(frames[0]), tracker.object_queries(1), all_layers=True)
        objects = slice(model.num_queries)
        for name, expected in (("logits", head.logits), ("boxes", head.box)):
            np.testing.assert_allclose(heads[name][0, :, objects], expected[:, 0], rtol=0, atol=2e-5)
        np.testing.assert_allclose(heads["features"][0, objects], head.features[-1][0], rtol=0, atol=1e-5)
        assert heads["query_valid"][0].tolist() == [True] * model.num_queries + [False] * tracker.config.track.slots
        assert heads["query_valid"][1].sum() == model.num_queries + (steps[0][0].track_id >= 0).sum()


def test_track_command_dumps_all_scenes_and_tracks_the_same(tmp_path, capsys):
    root = write_tiny_nuscenes(tmp_path / "nuscenes")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    command = ["track", str(root), "-c", str(tmp_path / "tiny.yaml")]
    heads = tmp_path / "dump" / "heads.npz"
    assert main([*command, "-o", str(tmp_path / "plain")]) == 0
    assert main([*command, "-o", str(tmp_path / "dumped"), "--dump-heads", str(heads)]) == 0
    plain, dumped = (tmp_path / name / "tracks.json" for name in ("plain", "dumped"))
    assert plain.read_bytes() == dumped.read_bytes()
    assert any(len(objects) for objects in read_submission(plain).values())
    with np.load(heads) as arrays:
        assert set(arrays["scene"]) == set(SCENES)
        assert len({len(arrays[name]) for name in arrays.files}) == 1
    capsys.readouterr()
    assert main([*command, "-o", str(tmp_path / "again"), "--dump-heads", str(heads)]) == 2
    assert "heads.npz: exists already" in capsys.readouterr().err and not (tmp_path / "again").exists()
