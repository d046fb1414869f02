"""Every row of the paper's ablation tables by name: those of the losses, and those of the trainer (Tables 7 and 8)."""

from syncl_core.config import SynclConfig, with_values
from syncl_core.errors import InputError
from syncl_core.losses import ablations
from syncl_core.losses.ablations import Ablation

_SYNCL = {"syncl": {"enabled": True}}
_ONE_STAGE = {"epochs": 24}  # as long as both stages together

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
    "table8/1": Ablation(
        description="one stage (give no --init), baseline",
        values={"syncl": {"enabled": False}, "train": _ONE_STAGE},
        **dict(amota=36.5, amotp=1.411, nds=46.2, map=36.9),
    ),
}
"""Table 8's other rows stand on OneTrack, which is another method: they are not reachable."""


def ablated(config: SynclConfig, name: str) -> SynclConfig:
    """The configuration of a row of a table. Raises InputError for an unknown one."""
    if name not in ABLATIONS:
        raise InputError(f"--ablation {name}: unknown; known: {', '.join(ABLATIONS)}")
    return with_values(config, ABLATIONS[name].values)


def format_ablations() -> str:
    """A text table: names, descriptions and the paper's figures (nuScenes val, V2-99, 320x800)."""
    lines = [f"{'name':<18}{'AMOTA':>6}{'AMOTP':>7}{'NDS':>6}{'mAP':>6}  what"]
    lines += [
        f"{name:<18}{row.amota:>6.1f}{row.amotp:>7.3f}{row.nds:>6.1f}{row.map:>6.1f}  {row.description}"
        for name, row in ABLATIONS.items()
    ]
    return "\n".join(lines)
