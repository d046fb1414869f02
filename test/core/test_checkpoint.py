"""Checkpoints come back as they went, and broken ones are refused in one line that names the file."""

import dataclasses
import json
import os

import pytest
import torch
from law_helpers import assert_same_tracks
from public_files import Trap
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_tracker import tiny_config, tiny_tracker

from syncl_core.checkpoint import load_checkpoint, load_tracker, save_checkpoint, tracker_config
from syncl_core.config import TrackConfig
from syncl_core.errors import InputError


@pytest.fixture
def tracker():
    return tiny_tracker(34)


@pytest.fixture
def path(tmp_path, tracker):
    save_checkpoint(tmp_path / "tracker.safetensors", tracker)
    return tmp_path / "tracker.safetensors"


def _refusal(path, config=None) -> str:
    with pytest.raises(InputError) as refusal:
        load_checkpoint(path, config)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def _rewrite(path, change) -> None:
    """Save the tensors and metadata again after `change(tensors, metadata)`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def test_round_trip(path, tracker):
    restored = load_checkpoint(path)
    assert restored.config == tracker.config and not restored.training
    for name, value in tracker.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name
    assert_same_tracks(restored, tracker)
    assert os.listdir(path.parent) == [path.name]


def test_the_configuration_is_known_without_the_network(path, tracker, tmp_path):
    assert tracker_config(checkpoint=path) == tracker.config
    (tmp_path / "given.yaml").write_text("name: given")
    assert tracker_config(tmp_path / "given.yaml", path).name == "given"
    for name in ("none.safetensors", "given.yaml"):
        with pytest.raises(InputError, match=name):
            tracker_config(checkpoint=tmp_path / name)


def test_shared_head_is_stored_once(path):
    names = load_file(path).keys()
    assert any(name.startswith("pts_bbox_head.cls_branches.0.") for name in names)
    assert not any(name.startswith("pts_bbox_head.cls_branches.1.") for name in names)


def test_thresholds_come_from_the_given_configuration(path):
    config = dataclasses.replace(tiny_config(), track=TrackConfig(slots=3))
    assert load_checkpoint(path, config).config.track.slots == 3


def test_another_network_is_refused(path):
    config = tiny_config()
    more_queries = dataclasses.replace(config, model=dataclasses.replace(config.model, num_queries=13))
    assert "model.num_queries: the checkpoint has 12, the configuration 13" in _refusal(path, more_queries)
    fewer_classes = dataclasses.replace(config, classes=config.classes[:7])
    assert ": classes: the checkpoint has" in _refusal(path, fewer_classes)


def test_wrong_class_count_inside_is_refused(path):
    def cut(tensors, metadata):
        tensors["STReasoner.track_cls.6.weight"] = tensors["STReasoner.track_cls.6.weight"][:7].clone()

    _rewrite(path, cut)
    assert "STReasoner.track_cls.6.weight has shape [7, 16], the network needs [10, 16]" in _refusal(path)


def test_nan_is_refused(path):
    def poison(tensors, metadata):
        tensors["query_embedding.0.bias"][3] = torch.nan

    _rewrite(path, poison)
    assert "query_embedding.0.bias holds NaN" in _refusal(path)


def test_whole_numbers_are_no_weights(path):
    def change(tensors, _):
        name = next(name for name in tensors if name.endswith("weight"))
        tensors[name] = tensors[name].round().long()

    _rewrite(path, change)
    assert "holds torch.int64, the network needs torch.float32" in _refusal(path)


def test_half_precision_weights_are_taken(path):
    def change(tensors, _):
        tensors.update({name: value.half() for name, value in tensors.items() if value.is_floating_point()})

    _rewrite(path, change)
    assert load_checkpoint(path).state_dict()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_files_mode_is_that_of_the_umask(tmp_path, tracker, umask):
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "shared.safetensors", tracker)
    finally:
        os.umask(before)
    assert (tmp_path / "shared.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_an_impossible_seed_is_refused(seed):
    with pytest.raises(InputError, match=f"seed {seed}: expected a number from 0"):
        load_tracker(seed=seed)


def test_missing_and_unknown_tensors_are_refused(path):
    _rewrite(path, lambda tensors, metadata: tensors.pop("query_embedding.0.bias"))
    assert "lacks tensor query_embedding.0.bias;" in _refusal(path)

    def add(tensors, metadata):
        tensors |= {"query_embedding.0.bias": torch.zeros(16), "left.over": torch.zeros(1)}

    _rewrite(path, add)
    assert "has unknown tensor left.over;" in _refusal(path)


@pytest.mark.parametrize("keep", [0, 5, 200, -10])
def test_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated or not a safetensors file" in _refusal(path)


def test_foreign_and_unreadable_files_are_refused(path, tmp_path):
    assert "no such checkpoint" in _refusal(tmp_path / "none.safetensors")
    assert "no such checkpoint" in _refusal(tmp_path)
    _rewrite(path, lambda tensors, metadata: metadata.update(format="other"))
    assert "format 'other'" in _refusal(path)
    _rewrite(path, lambda tensors, metadata: metadata.update(format="syncl-tracker-1", config=json.dumps({"x": 1})))
    assert "stored configuration cannot be used: x: unknown key" in _refusal(path)


def test_failed_save_leaves_the_old_file(path, tracker, monkeypatch):
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("syncl_core.checkpoint.save_file", fail)
    with pytest.raises(InputError, match="cannot write the checkpoint: .*No space left"):
        save_checkpoint(path, tracker)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_impossible_place_is_refused(path, tracker):
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        save_checkpoint(path / "inside_a_file.safetensors", tracker)


def test_public_pickles_are_read_as_tensors_only(tmp_path, tracker):
    """A .pth file as PF-Track publishes it: all six head aliases, loss weights beside, no configuration."""
    path = tmp_path / "public.pth"
    torch.save({"state_dict": {**tracker.state_dict(), "criterion.code_weights": torch.ones(10)}}, path)
    restored = load_checkpoint(path, tracker.config)
    assert_same_tracks(restored, tracker)
    assert "holds no configuration" in _refusal(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert "PyTorch file" in _refusal(path, tracker.config)


def test_pickled_code_is_never_run(tmp_path, tracker):
    torch.save({"state_dict": {"x": Trap(tmp_path / "sprung")}}, tmp_path / "trap.pth")
    assert "not opened for safety" in _refusal(tmp_path / "trap.pth", tracker.config)
    assert not (tmp_path / "sprung").exists()
