"""How a tracker is trained: key `train` of a configuration. Defaults are PF-Track's second stage at 320x800.

What is trained is in `model`, by which strategy in `syncl`. A detector is a configuration with `model.framework: none`;
a tracker starts from its weights (two stages) or from nothing (one stage): `syncl train --init`.
"""

import math
from dataclasses import dataclass

from syncl_core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run. An iteration is one step of the optimiser: `batch_size` clips in every process."""

    clip_length: int = 3  # T consecutive key frames the tracker is unrolled over
    scene_start: str = "repeat"  # clips there: repeat: the first frame fills them up (published); move: they end later
    batch_size: int = 1  # clips per process
    epochs: int = 12  # times every key frame was the last of a clip ...
    iterations: int = 0  # ... unless this says how many steps there are
    seed: int = 0  # of weights, order, augmentation and dropout
    first_scene: int = 0  # of the split: the number of the first scene used; a further training can see new ones ...
    scenes: int = 0  # ... and so many at most; 0 = all, of the endless world as many as the run has clips for

    learning_rate: float = 2e-4  # AdamW, for the global batch as it is
    backbone_lr_factor: float = 0.1  # of learning_rate, for the image backbone
    weight_decay: float = 0.01
    warmup_iterations: int = 500  # linear, from warmup_start times the learning rate
    warmup_start: float = 1 / 3
    final_lr_factor: float = 1e-3  # of learning_rate, at the end of the cosine
    max_gradient_norm: float = 35.0  # the tracker's gradient is scaled down to it, and apart that of its helpers
    precision: str = "auto"  # of the network: bf16 (autocast), fp32, or auto: bf16 on a GPU, fp32 on a CPU
    freeze_backbone: bool = False  # the image backbone stays as it starts
    freeze_encoder: bool = False  # so does all that leads to feature maps; what it makes of a key frame is kept on disk
    start_with: str = "all"  # of the weights to begin with: all, or encoder: those up to the maps; seeds draw the rest
    frozen_stages: int = 0  # of a ResNet that stay as they start, with all before them (MUTR3D: 1)
    batch_norm: str = "frozen"  # of the backbone: frozen: statistics stay as loaded; fixed: its weights, too (published
    #                             with ResNets); trained: for a backbone from nothing
    spread_start: bool = False  # untrained queries differ, or carry on from a detector (training/start.py)
    checkpoint_activations: bool = False  # compute the backbone twice instead of remembering it: less memory, slower

    dense_weight: float = 0.0  # of a loss on what each cell of the feature maps says about the object it shows
    dense_only: bool = False  # and of nothing else: the queries wait, a step of image backbone and neck costs less
    denoising: int = 0  # further queries per object and frame that begin near it and learn to find it ...
    denoising_radius: float = 5.0  # ... at most so many metres away

    dropped_tracks: float = 0.0  # probability that a track is lost between two frames (MUTR3D: 0.1)
    lost_distance: float = 0.0  # metres: a track farther than that from its object has lost it; 0 = never
    false_tracks: float = 0.0  # false tracks that live on, for every true one (MUTR3D: 0.3)

    resize: tuple[float, ...] = (0.94, 1.25)  # image scale is drawn from this range, once per clip; 1 = as at inference
    flip: float = 0.0  # probability of mirrored images (0.5 for detectors, 0 for trackers as published)
    grid_mask: float = 0.7  # probability that a grid of squares is blanked in all images of a step
    camera_dropout: float = 0.0  # probability that cameras fail for a whole clip ...
    max_dropped_cameras: int = 2  # ... one to so many of them, as likely; one always stays

    engine: str = "ddp"  # of several processes: ddp: each holds the whole model; fsdp: its share of the parameters
    workers: int = 4  # processes that decode clips; 0 = the training process itself
    log_every: int = 10  # iterations between two rows of scalars
    save_every: int = 1000  # iterations between two snapshots; the end and an interruption save, too
    evaluate_every: int = 0  # iterations between two evaluations; 0 = never


FREE_TO_CHANGE = ("engine", "workers", "log_every", "save_every", "evaluate_every")
"""Keys that a resumed run may change: they do not touch the numbers."""

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Of tracks, for `syncl tune` and `syncl ablate` to choose from, unless the user names some."""


