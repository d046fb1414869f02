"""The quick way through nuscenes-devkit gives what its own way gives, to the last bit."""

import contextlib
import json

import numpy as np
import nuscenes_fixture
import pytest
from nuscenes_fixture import write_tiny_nuscenes

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.io.submission import tracking_submission, write_submission
from syncl_core.types import ObjectSet

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
pytest.importorskip("motmetrics", reason="motmetrics is not installed")
import pandas as pd  # noqa: E402
from nuscenes.eval.tracking import algo, evaluate  # noqa: E402
from nuscenes.eval.tracking.mot import MOTAccumulatorCustom  # noqa: E402

from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402
from syncl_core.evaluation import quick  # noqa: E402
from syncl_core.evaluation.events import SceneEvents, merge  # noqa: E402
from syncl_core.evaluation.tracking import evaluate_tracking  # noqa: E402

FIELDS = ("scores", "centers", "sizes", "rotations", "velocities")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Two scenes of ten key frames with a dozen cars and pedestrians near each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nuscenes_fixture, "SAMPLES_PER_SCENE", 10)
        for i in range(5):
            car, walker = nuscenes_fixture.OBJECTS["car"], nuscenes_fixture.OBJECTS["walker"]
            place = (12.0 + 2.5 * i, 3.0 - i, 1.0)
            patch.setitem(nuscenes_fixture.OBJECTS, f"car-{i}", (car[0], place, (2.0 - i, 1.0), *car[3:]))
            place = (8.0 + i, -4.0 + 0.5 * i, 0.9)
            patch.setitem(nuscenes_fixture.OBJECTS, f"walker-{i}", (walker[0], place, (0.1 * i, 0.8 - i), *walker[3:]))
        return NuScenesScenes(write_tiny_nuscenes(tmp_path_factory.mktemp("crowd"), sweeps_between=0))


def imperfect(data: NuScenesScenes, rng: np.random.Generator) -> dict[str, ObjectSet]:
    """Noise, misses, gaps, switches, ghosts; scores of which some are equal."""
    results = {}
    for scene in data.scene_names:
        quality, names = {}, {}
        for sample in data.samples(scene):
            truth = data.ground_truth(sample.token, TRACKING_CLASSES)
            rows = np.r_[np.arange(len(truth)), rng.integers(len(truth), size=rng.integers(4))]
            ids = [*truth.ids, *(f"ghost-{i}" for i in rng.permutation(6)[: len(rows) - len(truth)])]
            for name in ids:
                quality.setdefault(name, round(rng.uniform(0.2, 0.95), rng.integers(1, 9)))
                if name not in names or rng.random() < 0.1:
                    names[name] = f"{name}-{rng.integers(1_000_000)}"
            values = {field: getattr(truth, field)[rows] for field in FIELDS}
            values["scores"] = np.array([quality[name] for name in ids])
            values["centers"] = values["centers"] + rng.normal(size=(len(ids), 3)) * 0.6
            objects = ObjectSet(
                t_ns=truth.t_ns,
                ids=tuple(names[name] for name in ids),
                labels=tuple(truth.labels[row] for row in rows),
                **values,
            )
            results[sample.token] = objects.select([rng.random() < quality[name] ** 0.3 for name in ids])
    return results


def figures(folder) -> tuple[str, dict]:
    summary = json.loads((folder / "metrics_summary.json").read_text())
    del summary["eval_time"]
    return (folder / "metrics_details.json").read_text(), json.dumps(summary)


@pytest.mark.parametrize("seed", range(2))
def test_figures_equal_those_of_the_plain_devkit_bit_for_bit(crowd, seed, tmp_path, monkeypatch):
    path = tmp_path / "tracks.json"
    write_submission(path, tracking_submission(imperfect(crowd, np.random.default_rng(seed))))
    quickly = evaluate_tracking(crowd.root, "", "", path, tmp_path / "quick")
    monkeypatch.setattr(quick, "quick_devkit", lambda on_class: contextlib.nullcontext())
    assert evaluate_tracking(crowd.root, "", "", path, tmp_path / "plain").amota == quickly.amota
    assert figures(tmp_path / "quick") == figures(tmp_path / "plain")
    assert 0 < quickly.amota < 1
    assert quickly.ids > 0
    assert quickly.fp > 0
    assert quickly.fn > 0


def test_the_table_of_events_is_the_devkits():
    """Scenes with pairs, switches, lonely objects and hypotheses, and one without anything."""
    rng = np.random.default_rng(0)
    theirs, ours = [], []
    for frames in (5, 0, 7, 3):
        pair = MOTAccumulatorCustom(), SceneEvents()
        for frame in range(frames):
            objects, hypotheses = (list(map(str, rng.permutation(6)[: rng.integers(5)])) for _ in range(2))
            distances = rng.uniform(0, 3, (len(objects), len(hypotheses)))
            for accumulator in pair:
                accumulator.update(objects, hypotheses, np.where(distances > 2, np.nan, distances), frameid=frame)
            for column in ("Type", "HId"):
                latest = [a.events.loc[frame][column].to_numpy().astype(str).tolist() for a in pair]
                assert latest[0] == latest[1]
        theirs.append(pair[0])
        ours.append(pair[1].columns())
    expected = MOTAccumulatorCustom.merge_event_dataframes(theirs)
    pd.testing.assert_frame_equal(merge(ours), expected, check_exact=True, check_index_type=False)


def test_the_devkit_is_left_as_it_was():
    before = algo.MOTAccumulatorCustom, algo.create_motmetrics, algo.sklearn, evaluate.TrackingEvaluation
    with pytest.raises(ZeroDivisionError), quick.quick_devkit():
        assert evaluate.TrackingEvaluation.func is quick.QuickEvaluation
        _ = 1 / 0
    assert (algo.MOTAccumulatorCustom, algo.create_motmetrics, algo.sklearn, evaluate.TrackingEvaluation) == before
