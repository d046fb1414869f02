"""The picture of a comparison: what it draws by hand, where the dots are, several comparisons in one."""

import json

import cv2
import numpy as np
import pytest

from syncl_core.cli import main
from syncl_core.training.comparison.picture import COLORS, figure, lines_of, overview, write_picture
from syncl_core.training.comparison.results import by_seed

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.collections import LineCollection, PathCollection  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

_METRICS = ("amota", "nds", "map")


def _results(runs: dict, runs_of: dict) -> dict:
    """results.json as far as the picture reads it. `runs`: (row, seed) to AMOTA, NDS and mAP."""
    return {
        "seeds": sorted({seed for _, seed in runs}),
        "rows": {row: {"runs_of": owner} for row, owner in runs_of.items()},
        "runs": [
            {"row": row, "seed": seed, "scores": dict(zip(_METRICS, scores, strict=True))}
            for (row, seed), scores in runs.items()
        ],
    }


_RUNS = {
    ("table4a/1", 0): (0.20, 0.30, 0.10),
    ("table4a/1", 1): (0.22, 0.31, 0.12),
    ("table4a/1", 2): (0.24, 0.32, 0.14),
    ("table4a/5", 0): (0.21, 0.33, 0.09),
    ("table4a/5", 1): (0.25, None, 0.10),
    ("open/force_best", 2): (0.20, 0.30, 0.10),
}
_RESULTS = _results(_RUNS, {row: row for row in ("table4a/1", "table4a/5", "open/force_best")})


def test_differences_seed_by_seed_by_hand():
    assert by_seed(_RESULTS, "table4a/5", "amota") == pytest.approx({0: 0.01, 1: 0.03})
    assert by_seed(_RESULTS, "table4a/5", "nds") == pytest.approx({0: 0.03})
    assert by_seed(_RESULTS, "open/force_best", "map") == pytest.approx({2: -0.04})
    syncl, best = lines_of(_RESULTS)
    assert syncl.label.startswith("table4a/5 ") and best.label.startswith("open/force_best ")
    assert syncl.ours["amota"] == pytest.approx((1, 3)) and syncl.ours["map"] == pytest.approx((-1, -2))
    assert syncl.paper == pytest.approx({"amota": 3.9, "nds": 2.0, "map": 1.8}) and best.paper == {}


def test_a_network_has_one_line_and_a_baseline_none():
    owners = {"table4a/1": "table4a/1", "table4a/5": "table4a/5", "table4b/gmm": "table4a/5", "table5/1": "table4a/1"}
    (line,) = lines_of(_results(_RUNS, owners))
    assert line.label.startswith("table4a/5 ")


def test_dots_are_where_they_belong_in_the_color_that_says_so():
    runs = {("table4a/1", seed): (0.5, 0.5, 0.5) for seed in range(3)}
    runs |= {("table4a/5", seed): (0.52 + 0.001 * seed, 0.48 - 0.001 * seed, 0.49 + 0.01 * seed) for seed in range(3)}
    panels = figure(lines_of(_results(runs, {row: row for row, _ in runs}))).axes
    expected = [((2, 2.1, 2.2), "ahead", 3.9), ((-2, -2.1, -2.2), "behind", 2.0), ((-1, 0, 1), "unclear", 1.8)]
    for panel, metric, (points, color, paper) in zip(panels, ("AMOTA", "NDS", "mAP"), expected, strict=True):
        dots, diamond = (each for each in panel.collections if isinstance(each, PathCollection))
        assert panel.get_title() == metric
        assert np.asarray(dots.get_offsets()) == pytest.approx(np.array([(x, 0) for x in points]), abs=1e-9)
        assert to_rgb(COLORS[color]) == pytest.approx(dots.get_facecolor()[0][:3])
        assert np.asarray(diamond.get_offsets()) == pytest.approx(np.array([(paper, 0)]))
        (bar,) = (each for each in panel.collections if isinstance(each, LineCollection))
        mean, deviation = np.mean(points), np.std(points, ddof=1)
        assert bar.get_segments()[0][:, 0] == pytest.approx([mean - deviation, mean + deviation])


def test_long_names_leave_room_for_the_panels():
    """Else the longest name of the open choices takes most of the width."""
    runs = {(row, 0): (0.5, 0.5, 0.5) for row in ("table4a/1", "open/no_false_background")}
    picture = figure(lines_of(_results(runs, {row: row for row, _ in runs})))
    picture.draw_without_rendering()
    assert sum(panel.get_position().width for panel in picture.axes) > 0.5


def test_a_baseline_alone_has_an_empty_picture(tmp_path):
    write_picture(tmp_path / "a.png", figure(lines_of(_results(_RUNS, {"table4a/1": "table4a/1"}))))
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_several_comparisons_in_one_picture(tmp_path, capsys):
    for name in ("a/results.json", "b_of_8.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(_RESULTS))
    files = [tmp_path / "a" / "results.json", tmp_path / "b_of_8.json"]
    lines = overview(files)
    assert [line.label for line in lines] == ["a", "b of 8"]
    assert all(line.ours["amota"] == pytest.approx((1, 3)) for line in lines)
    out = tmp_path / "out" / "overview.png"
    assert main(["ablate", "--overview", *map(str, files), "-o", str(out)]) == 0
    assert "2 comparisons -> " in capsys.readouterr().out and cv2.imread(str(out)).shape[1] > 500


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rows": {"table4a/1": {}}, "runs": [], "seeds": []}'])
def test_what_is_no_comparison_is_named(tmp_path, capsys, text):
    (tmp_path / "a.json").write_text(text)
    out = tmp_path / "a.png"
    assert main(["ablate", "--overview", str(tmp_path / "a.json"), "-o", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"syncl: error: {tmp_path / 'a.json'}: expected the results.json of a comparison of two rows or more\n"
    )
    assert main(["ablate", "--overview", str(tmp_path / "b.json"), "-o", str(out)]) == 2
    assert (
        capsys.readouterr().err == f"syncl: error: {tmp_path / 'b.json'}: cannot read it: No such file or directory\n"
    )
    assert not out.exists()
    assert main(["ablate", "--overview", str(tmp_path / "a.json")]) == 2
    assert "needs the picture to write" in capsys.readouterr().err
