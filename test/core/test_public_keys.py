"""The published networks, tensor by tensor: pftrack_keys.tsv lists what a PF-Track f3 checkpoint holds."""

import pytest
import torch
from public_files import CONFIGS, public_shapes, published_tracker

from syncl_core.config import load_config
from syncl_core.tracking.base import Tracker


def _shapes(tracker: Tracker) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tracker.state_dict().items()}


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return published_tracker("petr_vov_320x800")


def test_names_and_shapes_are_those_of_the_checkpoint(tracker):
    assert len(public_shapes()) == 1002
    assert _shapes(tracker) == public_shapes()


def test_parameter_counts_are_published(tracker):
    assert sum(p.numel() for p in tracker.parameters()) == 91_800_903  # shared heads once
    assert sum(value.numel() for value in tracker.state_dict().values()) == 93_201_816 - 10  # loss weights
    assert sum(p.numel() for p in tracker.img_neck.parameters()) == 1_049_344


@pytest.mark.parametrize("height, width, fine", [(320, 800, (20, 50)), (640, 1600, (40, 100))])
def test_feature_map_sizes_are_published(tracker, height, width, fine):
    maps = tracker.img_backbone(torch.zeros(6, 3, height, width, device="meta"))
    assert [tuple(x.shape) for x in maps] == [(6, 768, *fine), (6, 1024, fine[0] // 2, fine[1] // 2)]
    assert tuple(tracker.img_neck(maps).shape) == (6, 256, *fine)


@pytest.mark.parametrize("name", ["petr_vov_640x1600", "petr_vov_320x800_5frames"])
def test_trackers_share_one_set_of_names(name):
    assert _shapes(published_tracker(name)) == public_shapes()


@pytest.mark.parametrize(
    "name, queries",
    [("petr_vov_320x800_detector", 500), ("petr_vov_640x1600_detector", 500), ("petr_vov_320x800_900queries", 900)],
)
def test_detectors_lack_what_is_trained_later(name, queries):
    expected = {
        key: shape
        for key, shape in public_shapes().items()
        if not key.startswith("STReasoner.") and key != "query_feat_embedding.weight"
    }
    assert _shapes(published_tracker(name)) == expected | {"reference_points.weight": (queries, 3)}


def test_configurations_differ_where_the_publication_says():
    def facts(name: str):
        config = load_config(CONFIGS / f"{name}.yaml")
        assert config.name == name and config.model.backbone == "v2_99"
        image, track = config.image, config.track
        return image.height, image.width, config.model.history_length, track.max_age, track.max_output

    assert facts("petr_vov_320x800") == (320, 800, 3, 7, 150)
    assert facts("petr_vov_640x1600") == (640, 1600, 3, 6, 150)
    assert facts("petr_vov_320x800_5frames") == (320, 800, 5, 7, 150)
    assert facts("petr_vov_320x800_detector") == (320, 800, 3, 1, 300)
    assert facts("petr_vov_640x1600_detector") == (640, 1600, 3, 1, 300)
