"""Typed configuration: frozen dataclasses with defaults, filled from a partial YAML file.

`load_config("config/petr_small_320x800.yaml")` reads only the keys that differ from the defaults below. An unknown key,
a wrong type or an impossible value is an InputError that names the file and the dotted key. There is no inheritance
between files and no string that names a class.
"""

import dataclasses
import functools
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from syncl_core.classes import CAMERAS, DETECTION_CLASSES
from syncl_core.errors import InputError, did_you_mean
from syncl_core.io.yaml_file import read_yaml
from syncl_core.model_config import LARGEST, ModelConfig, check_model
from syncl_core.shipped import named_config
from syncl_core.strategy_config import StrategyConfig, check_strategy
from syncl_core.train_config import TrainConfig, check_train


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The network's image: every camera image is scaled to `width`, then its bottom `height` rows are kept."""

    height: int = 320  # pixels
    width: int = 800  # pixels
    channel_order: str = "bgr"  # "bgr" or "rgb", as the backbone was trained
    mean: tuple[float, ...] = (103.53, 116.28, 123.675)  # subtracted from 0..255, in channel_order
    std: tuple[float, ...] = (57.375, 57.12, 58.395)  # then divided by


@dataclass(frozen=True, slots=True, kw_only=True)
class RigConfig:
    """The cameras, in the order the network was trained with, and the frame its boxes live in."""

    cameras: tuple[str, ...] = CAMERAS
    model_frame: str = "LIDAR_TOP"  # taken from the calibration or /tf_static where it exists ...
    base_from_model_translation: tuple[float, ...] = (0.943713, 0.0, 1.84023)  # ... otherwise this: metres,
    base_from_model_rotation: tuple[float, ...] = (0.7071067811865476, 0.0, 0.0, -0.7071067811865476)  # (w, x, y, z)
    stamp_offsets: tuple[float, ...] = ()  # seconds added to a camera's stamps, in the order of cameras; () = none
    rectify: str = "auto"  # undistort images: always, never, or auto: unless their topic is called image_rect...
    max_calibration_change: float = 20.0  # network pixels; larger changes of intrinsics empty the memory; 0 = never


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackConfig:
    """Life cycle of tracks at inference (PF-Track's released values)."""

    slots: int = 300  # K: tracks that can live at once; beyond it the lowest scores are dropped and counted
    score_threshold: float = 0.4  # birth, and counting as seen
    record_threshold: float = 0.4  # below it the motion prediction replaces the detection
    filter_threshold: float = 0.35  # below it a track counts as missed and is not output (MUTR3D)
    output_threshold: float = 0.2  # tracks with a lower score are not output
    max_output: int = 150  # tracks that are output at most, those with the highest scores
    duplicate_distance: float = 0.0  # metres beyond half a box: of rows so near to each other one lives on; 0 = all do
    class_memory: float = 0.0  # what a frame's class counts for in the track's next frame; 0 = the last alone decides
    max_age: int = 7  # frames: a track dies when it was missed this often in a row
    step_seconds: float = 0.5  # time between two frames in training
    ego_update: str = "exact"  # of PF-Track: exact also turns velocity, heading and motion, as_released does not


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """How six image streams become frame sets."""

    anchor: str = ""  # camera whose stamps the others are compared with; "" = the first of the rig
    process_period: float = 0.5  # seconds between two processed sets; 0 = every set
    max_spread: float = 0.06  # seconds: largest distance of a camera's stamp from its expected one
    timeout: float = 0.15  # seconds on the clock that a set waits for further cameras
    min_cameras: int = 6  # sets with fewer images are not processed
    reset_gap: float = 2.0  # seconds without a processed set after which tracks are forgotten
    max_extrapolation: float = 0.0  # seconds a pose may be extrapolated beyond the newest one
    coast_max: float = 1.0  # seconds that objects are predicted after the last processed set; 0 = not at all
    max_ego_jump: float = 5.0  # metres the vehicle may be from where its motion led; more is reported; 0 = any
    reset_on_ego_jump: bool = False  # and tracks are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class SynclConfig:
    """Everything that defines a tracker."""

    name: str = "petr_small_320x800"
    classes: tuple[str, ...] = DETECTION_CLASSES
    num_tracking_classes: int = 7  # the first so many classes are tracked
    image: ImageConfig = field(default_factory=ImageConfig)
    rig: RigConfig = field(default_factory=RigConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    syncl: StrategyConfig = field(default_factory=StrategyConfig)

    @property
    def tracking_classes(self) -> tuple[str, ...]:
        return self.classes[: self.num_tracking_classes]


_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""4e-4 and the like, which YAML 1.1 takes for a word unless it has both a point and a sign: 4.0e-4."""


def load_config(path: str | Path) -> SynclConfig:
    """Read a YAML file, or the one of that name that comes with the package, over the defaults. Raises InputError
    naming the file and the key."""
    path = named_config(path)
    values = read_yaml(path, "configuration")
    try:
        config = config_from_dict(SynclConfig, {} if values is None else values)
        check_config(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config


def config_from_dict(cls: type, values: object, prefix: str = ""):
    """Build dataclass `cls` from a mapping that may leave keys out. Raises InputError naming the dotted key."""
    if not isinstance(values, dict):
        raise InputError(f"{prefix.rstrip('.') or 'the file'}: expected keys and values, got {values!r}")
    hints = _hints_of(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            hints = (did_you_mean(str(key), known), f"known here: {', '.join(sorted(known))}")
            raise InputError(f"{prefix}{key}: unknown key; {' '.join(filter(None, hints))}")
    return cls(**{key: _convert(value, hints[key], prefix + key) for key, value in values.items()})


_hints_of = functools.cache(typing.get_type_hints)


def with_values(config: SynclConfig, *files: dict) -> SynclConfig:
    """The configuration with partial files' values over its own, one after the other, checked once they are all there.

    Raises InputError naming the dotted key.
    """
    result = config_from_dict(SynclConfig, functools.reduce(_merged, files, config_to_dict(config)))
    check_config(result)
    return result


def _merged(below: dict, above: dict) -> dict:
    both = {k: _merged(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


def _convert(value: object, hint: type, key: str):
    if dataclasses.is_dataclass(hint):
        return config_from_dict(hint, value, key + ".")
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        return None if value is None and type(None) in options else _convert(value, options[0], key)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key}: expected a list of {item.__name__}, got {value!r}")
        return tuple(_convert(v, item, f"{key}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{key}: expected {hint.__name__}, got {value!r}")
    return value


def check_config(config: SynclConfig) -> None:
    """Reject impossible values. Raises InputError naming the dotted key."""
    positive = {
        "image.height": config.image.height,
        "image.width": config.image.width,
        "track.slots": config.track.slots,
        "track.max_output": config.track.max_output,
        "track.max_age": config.track.max_age,
        "track.step_seconds": config.track.step_seconds,
        "sync.min_cameras": config.sync.min_cameras,
        "sync.max_spread": config.sync.max_spread,
    }
    for key, value in positive.items():
        if not 0 < value <= LARGEST:
            raise InputError(f"{key}: must be positive, got {value}; at most {LARGEST}")
    for key in ("process_period", "timeout", "reset_gap", "max_extrapolation", "coast_max", "max_ego_jump"):
        if not 0 <= (value := getattr(config.sync, key)) <= LARGEST:
            unit = "metres" if key == "max_ego_jump" else "seconds"
            raise InputError(f"sync.{key}: must be zero or more {unit}, got {value}; at most {LARGEST}")
    for key in ("score_threshold", "record_threshold", "filter_threshold", "output_threshold", "class_memory"):
        if not 0 <= (value := getattr(config.track, key)) <= 1:
            raise InputError(f"track.{key}: must be within 0 and 1, got {value}")
    if not 0 <= (value := config.track.duplicate_distance) <= LARGEST:
        raise InputError(f"track.duplicate_distance: must be zero or more metres, got {value}; at most {LARGEST}")
    _check_rig(config.rig)
    _check_image(config.image)
    if config.model.detector == "petrv2" and (config.image.height % 16 or config.image.width % 16):
        size = f"{config.image.height} x {config.image.width}"
        raise InputError(f"image.height, image.width: petrv2 needs multiples of 16, got {size}")
    check_model(config.model)
    check_train(config.train)
    check_strategy(config.syncl)
    if config.syncl.contrastive.features == "raw" and config.model.detector == "detr3d":
        raise InputError("syncl.contrastive.features: detr3d has no norm after its decoder; set it to normed")
    if config.track.ego_update not in ("exact", "as_released"):
        raise InputError(f"track.ego_update: expected exact or as_released, got {config.track.ego_update!r}")
    if not config.classes or len(set(config.classes)) < len(config.classes):
        raise InputError(f"classes: expected one or more, each once, got {list(config.classes)}")
    if not 0 < config.num_tracking_classes <= len(config.classes):
        count, given = len(config.classes), config.num_tracking_classes
        raise InputError(f"num_tracking_classes: expected 1 to {count}, got {given}: classes has {count}")
    _check_proposals(config)
    rows = config.model.num_queries + config.model.stream.propagated
    if (config.model.framework, config.model.detector) == ("none", "stream_petr") and config.track.slots > rows:
        raise InputError(f"track.slots: this detector says {rows} boxes a frame, got {config.track.slots}")
    if config.train.freeze_encoder and (config.model.framework, config.model.detector) != ("mutr3d", "detr3d"):
        given = f"{config.model.framework} with {config.model.detector}"
        raise InputError(f"train.freeze_encoder: only mutr3d with detr3d can, got {given}")
    if config.train.frozen_stages and not config.model.backbone.startswith("resnet"):
        raise InputError(f"train.frozen_stages: only a ResNet has them, got model.backbone {config.model.backbone}")
    if config.sync.anchor and config.sync.anchor not in config.rig.cameras:
        raise InputError(f"sync.anchor: {config.sync.anchor!r} is not one of rig.cameras")
    if config.sync.min_cameras > len(config.rig.cameras):
        raise InputError(f"sync.min_cameras: {config.sync.min_cameras} of {len(config.rig.cameras)} cameras")


def _check_proposals(config: SynclConfig) -> None:
    """Every query of its own begins at a cell of its own of the finest map, which has a stride of 8 pixels."""
    detr3d, sides = config.model.detr3d, (config.image.height, config.image.width)
    rows, cols = (math.ceil(math.ceil(pixels / detr3d.pad_multiple) * detr3d.pad_multiple / 8) for pixels in sides)
    if detr3d.proposals and config.model.num_queries > (cells := len(config.rig.cameras) * rows * cols):
        raise InputError(
            f"model.num_queries: {config.model.num_queries} proposals from {cells} cells; choose fewer, larger images, "
            "or model.detr3d.proposals: false"
        )


def _check_rig(rig: RigConfig) -> None:
    if len(set(rig.cameras)) != len(rig.cameras) or not rig.cameras:
        raise InputError("rig.cameras: expected distinct camera names")
    translation, rotation = rig.base_from_model_translation, rig.base_from_model_rotation
    if len(translation) != 3 or not all(map(math.isfinite, translation)):
        raise InputError(f"rig.base_from_model_translation: expected three numbers, got {list(translation)}")
    if len(rotation) != 4 or not 1e-6 < math.hypot(*rotation) < math.inf:
        raise InputError(f"rig.base_from_model_rotation: expected a quaternion (w, x, y, z), got {list(rotation)}")
    offsets = rig.stamp_offsets
    if offsets and (len(offsets) != len(rig.cameras) or not all(abs(offset) <= 10 for offset in offsets)):
        raise InputError(
            f"rig.stamp_offsets: expected {len(rig.cameras)} numbers of seconds within -10 and 10, one for each of "
            f"rig.cameras, got {list(offsets)}"
        )
    if rig.rectify not in ("auto", "always", "never"):
        raise InputError(f"rig.rectify: expected auto, always or never, got {rig.rectify!r}")
    if not 0 <= rig.max_calibration_change <= LARGEST:
        raise InputError(f"rig.max_calibration_change: must be zero or more pixels, got {rig.max_calibration_change}")


def _check_image(image: ImageConfig) -> None:
    if image.channel_order not in ("bgr", "rgb"):
        raise InputError(f"image.channel_order: expected bgr or rgb, got {image.channel_order!r}")
    finite = all(map(math.isfinite, (*image.mean, *image.std)))
    if len(image.mean) != 3 or len(image.std) != 3 or not finite or min(image.std) <= 0:
        raise InputError("image.mean, image.std: expected three numbers each, std above zero")


def with_defaults(stored: dict) -> dict:
    """A configuration that an earlier version stored, with the keys that have come since; as it is if some are gone."""
    try:
        return config_to_dict(config_from_dict(SynclConfig, stored))
    except InputError:
        return stored


def config_to_dict(config) -> dict:
    """Plain lists, numbers and strings, as YAML and JSON want them."""
    return {
        f.name: config_to_dict(value)
        if dataclasses.is_dataclass(value := getattr(config, f.name))
        else list(value)
        if isinstance(value, tuple)
        else value
        for f in dataclasses.fields(config)
    }
