"""The network's configuration: key `model` of a YAML file (see config.py for how it is read)."""

from dataclasses import dataclass, field

from syncl_core.errors import InputError

LARGEST = 10**6
"""No number of a configuration may exceed this."""

TRACKERS = (
    *(("pf_track", "petr"), ("none", "petr"), ("pf_track", "petrv2"), ("none", "petrv2")),
    *(("mutr3d", "detr3d"), ("mutr3d", "stream_petr"), ("none", "stream_petr")),
)
"""(framework, detector): the combinations that exist; with "none" no box has an identity that lasts."""

_POSITIVE_KEYS = (
    *("embed_dim", "num_queries", "num_layers", "num_heads", "ffn_dim", "reasoning_layers"),
    *("depth_bins", "depth_start", "history_length", "future_steps"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DETR3DConfig:
    """The detector that samples image features where a query's reference point is seen (detector detr3d)."""

    num_levels: int = 4  # maps of the feature pyramid: those of the backbone, then halved ones
    tower: int = 0  # blocks of convolutions more on the finest map (not as released: models/tower.py)
    votes: bool = False  # cells of the maps guess a box, and queries go there (not as released: models/votes.py)
    proposals: bool = False  # object queries begin where votes are, not at learned places (models/proposals.py)
    ground: float = -1.84  # metres: height of a flat road in the model frame (nuScenes: the lidar's), where votes begin
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

    backbone: str = "small"  # small, lean (CPUs), v2_99, resnet50, resnet101; both also with _caffe, _caffe_dcn
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
    track_class_head: bool = False  # track queries have class branches of their own (OneTrack)
    neutral_start: bool = False  # untrained heads predict a resting, car-sized box where the query is (for demos)
    petrv2: PETRv2Config = field(default_factory=PETRv2Config)
    detr3d: DETR3DConfig = field(default_factory=DETR3DConfig)
    mutr3d: MUTR3DConfig = field(default_factory=MUTR3DConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)


def check_model(model: ModelConfig) -> None:
    """Reject impossible values. Raises InputError naming the dotted key."""
    values = {f"model.{name}": getattr(model, name) for name in _POSITIVE_KEYS}
    for key, value in (values | {"model.petrv2.stand_in_seconds": model.petrv2.stand_in_seconds}).items():
        if not 0 < value <= LARGEST:
            raise InputError(f"{key}: must be positive, got {value}; at most {LARGEST}")
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
    if model.track_class_head and model.framework == "none":
        raise InputError("model.track_class_head: framework none has no tracks; set it to false, or choose a framework")
    if model.neutral_start and model.framework != "pf_track":
        raise InputError("model.neutral_start: only trackers have it; it needs model.framework pf_track")


def _check_detr3d(model: ModelConfig) -> None:
    for key in ("tower", "votes"):
        if getattr(model.detr3d, key) and model.detector != "detr3d":
            raise InputError(f"model.detr3d.{key}: only for detector detr3d, got {model.detector}")
    if model.detr3d.proposals and not model.detr3d.votes:
        raise InputError("model.detr3d.proposals: come from votes; set model.detr3d.votes to true")
    for key, value, low, high in (
        ("detr3d.ground", model.detr3d.ground, -100, 100),
        ("detr3d.tower", model.detr3d.tower, 0, 100),
        ("detr3d.num_levels", model.detr3d.num_levels, 3, 8),
        ("detr3d.pad_multiple", model.detr3d.pad_multiple, 1, 1024),
        ("mutr3d.memory_length", model.mutr3d.memory_length, 1, 1000),
        ("mutr3d.memory_period", model.mutr3d.memory_period, 0, 1000),
    ):
        if not low <= value <= high:
            raise InputError(f"model.{key}: must be within {low} and {high}, got {value}")


def _check_stream(model: ModelConfig) -> None:
    stream = model.stream
    if not 0 < stream.propagated <= stream.memory_length <= LARGEST:
        raise InputError(f"model.stream.propagated: {stream.propagated} of memory_length {stream.memory_length}")
    if not 0 < stream.pushed <= min(model.num_queries, stream.memory_length):
        most = f"num_queries {model.num_queries} and memory_length {stream.memory_length}"
        raise InputError(f"model.stream.pushed: {stream.pushed} is not within {most}")
    if model.depth_bins < 30:
        raise InputError(f"model.depth_bins: stream_petr needs 30 or more, got {model.depth_bins}")
