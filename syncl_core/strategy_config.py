"""The training strategy: the baseline's losses and what SynCL adds to them (key `syncl:` of a configuration).

`enabled: false` is the baseline. The paper (arXiv 2411.06780, NeurIPS 2025) leaves many choices open; each is a key
here, the default first. `losses/ablations.py` names the rows of the paper's tables in these keys.
"""

import math
from dataclasses import dataclass, field

from syncl_core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """The baseline's losses, with PF-Track's released weights; cost and loss share them."""

    class_weight: float = 2.0  # focal loss, of every decoder layer and of the memory's refinement
    box_weight: float = 0.25  # L1 on box codes, likewise
    forecast_weight: float = 0.5  # L1 on predicted displacements
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    code_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)  # of the box code's entries
    ground_cost: float = 1.0  # of x and y in the matching's cost, in which code_weights have no part (StreamPETR: 2)
    quality_distance: float = 0.0  # metres; above 0 a row is taught to score by how near its box is (losses/focal.py)
    class_balance: float = 0.0  # above 0 objects of rare classes count for more (losses/class_balance.py)
    forecast_mean: str = "annotated"  # over annotated steps; "as_released" also counts the others, as zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingConfig:
    """Which ground truth object queries answer for, one object to many queries (sec. 3.3, Table 5)."""

    decoder: str = "parallel"  # parallel (without self-attention), or serial: extra matches in the ordinary decoder
    objects: str = "persistent"  # persistent (those that tracks own), new_born, or all
    every_block: bool = True  # False = the last block's matching serves all blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """Which of the matched queries are good enough (sec. 3.4, Tables 4b and 6)."""

    method: str = "gmm"  # gmm, top_k (no threshold), deta (fixed threshold), atss, sim_ota
    candidates: int = 5  # K: queries per object at most
    pool: str = "block"  # what the mixture is fitted to: the K lowest costs per object of a block, of all_blocks,
    #                      or all_pairs of a block
    iterations: int = 15  # of expectation-maximisation; see docs/design.md
    variance_floor: float = 1e-3  # of a component, squared cost
    smoothing: float = 0.0  # share of the last clip's threshold in the next one's; 0 = each frame on its own
    threshold: float = 0.6  # of deta: the highest cost that passes
    force_best: bool = False  # an object's best query always passes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """The loss of the parallel decoder (Table 4a). Rows of a kind that is switched off are left out of it."""

    weight: float = 1.0
    object_loss: bool = True  # object queries, matched one to many ("Det")
    track_loss: bool = True  # track queries, matched by identity ("Trk")
    empty_frames: str = "skip"  # a scene's frame in which nothing is matched: skip, or background for all queries
    new_born: str = "background"  # object queries that the ordinary decoder gave a new object: background, or ignore
    rejected: str = "background"  # candidates that the filter refused: background, or ignore
    normalizer: str = "own"  # divide by the positives of the parallel decoder, or of the serial one


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveConfig:
    """Instance-aware contrastive learning between object and track queries of one object (sec. 3.5)."""

    weight: float = 1.0  # 0 = off
    temperature: float = 0.07
    anchor: str = "object"  # object: its track against other tracks; track: its queries against others'; symmetric
    blocks: str = "last"  # last, or all: the mean over the decoder's blocks
    features: str = "normed"  # of a block: normed, as its heads read them, or raw, before the decoder's last norm
    ffn_dim: int = 1024  # hidden width of the network on object queries
    mlp_dim: int = 256  # hidden width of the scoring network; 0 = one linear map
    vanished_negatives: bool = False  # tracks whose object is gone are negatives, too (anchor object only)
    stop_gradient: str = "none"  # none, or object: object queries teach tracks without learning


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """How a tracker is taught."""

    enabled: bool = False  # False = the baseline
    loss: LossConfig = field(default_factory=LossConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)

    @property
    def needs_parallel(self) -> bool:
        """Whether the tracker must decode a second time without self-attention."""
        return self.enabled and self.matching.decoder == "parallel"

    def decodes_twice(self, tracks: bool) -> bool:
        """Whether it must do so in a frame; `tracks`: there may be track queries.

        Without them no object is persistent, so at the defaults the parallel decoder would be taught nothing.
        """
        taught = tracks or self.matching.objects != "persistent" or self.parallel.empty_frames != "skip"
        return self.needs_parallel and taught


_CHOICES = {
    "loss.forecast_mean": ("annotated", "as_released"),
    "matching.decoder": ("parallel", "serial"),
    "matching.objects": ("persistent", "new_born", "all"),
    "filter.method": ("gmm", "top_k", "deta", "atss", "sim_ota"),
    "filter.pool": ("block", "all_blocks", "all_pairs"),
    "parallel.empty_frames": ("skip", "background"),
    "parallel.new_born": ("background", "ignore"),
    "parallel.rejected": ("background", "ignore"),
    "parallel.normalizer": ("own", "serial"),
    "contrastive.anchor": ("object", "track", "symmetric"),
    "contrastive.blocks": ("last", "all"),
    "contrastive.features": ("normed", "raw"),
    "contrastive.stop_gradient": ("none", "object"),
}

_NUMBERS = {  # least, largest
    "loss.class_weight": (0, 1e3),
    "loss.box_weight": (0, 1e3),
    "loss.forecast_weight": (0, 1e3),
    "loss.focal_alpha": (0, 1),
    "loss.focal_gamma": (0, 10),
    "loss.ground_cost": (0, 1e3),
    "loss.quality_distance": (0, 1e3),
    "loss.class_balance": (0, 2),
    "filter.candidates": (1, 1000),
    "filter.iterations": (1, 1000),
    "filter.variance_floor": (1e-9, 1e3),
    "filter.smoothing": (0, 0.999),
    "filter.threshold": (-1e3, 1e3),
    "parallel.weight": (0, 1e3),
    "contrastive.weight": (0, 1e3),
    "contrastive.temperature": (1e-3, 1e3),
    "contrastive.ffn_dim": (1, 65536),
    "contrastive.mlp_dim": (0, 65536),
}


def check_strategy(strategy: StrategyConfig, prefix: str = "syncl.") -> None:
    """Reject impossible values. Raises InputError naming the dotted key."""
    for key, options in _CHOICES.items():
        if (value := _value(strategy, key)) not in options:
            raise InputError(f"{prefix}{key}: expected {' or '.join(options)}, got {value!r}")
    for key, (least, largest) in _NUMBERS.items():
        if not least <= (value := _value(strategy, key)) <= largest:
            raise InputError(f"{prefix}{key}: must be within {least:g} and {largest:g}, got {value}")
    weights = strategy.loss.code_weights
    if len(weights) != 10 or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise InputError(f"{prefix}loss.code_weights: expected ten numbers, none below zero, got {list(weights)}")
    if strategy.matching.decoder == "serial" and strategy.matching.objects != "new_born":
        raise InputError(
            f"{prefix}matching.objects: the serial decoder's object queries look for new_born objects only, "
            f"got {strategy.matching.objects!r}"
        )


def _value(strategy: StrategyConfig, key: str):
    group, name = key.split(".")
    return getattr(getattr(strategy, group), name)
