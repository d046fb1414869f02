"""Laws of the lists of scenes: they never meet and never change."""

import hashlib
import json

import pytest

from syncl_core.errors import InputError
from syncl_core.world import generate, splits
from syncl_core.world.truth import truth_of


def test_splits_never_meet():
    ranges = [splits.seeds(name) for name in splits.SIZES] + [range(splits.FREE, splits.VAL)]
    bounds = sorted((r[0], r[-1]) for r in ranges)
    assert all(before[1] < after[0] for before, after in zip(bounds, bounds[1:], strict=False))
    names = [*splits.scene_names("val"), *splits.scene_names("test"), *splits.scene_names("train", 100)]
    assert len(set(names)) == len(names) == 150
    assert len(splits.scene_names("val")) == 20 and len(splits.scene_names("test")) == 30


@pytest.mark.parametrize(
    "seed", [0, 7, 12345, splits.VAL + 3, splits.TEST + 29, splits.TRAIN, splits.TRAIN + 3_999_999]
)
def test_names_and_seeds_belong_together(seed):
    assert splits.seed_of(splits.scene_name(seed)) == seed


def test_names_are_the_stated_ones():
    assert splits.scene_names("train", 2) == ("world-train-000000", "world-train-000001")
    assert splits.scene_names("val", 1) == ("world-val-00",)
    assert splits.scene_names("train", 2, 350) == ("world-train-000350", "world-train-000351")
    assert splits.scene_names("test", first=28) == ("world-test-28", "world-test-29")
    assert splits.scene_name(7) == "world-0007"


@pytest.mark.parametrize(
    "name", ["world-val-20", "world-val-3", "world-mini-00", "scene-0001", "world-7", "world-", ""]
)
def test_unknown_names_are_refused_by_name(name):
    with pytest.raises(InputError, match=f"{name!r}"):
        splits.seed_of(name)


@pytest.mark.parametrize("split, scenes", [("val", 21), ("test", 0), ("train", 4_000_001), ("mini", 1)])
def test_impossible_splits_are_refused(split, scenes):
    with pytest.raises(InputError, match=split):
        splits.seeds(split, scenes)


@pytest.mark.parametrize(
    "first, scenes, culprit", [(20, None, "first scene = 20"), (-1, 1, "first scene = -1"), (18, 3, "scene 18 on")]
)
def test_splits_do_not_reach_beyond_their_end(first, scenes, culprit):
    with pytest.raises(InputError, match=culprit):
        splits.seeds("val", scenes, first)


def test_a_validation_scene_never_changes():
    """Whoever changes what scenes hold has to say so here, as results of before and after cannot be compared.

    This digest may change with generate, traffic, flow, bystanders, crowd, city, scenery, weather, actors and motion.
    """
    world = generate.make_scene(splits.seed_of("world-val-03"))
    truth = truth_of(world, 40)
    rows = [
        [a.name, *(f"{v:.2f}" for v in (*a.size, *truth.global_from_box[:, i, :3, 3].ravel()))]
        for i, a in enumerate(world.actors)
    ]
    assert hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest() == "b57ced2c51790dee"
