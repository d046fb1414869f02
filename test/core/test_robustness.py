"""Tables of metrics under worse conditions: what is processed, what is predicted, and known answers for both."""

import dataclasses
import json

import numpy as np
import pytest
from nuscenes_fixture import REAL_GAPS_MS, SAMPLES_PER_SCENE, SCENES, write_tiny_nuscenes
from test_cli import CONFIG as TINY

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.cli import main
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError, RejectedSetError
from syncl_core.runtime.coasting import coasted

pytest.importorskip("motmetrics", reason="motmetrics is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402
from syncl_core.evaluation import robustness  # noqa: E402
from syncl_core.evaluation.robustness import Condition, at_key_frames, dead_cameras, measure, thinned  # noqa: E402

CONFIG = SynclConfig()
CAMERAS = CONFIG.rig.cameras
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return NuScenesScenes(write_tiny_nuscenes(tmp_path_factory.mktemp("tiny")))


class Truth:
    """A session that says what is true at key frames, and nothing but its memory otherwise."""

    log = []

    def __init__(self, data, config, reject=()):
        self.data, self.config, self.reject, self.last = data, config, reject, None

    def process(self, frame_set):
        Truth.log.append((self, frame_set))
        if frame_set.t_ns in self.reject:
            raise RejectedSetError("no")
        tokens = {s.t_ns: s.token for scene in self.data.scene_names for s in self.data.samples(scene)}
        token = min(tokens.items(), key=lambda item: abs(item[0] - frame_set.t_ns))[1]
        truth = self.data.ground_truth(token, TRACKING_CLASSES)
        self.last = dataclasses.replace(truth, t_ns=frame_set.t_ns, velocities=np.nan_to_num(truth.velocities))
        return dataclasses.make_dataclass("Report", ["objects"])(self.last)

    def coast(self, t_ns):
        return None if self.last is None else coasted(self.last, t_ns, self.config.sync.coast_max)

    def close(self):
        pass


def run(data, condition, **kwargs):
    Truth.log.clear()
    return measure(lambda config: Truth(data, config, **kwargs), CONFIG, data, data.scene_names, condition, seed=5)


def test_the_truth_stays_true_without_cameras_and_at_every_period(tiny):
    """Objects of the fixture move straight on, so that predictions are true as well."""
    for condition, sets in ((Condition(), 4), (Condition(missing=3), 4), (Condition(period_s=1.0), 2)):
        outcome = run(tiny, condition)
        assert outcome.num_sets == sets * len(SCENES) and outcome.condition is condition
        assert outcome.metrics.amota == pytest.approx(1.0) and outcome.metrics.ids == 0
        assert outcome.metrics.amotp == pytest.approx(0.0, abs=1e-6)
        assert outcome.metrics.num_samples == SAMPLES_PER_SCENE * len(SCENES)


def test_dead_cameras_are_dead_for_the_scene_and_nested(tiny):
    run(tiny, Condition(missing=2))
    for scene in SCENES:
        times = {sample.t_ns for sample in tiny.samples(scene)}
        dead = [
            frozenset(c for c, view in zip(CAMERAS, frame_set.views, strict=True) if view is None)
            for _, frame_set in Truth.log
            if frame_set.t_ns in times
        ]
        assert len(dead) == SAMPLES_PER_SCENE and len(set(dead)) == 1 and len(dead[0]) == 2
        assert dead[0] == dead_cameras(CAMERAS, 2, f"5:{scene}")
    for seed in map(str, range(20)):
        sets = [dead_cameras(CAMERAS, k, seed) for k in range(7)]
        assert [len(s) for s in sets] == list(range(7)) and all(a < b for a, b in zip(sets, sets[1:], strict=False))
    assert len({dead_cameras(CAMERAS, 1, str(seed)) for seed in range(60)}) == 6
    assert Truth.log[0][0].config.sync.min_cameras == 4


def test_periods_below_the_key_frames_use_the_sweeps(tiny):
    """Two sweeps between key frames: three times as many sets, and each camera is there."""
    outcome = run(tiny, Condition(period_s=0.16))
    per_scene = 3 * (SAMPLES_PER_SCENE - 1) + 1
    assert per_scene - 2 <= outcome.num_sets / len(SCENES) <= per_scene
    assert all(all(frame_set.views) for _, frame_set in Truth.log)
    assert outcome.metrics.recall > 0.9


def test_a_period_that_was_not_recorded_is_refused(tmp_path):
    """Without sweeps its row would hold the figures of the key frames."""
    data = NuScenesScenes(write_tiny_nuscenes(tmp_path / "key_frames", sweeps_between=0))
    with pytest.raises(InputError, match=r"a period of 0.16 s needs sweeps"):
        run(data, Condition(period_s=0.16))


def test_thinning_keeps_one_set_per_period(tiny):
    times = [0.0, 0.5, 1.02, 1.5, 1.97, 2.5, 4.0, 4.5]
    sets = [
        dataclasses.replace(tiny.frame_set(tiny.samples(SCENES[0])[0].token), t_ns=round(t * SECOND)) for t in times
    ]
    for period_s, kept in ((0.0, times), (0.5, times), (1.0, [0.0, 1.02, 1.97, 4.0]), (9.0, [0.0])):
        assert [s.t_ns / SECOND for s in thinned(sets, period_s)] == pytest.approx(kept)


def test_thinning_leaves_out_no_real_key_frame_at_its_own_period(tiny):
    times_ms = np.cumsum([0, *REAL_GAPS_MS]).tolist()
    one = tiny.frame_set(tiny.samples(SCENES[0])[0].token)
    sets = [dataclasses.replace(one, t_ns=t * 1_000_000) for t in times_ms]
    assert list(thinned(sets, 0.5)) == sets
    assert [s.t_ns // 1_000_000 for s in thinned(sets, 1.0)] == [0, 1000, 1899, 2899, 3899]


def test_key_frames_without_a_set_get_predictions_or_nothing(tiny):
    samples = tiny.samples(SCENES[0])
    sets = [tiny.frame_set(sample.token) for sample in samples]
    session = Truth(tiny, dataclasses.replace(CONFIG), reject={samples[2].t_ns})
    results, count = at_key_frames(session, sets[1:3], samples)
    assert count == 1 and list(results) == [sample.token for sample in samples]
    assert len(results[samples[0].token]) == 0, "nothing was known yet"
    assert results[samples[1].token].states == ()
    for i in (2, 3):
        predicted = results[samples[i].token]
        assert set(predicted.states) == {"coasting"} and predicted.t_ns == samples[i].t_ns


def test_nothing_to_process_is_an_input_error(tiny):
    with pytest.raises(InputError, match="no set of images can be processed"):
        run(tiny, Condition(), reject={s.t_ns for scene in SCENES for s in tiny.samples(scene)})


def test_the_command_writes_both_tables(tiny, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    arguments = ["robustness", str(tiny.root), "-c", str(config), "--scene", SCENES[0], "-o", str(tmp_path / "out")]
    assert main([*arguments, "--missing", "0", "5", "--periods", "1"]) == 0
    said = capsys.readouterr()
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert said.out == text and "untrained: the figures mean nothing" in text
    assert "untrained, the figures mean nothing" in said.err
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [line[:2] for line in lines] == [
        ["| cameras missing", "sets"],
        ["| 0", "4"],
        ["| 5", "4"],
        ["| processing period (s)", "sets"],
        ["| 1", "2"],
    ]
    table = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert [(row["missing_cameras"], row["period_s"]) for row in table["rows"]] == [(0, None), (5, None), (0, 1.0)]
    assert all(row["gt"] == 8 for row in table["rows"]) and table["scenes"] == [SCENES[0]]
    assert main([*arguments]) == 2 and "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--missing", "6"], "--missing 6: the rig has 6 cameras, one must be left"),
        (["--missing", "-1"], "--missing -1"),
        (["--periods", "0"], "--periods 0.0: expected seconds above zero"),
        (["--missing", "--periods"], "nothing to measure"),
    ],
)
def test_impossible_conditions_are_refused(tiny, tmp_path, capsys, options, message):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    assert main(["robustness", str(tiny.root), "-c", str(config), "-o", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["robustness", "--help"])
    assert "examples:" in capsys.readouterr().out


def test_undefined_figures_are_dashes_and_null(tiny):
    outcome = run(tiny, Condition())
    undefined = dataclasses.replace(outcome, metrics=dataclasses.replace(outcome.metrics, amota=float("nan")))
    assert "| 0 | 8 | - | " in robustness.to_markdown("x", [undefined])
    assert json.loads(robustness.to_json("x", [undefined]))["rows"][0]["amota"] is None
