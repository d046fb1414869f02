"""Differences to the baseline as a picture: a dot for every seed, their mean and spread, the paper's as a diamond."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from syncl_core.errors import InputError
from syncl_core.io.files import whole_file
from syncl_core.training.ablations import ABLATIONS, baseline_of
from syncl_core.training.comparison.page_tables import direction
from syncl_core.training.comparison.results import RESULTS, by_seed, spread

PANELS = {"amota": "AMOTA", "nds": "NDS", "map": "mAP"}
COLORS = {"ahead": "#0072b2", "behind": "#d55e00", "unclear": "#8c8c8c"}
SYNCL = "table4a/5"  # its row
_LABEL_CHARACTERS = 44  # of a line
_LEGEND = (
    "Points more than the baseline. Dots: seeds; bars: mean and standard deviation (blue: all of it above zero; "
    "red: below); diamonds: the paper."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of a comparison in the picture. Differences to the baseline are in points."""

    label: str
    ours: dict[str, tuple[float, ...]]  # by metric, one for each seed
    paper: dict[str, float]  # by metric, where the paper has the row


def lines_of(results: dict) -> list[Line]:
    """Every network of results.json but the baselines, once."""
    rows, lines = results["rows"], []
    seen = {rows[baseline_of(row)]["runs_of"] for row in rows}
    for row, values in rows.items():
        if values["runs_of"] not in seen:
            seen.add(values["runs_of"])
            lines.append(_line(results, row, f"{row}  {ABLATIONS[row].description.removeprefix('SynCL: ')}"))
    return lines


def overview(files: Sequence[Path]) -> list[Line]:
    """A line for each results.json, named as the file or its folder: SynCL, or the first row that is no baseline.

    Raises InputError naming the file that is not one.
    """
    lines = []
    for file in files:
        with comparison_errors(file):
            results = json.loads(file.read_text(encoding="utf-8"))
            lines.append(_line(results, row_of_interest(results), _name(file)))
    return lines


def row_of_interest(results: dict) -> str:
    """SynCL, or the first row that is no baseline. Raises IndexError if there is none."""
    rows = [row for row in results["rows"] if row != baseline_of(row)]
    return SYNCL if SYNCL in rows else rows[0]


@contextmanager
def comparison_errors(file: Path) -> Iterator[None]:
    """What reading a file that is no comparison raises, as an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{file}: cannot read it: {error.strerror}") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"{file}: expected the results.json of a comparison of two rows or more") from None


def _name(file: Path) -> str:
    """What a file is called in the picture: `results` says nothing, its folder does."""
    stem = file.absolute().parent.name if file.name == RESULTS else file.stem
    return stem.replace("_", " ")


def write_picture(path: Path, drawn) -> None:
    """A matplotlib figure as a PNG. Raises InputError if the file cannot be written."""
    with whole_file(path) as partial:
        drawn.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def empty_figure(width: float, height: float):
    """A matplotlib figure of so many inches. Raises InputError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the picture of a comparison needs matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def figure(lines: Sequence[Line]):
    """The picture as a matplotlib figure, a panel for each metric. Raises InputError if matplotlib is missing."""
    labels = [textwrap.fill(line.label, _LABEL_CHARACTERS) for line in lines]
    inches = 0.26 + 0.1 * max((label.count("\n") for label in labels), default=0)
    whole = empty_figure(11, 1.5 + inches * max(1, len(lines)))
    panels = whole.subplots(1, len(PANELS), sharey=True)
    for panel, (metric, title) in zip(panels, PANELS.items(), strict=True):
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        for place, line in enumerate(lines):
            _draw(panel, place, line, metric)
    panels[0].set_yticks(range(len(lines)), labels, fontsize=9)
    panels[0].set_ylim(len(lines) - 0.4, -0.6)
    whole.supxlabel(_LEGEND, fontsize=9)
    return whole


def _draw(panel, place: int, line: Line, metric: str) -> None:
    values = spread(line.ours[metric])
    said = direction(1.0, {"mean": values.mean, "std": values.std})
    color = COLORS[{"same": "ahead", "opposite": "behind"}.get(said, "unclear")]
    panel.scatter(line.ours[metric], [place] * values.count, s=14, color=color, alpha=0.55, linewidths=0)
    if values.std is not None:
        panel.errorbar(values.mean, place, xerr=values.std, fmt="|", color=color, markersize=9, linewidth=1.4)
    if metric in line.paper:
        panel.scatter(
            line.paper[metric], place, marker="D", s=26, facecolors="none", edgecolors="black", linewidths=0.9
        )


def _line(results: dict, row: str, label: str) -> Line:
    figures, base = ABLATIONS[row], ABLATIONS[baseline_of(row)]
    known = [name for name in PANELS if getattr(figures, name) is not None]
    return Line(
        label=label,
        ours={name: tuple(100 * value for value in by_seed(results, row, name).values()) for name in PANELS},
        paper={name: getattr(figures, name) - getattr(base, name) for name in known},
    )
