"""Typed configuration: frozen dataclasses with defaults, filled from a partial YAML file.

`load_config("config/petr_small_320x800.yaml")` reads only the keys that differ from the defaults below. An unknown key,
a wrong type or an impossible value is an InputError that names the file and the dotted key. There is no inheritance
between files and no string that names a class.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from syncl_core.classes import CAMERAS, DETECTION_CLASSES
from syncl_core.errors import InputError


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """PF-Track on PETR. Defaults are the released 320x800 network, except for the backbone."""

    backbone: str = "small"  # small (for demos and CPUs), v2_99, resnet50, resnet101, resnet50_caffe, resnet101_caffe
    detector: str = "petr"  # what looks at the images: petr
    framework: str = "pf_track"  # what turns detections into tracks: pf_track, or none (every frame stands alone)
    embed_dim: int = 256  # channels of tokens and queries
    num_queries: int = 500  # object queries
    num_layers: int = 6  # decoder layers
    num_heads: int = 8  # attention heads
    ffn_dim: int = 2048  # hidden width of the feed-forward networks
    reasoning_layers: int = 2  # layers of each of the three reasoning decoders
    dropout: float = 0.1
    depth_bins: int = 64  # points per token ray (PETR, linear-increasing discretisation)
    depth_start: float = 1.0  # metres
    position_range: tuple[float, ...] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)  # metres, model frame, ray points
    pc_range: tuple[float, ...] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)  # metres, model frame, reference points
    history_length: int = 3  # H past frames
    future_steps: int = 8  # F predicted steps of 0.5 s
    class_prior: float = 0.01  # initial class probability; the bias is -log((1 - p) / p)
    neutral_start: bool = False  # untrained heads predict a resting, car-sized box where the query is (for demos)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackConfig:
    """Life cycle of tracks at inference (PF-Track's released values)."""

    slots: int = 300  # K: tracks that can live at once; beyond it the lowest scores are dropped and counted
    score_threshold: float = 0.4  # birth, and counting as seen
    record_threshold: float = 0.4  # below it the motion prediction replaces the detection
    output_threshold: float = 0.2  # tracks with a lower score are not output
    max_output: int = 150  # tracks that are output at most, those with the highest scores
    max_age: int = 7  # frames: a track dies when it was missed this often in a row
    step_seconds: float = 0.5  # time between two frames in training
    ego_update: str = "exact"  # "exact" also turns velocity, heading and motion; "as_released" does as PF-Track does


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """How six image streams become frame sets."""

    anchor: str = ""  # camera whose stamps the others are compared with; "" = the first of the rig
    process_period: float = 0.5  # seconds between two processed sets; 0 = every set
    max_spread: float = 0.06  # seconds: largest distance of a camera's stamp from its expected one
    timeout: float = 0.15  # seconds on the clock a set stays open after its first image arrived
    min_cameras: int = 6  # sets with fewer images are not processed
    reset_gap: float = 2.0  # seconds without a processed set after which tracks are forgotten
    max_extrapolation: float = 0.0  # seconds a pose may be extrapolated beyond the newest one


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

    @property
    def tracking_classes(self) -> tuple[str, ...]:
        return self.classes[: self.num_tracking_classes]


def load_config(path: str | Path) -> SynclConfig:
    """Read a YAML file over the defaults. Raises InputError naming the file and the key."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
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
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise InputError(f"{prefix}{key}: unknown key; known here: {', '.join(sorted(known))}")
    return cls(**{key: _convert(value, hints[key], prefix + key) for key, value in values.items()})


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
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{key}: expected {hint.__name__}, got {value!r}")
    return value


TRACKERS = (("pf_track", "petr"), ("none", "petr"))
"""(framework, detector): the combinations that exist; "none" is a detector without memory."""

_LARGEST = 10**6
_POSITIVE_MODEL_KEYS = (
    *("embed_dim", "num_queries", "num_layers", "num_heads", "ffn_dim", "reasoning_layers"),
    *("depth_bins", "depth_start", "history_length", "future_steps"),
)


def check_config(config: SynclConfig) -> None:
    """Reject impossible values. Raises InputError naming the dotted key."""
    positive = {
        "image.height": config.image.height,
        "image.width": config.image.width,
        **{f"model.{name}": getattr(config.model, name) for name in _POSITIVE_MODEL_KEYS},
        "track.slots": config.track.slots,
        "track.max_output": config.track.max_output,
        "track.max_age": config.track.max_age,
        "track.step_seconds": config.track.step_seconds,
        "sync.min_cameras": config.sync.min_cameras,
        "sync.max_spread": config.sync.max_spread,
    }
    for key, value in positive.items():
        if not 0 < value <= _LARGEST:
            raise InputError(f"{key}: must be positive, got {value}; at most {_LARGEST}")
    for key in ("process_period", "timeout", "reset_gap", "max_extrapolation"):
        if not 0 <= (value := getattr(config.sync, key)) <= _LARGEST:
            raise InputError(f"sync.{key}: must be zero or more seconds, got {value}; at most {_LARGEST}")
    for key in ("score_threshold", "record_threshold", "output_threshold"):
        if not 0 <= (value := getattr(config.track, key)) <= 1:
            raise InputError(f"track.{key}: must be within 0 and 1, got {value}")
    _check_rig(config.rig)
    _check_image(config.image)
    _check_model(config.model)
    if config.track.ego_update not in ("exact", "as_released"):
        raise InputError(f"track.ego_update: expected exact or as_released, got {config.track.ego_update!r}")
    if not 0 < config.num_tracking_classes <= len(config.classes):
        raise InputError(
            f"num_tracking_classes: expected 1 to {len(config.classes)}, got {config.num_tracking_classes}"
        )
    if config.sync.anchor and config.sync.anchor not in config.rig.cameras:
        raise InputError(f"sync.anchor: {config.sync.anchor!r} is not one of rig.cameras")
    if config.sync.min_cameras > len(config.rig.cameras):
        raise InputError(f"sync.min_cameras: {config.sync.min_cameras} of {len(config.rig.cameras)} cameras")


def _check_rig(rig: RigConfig) -> None:
    if len(set(rig.cameras)) != len(rig.cameras) or not rig.cameras:
        raise InputError("rig.cameras: expected distinct camera names")
    translation, rotation = rig.base_from_model_translation, rig.base_from_model_rotation
    if len(translation) != 3 or not all(map(math.isfinite, translation)):
        raise InputError(f"rig.base_from_model_translation: expected three numbers, got {list(translation)}")
    if len(rotation) != 4 or not 1e-6 < math.hypot(*rotation) < math.inf:
        raise InputError(f"rig.base_from_model_rotation: expected a quaternion (w, x, y, z), got {list(rotation)}")


def _check_image(image: ImageConfig) -> None:
    if image.channel_order not in ("bgr", "rgb"):
        raise InputError(f"image.channel_order: expected bgr or rgb, got {image.channel_order!r}")
    finite = all(map(math.isfinite, (*image.mean, *image.std)))
    if len(image.mean) != 3 or len(image.std) != 3 or not finite or min(image.std) <= 0:
        raise InputError("image.mean, image.std: expected three numbers each, std above zero")


def _check_model(model: ModelConfig) -> None:
    if model.embed_dim % model.num_heads or model.embed_dim % 4:
        raise InputError(f"model.embed_dim: {model.embed_dim} is not divisible by num_heads and by 4")
    for key in ("pc_range", "position_range"):
        box = getattr(model, key)
        if len(box) != 6 or not all(low < high for low, high in zip(box[:3], box[3:], strict=True)):
            raise InputError(f"model.{key}: expected six numbers (min x, y, z, max x, y, z), got {list(box)}")
    if not 0 <= model.dropout < 1 or not 0 < model.class_prior < 1:
        raise InputError(f"model.dropout, model.class_prior: probabilities, got {model.dropout}, {model.class_prior}")
    if (model.framework, model.detector) not in TRACKERS:
        known = ", ".join(f"{framework} with {detector}" for framework, detector in TRACKERS)
        raise InputError(f"model.framework, model.detector: {model.framework} with {model.detector}; known: {known}")
    if model.neutral_start and model.framework != "pf_track":
        raise InputError("model.neutral_start: only trackers have it; it needs model.framework pf_track")


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