def check_train(config: TrainConfig) -> None:
    """Reject impossible values. Raises InputError naming the dotted key."""
    for key in ("clip_length", "batch_size", "epochs", "learning_rate", "max_gradient_norm", "log_every", "save_every"):
        if not 0 < (value := getattr(config, key)) < math.inf:
            raise InputError(f"train.{key}: must be positive, got {value}")
    for key in (
        "iterations",
        "seed",
        "first_scene",
        "scenes",
        "weight_decay",
        "warmup_iterations",
        "workers",
        "evaluate_every",
        "max_dropped_cameras",
        "dense_weight",
        "denoising",
        "denoising_radius",
        "lost_distance",
    ):
        if not 0 <= (value := getattr(config, key)) < math.inf:
            raise InputError(f"train.{key}: must be zero or more, got {value}")
    for key in (
        *("backbone_lr_factor", "warmup_start", "final_lr_factor"),
        *("flip", "grid_mask", "camera_dropout", "dropped_tracks", "false_tracks"),
    ):
        if not 0 <= (value := getattr(config, key)) <= 1:
            raise InputError(f"train.{key}: must be within 0 and 1, got {value}")
    if not 0 <= config.frozen_stages <= 4:
        raise InputError(f"train.frozen_stages: must be within 0 and 4, got {config.frozen_stages}")
    if config.seed >= 2**63:
        raise InputError(f"train.seed: must be below 2^63, got {config.seed}")
    if config.precision not in ("auto", "bf16", "fp32"):
        raise InputError(f"train.precision: expected auto, bf16 or fp32, got {config.precision!r}")
    if config.engine not in ("ddp", "fsdp"):
        raise InputError(f"train.engine: expected ddp or fsdp, got {config.engine!r}")
    if config.scene_start not in ("repeat", "move"):
        raise InputError(f"train.scene_start: expected repeat or move, got {config.scene_start!r}")
    if config.start_with not in ("all", "encoder"):
        raise InputError(f"train.start_with: expected all or encoder, got {config.start_with!r}")
    if config.batch_norm not in ("frozen", "fixed", "trained"):
        raise InputError(f"train.batch_norm: expected frozen, fixed or trained, got {config.batch_norm!r}")
    if config.batch_norm == "trained":
        _check_trained_norm(config)
    if config.freeze_encoder:
        _check_frozen(config)
    if config.dense_only and not (config.dense_weight > 0 and config.clip_length == 1):
        raise InputError("train.dense_only: needs a train.dense_weight above 0 and train.clip_length 1")
    if len(config.resize) != 2 or not 0.1 <= config.resize[0] <= config.resize[1] <= 10:
        raise InputError(f"train.resize: expected two scales, the smaller first, got {list(config.resize)}")


def _check_trained_norm(config: TrainConfig) -> None:
    """Statistics learn once a step, from a backbone that learns."""
    for key in ("freeze_backbone", "freeze_encoder", "checkpoint_activations"):
        if getattr(config, key):
            raise InputError(f"train.batch_norm: trained, but train.{key} is true; choose one")
    if config.frozen_stages:
        raise InputError(f"train.batch_norm: trained, but train.frozen_stages is {config.frozen_stages}; choose one")


def _check_frozen(config: TrainConfig) -> None:
    """What is worked out once cannot be augmented or taught."""
    for key in ("dense_weight", "grid_mask", "flip", "camera_dropout"):
        if getattr(config, key):
            raise InputError(f"train.{key}: must be 0 with train.freeze_encoder, got {getattr(config, key)}")
    if set(config.resize) != {1.0}:
        raise InputError(f"train.resize: must be [1, 1] with train.freeze_encoder, got {list(config.resize)}")
