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
class DETR3DConfig:
    """The detector that samples image features where a query's reference point is seen (detector detr3d)."""

    num_levels: int = 4  # maps of the feature pyramid: those of the backbone, then halved ones
    pad_multiple: int = 32  # images are filled up with zeros at the right and the bottom to a multiple of it, pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class MUTR3DConfig:
    """MUTR3D's track memory (framework mutr3d with detector detr3d)."""

    memory_length: int = 4  # past features per track
    memory_period: int = 3  # frames after a remembered one that are not remembered (inference)


@dataclass(frozen=True, slots=True, kw_only=True)
class PETRv2Config:
    """The detector that looks at the frame of this step and at that of the step before (detector petrv2)."""

    stand_in_seconds: float = 1.245  # a first frame is its own earlier one, so long ago (released: 15 sweeps of 83 ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """The queue of objects found in earlier frames (detector stream_petr)."""

    memory_length: int = 1024  # entries in the queue
    pushed: int = 256  # rows with the highest scores that enter the queue after each frame
    propagated: int = 256  # newest entries that are queries of the next frame (framework none); made up in a first one


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """PF-Track on PETR. Defaults are the released 320x800 network, except for the backbone."""

    backbone: str = "small"  # small (for demos and CPUs), v2_99, resnet50, resnet101; both also with _caffe, _caffe_dcn
    detector: str = "petr"  # what looks at the images: petr, petrv2, detr3d, stream_petr
    framework: str = "pf_track"  # what turns detections into tracks: pf_track, mutr3d, or none (detections only)
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
    petrv2: PETRv2Config = field(default_factory=PETRv2Config)
    detr3d: DETR3DConfig = field(default_factory=DETR3DConfig)
    mutr3d: MUTR3DConfig = field(default_factory=MUTR3DConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackConfig:
    """Life cycle of tracks at inference (PF-Track's released values)."""

    slots: int = 300  # K: tracks that can live at once; beyond it the lowest scores are dropped and counted
    score_threshold: float = 0.4  # birth, and counting as seen
    record_threshold: float = 0.4  # below it the motion prediction replaces the detection
    filter_threshold: float = 0.35  # below it a track counts as missed and is not output (MUTR3D)
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


def with_values(config: SynclConfig, values: dict) -> SynclConfig:
    """The configuration with a partial file's values over its own. Raises InputError naming the dotted key."""
    result = config_from_dict(SynclConfig, _merged(config_to_dict(config), values))
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
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{key}: expected {hint.__name__}, got {value!r}")
    return value


TRACKERS = (
    *(("pf_track", "petr"), ("none", "petr"), ("pf_track", "petrv2"), ("none", "petrv2")),
    *(("mutr3d", "detr3d"), ("mutr3d", "stream_petr"), ("none", "stream_petr")),
)
"""(framework, detector): the combinations that exist; with "none" no box has an identity that lasts."""

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
        "model.petrv2.stand_in_seconds": config.model.petrv2.stand_in_seconds,
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
    for key in ("process_period", "timeout", "reset_gap", "max_extrapolation", "coast_max", "max_ego_jump"):
        if not 0 <= (value := getattr(config.sync, key)) <= _LARGEST:
            unit = "metres" if key == "max_ego_jump" else "seconds"
            raise InputError(f"sync.{key}: must be zero or more {unit}, got {value}; at most {_LARGEST}")
    for key in ("score_threshold", "record_threshold", "filter_threshold", "output_threshold"):
        if not 0 <= (value := getattr(config.track, key)) <= 1:
            raise InputError(f"track.{key}: must be within 0 and 1, got {value}")
    _check_rig(config.rig)
    _check_image(config.image)
    if config.model.detector == "petrv2" and (config.image.height % 16 or config.image.width % 16):
        size = f"{config.image.height} x {config.image.width}"
        raise InputError(f"image.height, image.width: petrv2 needs multiples of 16, got {size}")
    _check_model(config.model)
    check_train(config.train)
    check_strategy(config.syncl)
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
    offsets = rig.stamp_offsets
    if offsets and (len(offsets) != len(rig.cameras) or not all(abs(offset) <= 10 for offset in offsets)):
        raise InputError(
            f"rig.stamp_offsets: expected {len(rig.cameras)} numbers of seconds within -10 and 10, one for each of "
            f"rig.cameras, got {list(offsets)}"
        )
    if rig.rectify not in ("auto", "always", "never"):
        raise InputError(f"rig.rectify: expected auto, always or never, got {rig.rectify!r}")
    if not 0 <= rig.max_calibration_change <= _LARGEST:
        raise InputError(f"rig.max_calibration_change: must be zero or more pixels, got {rig.max_calibration_change}")


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
    _check_detr3d(model)
    if model.detector == "stream_petr":
        _check_stream(model)
    if (model.framework, model.detector) not in TRACKERS:
        known = ", ".join(f"{framework} with {detector}" for framework, detector in TRACKERS)
        raise InputError(f"model.framework, model.detector: {model.framework} with {model.detector}; known: {known}")
    if model.neutral_start and model.framework != "pf_track":
        raise InputError("model.neutral_start: only trackers have it; it needs model.framework pf_track")


def _check_detr3d(model: ModelConfig) -> None:
    for key, value, low, high in (
        ("detr3d.num_levels", model.detr3d.num_levels, 3, 8),
        ("detr3d.pad_multiple", model.detr3d.pad_multiple, 1, 1024),
        ("mutr3d.memory_length", model.mutr3d.memory_length, 1, 1000),
        ("mutr3d.memory_period", model.mutr3d.memory_period, 0, 1000),
    ):
        if not low <= value <= high:
            raise InputError(f"model.{key}: must be within {low} and {high}, got {value}")


def _check_stream(model: ModelConfig) -> None:
    stream = model.stream
    if not 0 < stream.propagated <= stream.memory_length <= _LARGEST:
        raise InputError(f"model.stream.propagated: {stream.propagated} of memory_length {stream.memory_length}")
    if not 0 < stream.pushed <= min(model.num_queries, stream.memory_length):
        most = f"num_queries {model.num_queries} and memory_length {stream.memory_length}"
        raise InputError(f"model.stream.pushed: {stream.pushed} is not within {most}")
    if model.depth_bins < 30:
        raise InputError(f"model.depth_bins: stream_petr needs 30 or more, got {model.depth_bins}")


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
