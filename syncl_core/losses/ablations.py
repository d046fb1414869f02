"""The rows of the paper's ablation tables (arXiv 2411.06780), each as the keys that differ from the default strategy.

`ABLATIONS["table4a/2"].values` goes over a configuration as a partial YAML file would. The paper's figures are of
PF-Track on PETR, V2-99 at 320x800, nuScenes val. Tables 7 (length of clips) and 8 (one stage) are keys of `train:`.
`OPEN_CHOICES` is SynCL with other answers to what the paper leaves open, where it fits every tracker.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One row of a table. Figures are the paper's; None where it has none."""

    description: str
    values: dict  # partial configuration
    amota: float | None = None  # percent
    amotp: float | None = None  # metres
    nds: float | None = None  # percent
    map: float | None = None  # percent


def _baseline(description: str, *figures: float) -> Ablation:
    return _row(description, {"enabled": False}, figures)


def _syncl(description: str, *figures: float, **groups: dict) -> Ablation:
    return _row(description, {"enabled": True, **groups}, figures)


def _row(description: str, strategy: dict, figures: tuple[float, ...]) -> Ablation:
    amota, amotp, nds, mean_ap = figures or (None,) * 4
    values = {"syncl": strategy}
    return Ablation(description=description, values=values, amota=amota, amotp=amotp, nds=nds, map=mean_ap)


_NO_CONTRAST = {"weight": 0.0}
_OBJECTS_ONLY, _TRACKS_ONLY = {"track_loss": False}, {"object_loss": False}
_DETA = {"method": "deta", "threshold": 0.6, "candidates": 4}
_SERIAL = {"decoder": "serial", "objects": "new_born"}

ABLATIONS: dict[str, Ablation] = {
    # Which parts: object queries and track queries of the parallel decoder, contrastive term.
    "table4a/1": _baseline("baseline", 40.8, 1.343, 47.7, 37.8),
    "table4a/2": _syncl(
        *("parallel decoder, object queries only", 42.2, 1.327, 49.8, 38.9),
        **{"parallel": _OBJECTS_ONLY, "contrastive": _NO_CONTRAST},
    ),
    "table4a/3": _syncl(
        *("parallel decoder, track queries only", 40.9, 1.339, 48.1, 37.9),
        **{"parallel": _TRACKS_ONLY, "contrastive": _NO_CONTRAST},
    ),
    "table4a/4": _syncl("parallel decoder, both kinds of queries", 42.6, 1.286, 49.9, 39.9, contrastive=_NO_CONTRAST),
    "table4a/5": _syncl("SynCL: both kinds and the contrastive term", 44.7, 1.262, 49.7, 39.6),
    # Which filter.
    "table4b/atss": _syncl("ATSS, by overlap from above", 39.3, 1.367, 47.0, 37.3, filter={"method": "atss"}),
    "table4b/sim_ota": _syncl("SimOTA, by overlap from above", 42.8, 1.323, 49.2, 38.8, filter={"method": "sim_ota"}),
    "table4b/deta": _syncl("DETA, a fixed threshold on the cost", 43.1, 1.320, 49.4, 38.6, filter=_DETA),
    "table4b/gmm": _syncl("SynCL's mixture of two Gaussians", 44.7, 1.262, 49.7, 39.6, filter={"method": "gmm"}),
    # Which objects the object queries answer for, and in which decoder.
    "table5/1": _baseline("ordinary decoder, new-born objects, one to one (baseline)", 40.8, 1.343, 47.7, 37.8),
    "table5/2": _syncl(
        *("ordinary decoder, new-born objects, one to many", 38.8, 1.357, 46.5, 37.1),
        **{"matching": _SERIAL, "contrastive": _NO_CONTRAST},
    ),
    "table5/3": _syncl(
        *("parallel decoder, new-born objects, one to many", 41.1, 1.339, 47.8, 38.3),
        **{"matching": {"objects": "new_born"}},
    ),
    "table5/4": _syncl(
        *("parallel decoder, all objects, one to many", 42.6, 1.300, 49.1, 38.6), matching={"objects": "all"}
    ),
    "table5/5": _syncl(
        *("parallel decoder, persistent objects, one to many (SynCL)", 44.7, 1.262, 49.7, 39.6),
        **{"matching": {"objects": "persistent"}},
    ),
    # How many queries per object.
    "table6/4": _syncl("at most 4 queries per object", 44.3, 1.286, 50.1, 39.5, filter={"candidates": 4}),
    "table6/5": _syncl("at most 5 queries per object (SynCL)", 44.7, 1.262, 49.7, 39.6, filter={"candidates": 5}),
    "table6/6": _syncl("at most 6 queries per object", 42.8, 1.298, 49.7, 39.2, filter={"candidates": 6}),
}

OPEN_CHOICES: dict[str, Ablation] = {
    "open/last_block_matched": _syncl("the last block's matching for all blocks", matching={"every_block": False}),
    "open/all_blocks_pool": _syncl("mixture fitted to the costs of all blocks", filter={"pool": "all_blocks"}),
    "open/all_pairs_pool": _syncl("mixture fitted to all pairs' costs", filter={"pool": "all_pairs"}),
    "open/smooth_threshold": _syncl("threshold carried from clip to clip", filter={"smoothing": 0.9}),
    "open/no_threshold": _syncl("an object's K best queries, no threshold", filter={"method": "top_k"}),
    "open/half_parallel": _syncl("parallel decoder's loss at half weight", parallel={"weight": 0.5}),
    "open/empty_frames_taught": _syncl(
        "parallel decoder taught background where nothing is matched", parallel={"empty_frames": "background"}
    ),
    "open/force_best": _syncl("an object's best query always passes the filter", filter={"force_best": True}),
    "open/new_born_ignored": _syncl(
        "new-born objects' queries left out of the parallel decoder's loss", parallel={"new_born": "ignore"}
    ),
    "open/rejected_ignored": _syncl(
        "queries the filter refused left out of the parallel decoder's loss", parallel={"rejected": "ignore"}
    ),
    "open/no_false_background": _syncl(
        "an object's best query always passes, new-born objects' and refused queries left out of the loss",
        filter={"force_best": True},
        parallel={"new_born": "ignore", "rejected": "ignore"},
    ),
    "open/serial_normalizer": _syncl(
        "parallel decoder's loss divided by the ordinary decoder's positives", parallel={"normalizer": "serial"}
    ),
    "open/stronger_parallel": _syncl(
        "parallel decoder's loss divided by the ordinary decoder's positives, contrastive term in every block",
        parallel={"normalizer": "serial"},
        contrastive={"blocks": "all"},
    ),
    "open/warm_contrast": _syncl("contrastive term at temperature 1", contrastive={"temperature": 1.0}),
    "open/light_contrast": _syncl("contrastive term at a quarter of its weight", contrastive={"weight": 0.25}),
    "open/track_contrast": _syncl("contrastive term from tracks to queries", contrastive={"anchor": "track"}),
    "open/symmetric_contrast": _syncl("contrastive term both ways", contrastive={"anchor": "symmetric"}),
    "open/contrast_everywhere": _syncl("contrastive term in every block", contrastive={"blocks": "all"}),
    "open/linear_contrast": _syncl("contrastive term with a linear map", contrastive={"mlp_dim": 0}),
    "open/vanished_negatives": _syncl("vanished tracks are negatives, too", contrastive={"vanished_negatives": True}),
    "open/contrast_one_way": _syncl(
        "contrastive term without gradient to object queries", contrastive={"stop_gradient": "object"}
    ),
}
