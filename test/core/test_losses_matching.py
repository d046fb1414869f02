"""The Hungarian method on the host, identity matching, and what both make of odd frames."""

import numpy as np
import pytest
import torch
from loss_cases import make_case
from slow_losses import cheapest_pairs

from syncl_core.losses.matching import assign, match_objects, match_tracks
from syncl_core.losses.padding import clean_targets
from syncl_core.strategy_config import LossConfig


def _match(cost: torch.Tensor, rows: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    return match_objects(cost, rows, objects, torch.zeros(cost.shape[:3], dtype=torch.int64), ())


@pytest.mark.parametrize("seed", range(10))
def test_the_cheapest_pairs_in_every_layer_and_scene(seed):
    """Also with more objects than queries, and with rows and objects that are not to be matched."""
    generator = torch.Generator().manual_seed(seed)
    layers, batch, num_rows, num_objects = 3, 2, 6, (2, 4, 6, 8)[seed % 4]
    cost = torch.randn(layers, batch, num_rows, num_objects, generator=generator)
    rows = torch.rand(batch, num_rows, generator=generator) < (0.9 if num_objects < 6 else 0.5)
    objects = torch.rand(batch, num_objects, generator=generator) < 0.7
    found = _match(cost, rows, objects)
    for layer in range(layers):
        for b in range(batch):
            some_rows, some_objects = rows[b].nonzero().flatten().tolist(), objects[b].nonzero().flatten().tolist()
            costs = {(m, g): cost[layer, b, m, g].item() for m in some_rows for g in some_objects}
            best = cheapest_pairs(costs, some_rows, some_objects)
            assert {m: g for m, g in enumerate(found[layer, b].tolist()) if g >= 0} == best


def test_identical_costs_still_give_every_object_its_own_row():
    found = _match(torch.zeros(2, 1, 7, 4), torch.ones(1, 7, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool))
    for layer in range(2):
        assert sorted(found[layer, 0].tolist()) == [-1, -1, -1, 0, 1, 2, 3]


def test_nothing_to_match():
    for rows, objects in ((0, 4), (3, 0), (0, 0)):
        some_rows, some_objects = torch.arange(5)[None] < rows, torch.arange(4)[None] < objects
        assert (_match(torch.randn(2, 1, 5, 4), some_rows, some_objects) == -1).all()


def test_all_layers_and_scenes_travel_in_one_copy(monkeypatch):
    copies = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(tuple(self.shape)) or original(self))
    observation, targets = make_case(0)
    assign(observation, clean_targets(targets), LossConfig())
    assert copies == [(2, 2, 13, targets.valid.shape[1] + 1)]


def test_tracks_keep_their_objects_in_all_layers_and_queries_get_the_others():
    for seed in range(6):
        observation, targets = make_case(seed, objects=(5, 4, 1), tracks=(3, 0, 1), vanished=(1, 2, 0))
        result = assign(observation, clean_targets(targets), LossConfig())
        for b in range(3):
            place = {int(i): g for g, i in enumerate(targets.identity[b]) if targets.valid[b, g]}
            for m, identity in enumerate(observation.track_id[b].tolist()):
                for layer in range(2):
                    got = result.target[layer, b, m].item()
                    if identity >= 0:
                        assert got == place.get(identity, -1)
                    elif not observation.valid[b, m]:
                        assert got == -1
            for layer in range(2):
                owned = [g for g in result.target[layer, b].tolist() if g >= 0]
                assert sorted(owned) == sorted(place.values())
            persistent = set(np.flatnonzero(result.tracks.persistent[b].numpy()))
            assert persistent == {place[i] for i in observation.track_id[b].tolist() if i in place}


def test_an_identity_of_padding_owns_nothing():
    _, targets = make_case(0)
    ids = torch.full((2, 3), 999)  # what empty rows of the ground truth hold here
    match = match_tracks(ids, torch.ones(2, 3, dtype=torch.bool), targets)
    assert (match.target == -1).all() and not match.persistent.any() and match.track.all()
