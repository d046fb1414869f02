"""The weights that come with the package find and follow the actors of the synthetic world."""

import numpy as np
import pytest

from syncl_core.checkpoint import chosen_weights, load_tracker
from syncl_core.config import load_config
from syncl_core.errors import InputError
from syncl_core.runtime.session import TrackerSession
from syncl_core.shipped import shipped_configs, shipped_weights
from syncl_core.world.source import WorldSource

MATCH = 2.0  # metres on the ground, the benchmark's
NEAR = 20.0  # metres from the car
SCENE, FRAMES = "world-test-00", 8


def test_the_weights_are_small_and_belong_to_a_configuration():
    path = shipped_weights()
    assert path.stat().st_size <= 15e6 and path.with_suffix(".md").is_file()
    tracker = load_tracker()
    config = {p.stem: p for p in shipped_configs()}[path.stem]
    assert tracker.config.model == load_config(config).model and tracker.config.syncl.enabled


def test_which_weights_are_taken():
    assert chosen_weights("", "") == shipped_weights()
    assert chosen_weights("some.yaml", "") is None
    assert str(chosen_weights("some.yaml", "other.safetensors")) == "other.safetensors"


def test_a_configuration_has_a_name_that_a_file_may_have_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = {path.stem: path for path in shipped_configs()}["petr_small_320x800"]
    assert load_config("petr_small_320x800") == load_config(here)
    (tmp_path / "petr_small_320x800").write_text("name: mine")
    assert load_config("petr_small_320x800").name == "mine"
    with pytest.raises(
        InputError, match=r"config/petr_small_320x800.yaml: no such file; by its name, petr_small_320x800"
    ):
        load_config("config/petr_small_320x800.yaml")  # as the examples have it, from another folder
    with pytest.raises(InputError, match="petr_smal_320x800: no such configuration; did you mean petr_small_320x800"):
        load_config("petr_smal_320x800")
    with pytest.raises(InputError, match="petr_smal_320x800.yaml: cannot read the configuration"):
        load_config("petr_smal_320x800.yaml")


def test_near_actors_of_an_unseen_scene_are_found_and_keep_their_identity():
    tracker = load_tracker()
    image = tracker.config.image
    source = WorldSource("test", image_width=image.width, image_height=image.height)
    session = TrackerSession(tracker.step, tracker.init_state, tracker.config)
    there = found = followed = 0
    owner: dict[str, str] = {}
    for index in range(FRAMES):
        frame_set, truth = source.frame_set(SCENE, index), source.ground_truth(SCENE, index)
        tracks = session.process(frame_set).objects
        for row, name in enumerate(truth.ids):
            away = np.linalg.norm(truth.centers[row, :2] - frame_set.global_from_base[:2, 3])
            if not truth.num_points[row] or away > NEAR:
                continue
            there += 1
            distance = np.linalg.norm(tracks.centers[:, :2] - truth.centers[row, :2], axis=1)
            distance[[label != truth.labels[row] for label in tracks.labels]] = np.inf
            if not len(distance) or distance.min() > MATCH:
                continue
            found += 1
            identity = tracks.ids[int(distance.argmin())]
            followed += owner.get(name) == identity
            owner[name] = identity
    assert there > 40
    assert found / there > 0.65
    assert followed / found > 0.6
