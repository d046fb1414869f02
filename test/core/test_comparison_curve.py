"""The curve over budgets: its points by hand, what is drawn where, and files that do not belong together."""

import json

import cv2
import numpy as np
import pytest

from syncl_core.cli import main
from syncl_core.training.comparison.curve import curve, curve_figure

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.collections import LineCollection  # noqa: E402


def _results(iterations: int, baseline: list, syncl: list, **train) -> dict:
    """results.json as far as the curve reads it: AMOTA by seed; NDS and mAP are a half and a quarter of it."""
    runs = [
        {"row": row, "seed": seed, "scores": {"amota": amota, "nds": amota / 2, "map": amota / 4}}
        for row, values in (("table4a/1", baseline), ("table4a/5", syncl))
        for seed, amota in enumerate(values)
    ]
    return {
        "config": {"name": "a", "train": {"iterations": iterations, "learning_rate": 1e-4} | train},
        "seeds": list(range(len(baseline))),
        "rows": {row: {"runs_of": row} for row in ("table4a/1", "table4a/5")},
        "runs": runs,
    }


@pytest.fixture
def written(tmp_path):
    def write(*results: dict):
        files = [tmp_path / f"{number}.json" for number in range(len(results))]
        for file, each in zip(files, results, strict=True):
            file.write_text(json.dumps(each))
        return files

    return write


_LONG = _results(600, [0.30, 0.32], [0.33, 0.35])
_SHORT = _results(200, [0.10, 0.14], [0.20, 0.22])


def test_points_are_in_the_order_of_their_iterations(written):
    short, long = curve(written(_LONG, _SHORT))
    assert (short.iterations, long.iterations) == (200, 600)
    assert short.values["baseline"]["amota"] == pytest.approx((10, 14))
    assert short.values["SynCL"]["nds"] == pytest.approx((10, 11))
    assert long.values["SynCL"]["map"] == pytest.approx((8.25, 8.75))


def test_lines_go_through_the_means_with_bars_of_the_spread(written):
    panel = curve_figure(curve(written(_LONG, _SHORT))).axes[0]
    lines = {container.get_label(): container for container in panel.containers}
    by_hand = {"baseline": [(10, 14), (30, 32)], "SynCL": [(20, 22), (33, 35)]}
    for series, values in by_hand.items():
        line, _, (bars,) = lines[series]
        assert line.get_xydata() == pytest.approx(np.array([[200, np.mean(values[0])], [600, np.mean(values[1])]]))
        assert isinstance(bars, LineCollection)
        spreads = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        assert spreads == pytest.approx([np.std(each, ddof=1) for each in values])


def test_one_seed_has_no_bar(written):
    (line, _, (bars,)), _ = curve_figure(curve(written(_results(200, [0.1], [0.2])))).axes[0].containers
    assert line.get_xydata() == pytest.approx(np.array([[200, 10]]))
    assert all(np.ptp(segment[:, 1]) == 0 for segment in bars.get_segments())


def test_a_score_that_is_missing_leaves_a_gap(written):
    """A metric that is no number is null in results.json."""
    results = json.loads(json.dumps(_SHORT))
    for run in results["runs"]:
        run["scores"]["nds"] = None
    points = curve(written(results, _LONG))
    assert points[0].values["SynCL"]["nds"] == () and len(points[0].values["SynCL"]["amota"]) == 2
    line, _, _ = curve_figure(points).axes[1].containers[0]
    assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).tolist() == [True, False]


def test_another_row_has_its_name(written):
    results = json.loads(json.dumps(_SHORT).replace("table4a/5", "table4a/4"))
    labels = [each.get_label() for each in curve_figure(curve(written(results))).axes[0].containers]
    assert labels == ["baseline", "table4a/4"]


def test_the_command_draws_it(written, tmp_path, capsys):
    out = tmp_path / "curve.png"
    assert main(["ablate", "--curve", *map(str, written(_LONG, _SHORT)), "-o", str(out)]) == 0
    assert "2 comparisons -> " in capsys.readouterr().out and cv2.imread(str(out)).shape[1] > 500


def test_what_does_not_belong_together_is_named(written, tmp_path, capsys):
    out = tmp_path / "curve.png"

    def refused(*results: dict) -> str:
        assert main(["ablate", "--curve", *map(str, written(*results)), "-o", str(out)]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    other_rate = _results(600, [0.1], [0.2], learning_rate=2e-4)
    assert "differ in more than their iterations: train.learning_rate: was 0.0001, is 0.0002" in refused(
        _SHORT, other_rate
    )
    without = json.loads(json.dumps(_LONG).replace("table4a/5", "table4a/4"))
    assert "differ in more than their iterations: row: was table4a/5, is table4a/4" in refused(_SHORT, without)
    elsewhere = _LONG | {"evaluation": {"data": "world", "split": "test"}}
    assert "differ in more than their iterations: evaluation.split: was val, is test" in refused(
        _SHORT | {"evaluation": {"data": "world", "split": "val"}}, elsewhere
    )
    assert "1.json: 200 iterations, as another one of the files" in refused(_SHORT, _SHORT)
    assert "0.json: expected the results.json of a comparison" in refused({"rows": {}})
    assert "0.json: expected the results.json of a comparison" in refused({**_SHORT, "runs": []})
    both = [str(file) for file in written(_SHORT)]
    assert main(["ablate", "--curve", *both, "--overview", *both, "-o", str(out)]) == 2
