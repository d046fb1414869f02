"""Every row by name: of the paper's tables those of the losses and of the trainer (7 and 8), what it leaves open."""

from syncl_core.config import SynclConfig, with_values
from syncl_core.errors import InputError
from syncl_core.losses import ablations
from syncl_core.losses.ablations import Ablation

_SYNCL = {"syncl": {"enabled": True}}
_ONE_STAGE = {"epochs": 24}  # as long as both stages together
_TWO_HEADS = {"track_class_head": True}
_STREAM = {"framework": "mutr3d", "detector": "stream_petr", "num_queries": 644, "depth_bins": 64}
_STREAM_TRACKS = {"filter_threshold": 0.35, "output_threshold": 0.35, "max_output": 300, "max_age": 5}


def _one_stage(description: str, syncl: bool, *figures: float, model: dict | None = None) -> Ablation:
    model = model or {}
    values = {"syncl": {"enabled": syncl}, "train": _ONE_STAGE} | ({"model": model} if model else {})
    if "detector" in model:
        values["track"] = _STREAM_TRACKS
    amota, amotp, nds, mean_ap = figures
    description = f"one stage (give no --init), {description}"
    return Ablation(description=description, values=values, amota=amota, amotp=amotp, nds=nds, map=mean_ap)


ABLATIONS: dict[str, Ablation] = {
    **ablations.ABLATIONS,
    "table7/2": Ablation(
        description="clips of 2 frames",
        **dict(values=_SYNCL | {"train": {"clip_length": 2}}, amota=43.1, amotp=1.320, nds=49.4, map=38.6),
    ),
    "table7/3": Ablation(
        description="clips of 3 frames",
        **dict(values=_SYNCL | {"train": {"clip_length": 3}}, amota=44.7, amotp=1.262, nds=49.7, map=39.6),
    ),
    "table7/4": Ablation(
        description="clips of 4 frames",
        **dict(values=_SYNCL | {"train": {"clip_length": 4}}, amota=44.2, amotp=1.282, nds=50.1, map=39.3),
    ),
    "table8/1": _one_stage("baseline", False, 36.5, 1.411, 46.2, 36.9),
    "table8/2": _one_stage("two class heads", False, 37.8, 1.380, 47.3, 37.7, model=_TWO_HEADS),
    "table8/3": _one_stage("two class heads and SynCL", True, 42.4, 1.347, 48.9, 38.4, model=_TWO_HEADS),
    "table8/4": _one_stage("StreamPETR, baseline", False, 43.8, 1.265, 53.6, 45.1, model=_STREAM),
    "table8/5": _one_stage("StreamPETR, two class heads", False, 45.3, 1.237, 55.9, 46.4, model=_STREAM | _TWO_HEADS),
    "table8/6": _one_stage(
        *("StreamPETR, two class heads and SynCL", True, 48.1, 1.204, 56.8, 47.0), model=_STREAM | _TWO_HEADS
    ),
    **ablations.OPEN_CHOICES,
}
"""Table 8's rows 2, 3, 5 and 6 stand on OneTrack as far as the paper rebuilt it: object and track queries have a class
head each; OneTrack's dynamic mask and its suppression of costly matches are left out."""


def ablated(config: SynclConfig, name: str) -> SynclConfig:
    """The configuration of a row, as "table4a/2" or "4a/2". Raises InputError for an unknown one."""
    row = name if name in ABLATIONS else f"table{name}"
    if row not in ABLATIONS:
        raise InputError(f"--ablation {name}: unknown; known: {', '.join(ABLATIONS)}")
    twice = {}
    if row.startswith("table8/") and config.train.iterations:  # they go before epochs
        twice = {"train": {"iterations": 2 * config.train.iterations}}
    return with_values(config, ABLATIONS[row].values, twice)


def baseline_of(row: str) -> str:
    """What a row is compared with, as in the paper: in Table 8 detectors and lengths are others than elsewhere."""
    table, _, number = row.partition("/")
    if table == "table8":
        return "table8/4" if number in ("4", "5", "6") else "table8/1"
    return "table4a/1"


def format_ablations() -> str:
    """A text table: names, descriptions and the paper's figures (nuScenes val, V2-99, 320x800)."""
    lines = [f"{'name':<26}{'AMOTA':>6}{'AMOTP':>7}{'NDS':>6}{'mAP':>6}  what"]
    lines += [f"{name:<26}{_figures(row)}  {row.description}" for name, row in ABLATIONS.items()]
    return "\n".join(lines)


def _figures(row: Ablation) -> str:
    if row.amota is None:
        return f"{'-':>6}{'-':>7}{'-':>6}{'-':>6}"
    return f"{row.amota:>6.1f}{row.amotp:>7.3f}{row.nds:>6.1f}{row.map:>6.1f}"
