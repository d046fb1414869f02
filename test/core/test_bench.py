"""The bench measures what really runs, names every stage, and counts as a slow reference does. No speed is tested."""

import dataclasses
import json
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_tracker import CAMERAS, drive, make_frame, tiny_config, tiny_tracker

from syncl_core import frames
from syncl_core.bench import measure as bench
from syncl_core.bench.fake_drive import fake_drive
from syncl_core.bench.footprint import footprint
from syncl_core.bench.stopwatch import STAGES, Stopwatch, timed_parts
from syncl_core.bench.table import format_table
from syncl_core.cli import main
from syncl_core.config import RigConfig, load_config
from syncl_core.errors import InputError
from syncl_core.shipped import shipped_configs
from syncl_core.tensors import to_dict
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.state import init_state

CONFIG = """
image: {height: 32, width: 64}
model: {embed_dim: 32, num_queries: 20, num_layers: 1, num_heads: 2, ffn_dim: 32, reasoning_layers: 1, depth_bins: 4,
        class_prior: 0.5, neutral_start: true}
track: {slots: 8}
"""
SMALL = {"frames": 3, "warmup": 1, "image_size": (160, 90)}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "little.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_quantiles_of_known_durations():
    hundred = tuple(float(i) for i in np.random.default_rng(0).permutation(100) + 1)
    assert (bench.quantile(hundred, 0.5), bench.quantile(hundred, 0.99)) == (50.0, 99.0)
    assert (bench.quantile((7.0,), 0.5), bench.quantile((7.0,), 0.99)) == (7.0, 7.0)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantile_is_the_smallest_value_that_enough_do_not_exceed(values, fraction):
    enough = [v for v in values if sum(w <= v for w in values) >= fraction * len(values)]
    assert bench.quantile(tuple(values), fraction) == min(enough)


def test_a_stopwatch_counts_every_moment_once():
    ticks = iter([0.0, 1.0, 3.0, 7.0, 15.0])
    watch = Stopwatch(torch.device("cpu"), clock=lambda: next(ticks))
    assert watch.switch("decode") == ""
    assert watch.switch("backbone") == "decode"
    assert watch.switch("decode") == "backbone"
    watch.switch("output")
    seconds = watch.stop()
    assert tuple(seconds) == STAGES
    assert {k: v for k, v in seconds.items() if v} == {"decode": 1.0 + 4.0, "backbone": 2.0, "output": 8.0}
    assert not Stopwatch(torch.device("cpu")).stop()["decode"]


def test_a_gpu_is_timed_by_events_read_after_one_wait(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_ms = 2.0 ** len(log)
            log.append("record")

        def elapsed_time(self, end):
            assert log[-1] == "synchronize"
            return end.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    watch = Stopwatch(torch.device("cuda"))
    watch.switch("decode")
    watch.switch("output")
    seconds = watch.stop()
    assert (seconds["decode"], seconds["output"]) == (0.001, 0.002) and log.count("synchronize") == 1


@torch.no_grad()
def test_timing_changes_no_result_and_leaves_nothing_behind():
    tracker, watch = tiny_tracker(), Stopwatch(torch.device("cpu"))
    before = [set(vars(module)) for module in tracker.modules()]
    state = timed_state = init_state(tracker.config)
    for frame in drive(3):
        state, tracks = tracker.step(state, frame)
        with timed_parts(tracker, watch):
            watch.switch("life cycle")
            timed_state, timed_tracks = tracker.step(timed_state, frame)
        seconds = watch.stop()
        for ours, theirs in ((tracks, timed_tracks), (state, timed_state)):
            assert all(torch.equal(getattr(ours, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(ours))
        assert {stage for stage in STAGES if not seconds[stage]} == {"decode", "preprocess", "output"}
    assert tracks.valid.any() and [set(vars(module)) for module in tracker.modules()] == before


def test_parts_are_restored_after_an_error():
    tracker = tiny_tracker()
    before = [set(vars(module)) for module in tracker.modules()]
    with pytest.raises(RuntimeError), timed_parts(tracker, Stopwatch(torch.device("cpu"))):
        tracker.step(init_state(tracker.config, batch=2), make_frame(0))
    assert [set(vars(module)) for module in tracker.modules()] == before


def test_every_stage_of_a_frame_is_measured(config, same_threads):
    result = bench.measure(config, bench.BenchOptions(threads=1, **SMALL))
    assert result.name == "little" and result.threads == 1 and result.device
    assert tuple(result.seconds) == (*STAGES, "total")
    assert all(len(values) == 3 and min(values) > 0 for values in result.seconds.values())
    totals = np.array(result.seconds["total"])
    parts = np.sum([result.seconds[stage] for stage in STAGES], axis=0)
    assert (parts <= totals).all() and np.median(parts / totals) > 0.95
    assert result.peak_memory_bytes > 50e6
    assert result.footprint == footprint(load_config(config))


def test_bf16_runs(config):
    seconds = bench.measure(
        config, bench.BenchOptions(precision="bf16", frames=1, warmup=0, image_size=(160, 90))
    ).seconds
    assert min(seconds["backbone"]) > 0


def test_a_detector_has_no_reasoning_to_measure(tmp_path):
    detector = tmp_path / "detector.yaml"
    detector.write_text(CONFIG.replace("neutral_start: true", "framework: none"))
    seconds = bench.measure(detector, bench.BenchOptions(**SMALL)).seconds
    assert {stage for stage, values in seconds.items() if not any(values)} == {"reasoning"}


def test_decoding_apart_gives_the_same_frame():
    config = tiny_config()
    frame_set = next(fake_drive(config.rig, 160, 90))
    with ThreadPoolExecutor(2) as pool:
        apart = frames.make_frame(bench.decode_images(frame_set, pool), config.image)
    whole = frames.make_frame(frame_set, config.image)
    assert all(torch.equal(getattr(whole, f.name), getattr(apart, f.name)) for f in dataclasses.fields(whole))


def test_the_fake_drive_moves_and_repeats():
    first, again = (list(islice(fake_drive(RigConfig(), 160, 90), 3)) for _ in range(2))
    assert [[v.image.data for v in f.views] for f in first] == [[v.image.data for v in f.views] for f in again]
    assert len({v.image.data for v in first[0].views}) == 6
    for a, b in zip(first, first[1:], strict=False):
        moved = (b.global_from_base - a.global_from_base)[:3, 3]
        assert moved[0] == pytest.approx(10.0 * (b.t_ns - a.t_ns) / 1e9) and not moved[1:].any()
    directions = np.array([view.base_from_cam[:3, 2] for view in first[0].views])  # optical axes
    np.testing.assert_allclose(directions[0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose((directions * np.roll(directions, 1, axis=0)).sum(axis=1), math.cos(math.pi / 3))


@torch.no_grad()
def test_flops_agree_with_a_count_of_the_layers_that_run(monkeypatch):
    """The reference sees a real step, layer by layer; geometry (a few 4x4 products) is beyond it."""
    config, count = tiny_config(), 0

    def counted(function, multiply_adds):
        def call(*args, **kwargs):
            nonlocal count
            result = function(*args, **kwargs)
            count += 2 * multiply_adds(result, *args)
            return result

        return call

    functional = torch.nn.functional
    per_output = {
        "conv2d": lambda out, x, weight, *_: out.numel() * weight[0].numel(),
        "linear": lambda out, x, weight, *_: out.numel() * x.shape[-1],
        "scaled_dot_product_attention": lambda out, query, key, *_: 2 * out.numel() * key.shape[-2],
    }
    for name, multiply_adds in per_output.items():
        monkeypatch.setattr(functional, name, counted(getattr(functional, name), multiply_adds))
    build_tracker(config).step(init_state(config), make_frame(0))
    monkeypatch.undo()
    assert count > 1e6 and count <= footprint(config).flops <= 1.01 * count


def test_footprint_is_that_of_the_real_tracker():
    config = tiny_config()
    size, tracker = footprint(config), build_tracker(config)
    assert size.parameters == sum(p.numel() for p in {id(p): p for p in tracker.parameters()}.values())
    assert size.image_tokens == len(CAMERAS) * (32 // 16) * (64 // 16)
    assert size.state_bytes == sum(t.numel() * t.element_size() for t in to_dict(init_state(config)).values())


def test_a_table_keeps_its_columns():
    rows = [["decode", "1.0"], ["a longer name", "100.0"]]
    text, markdown = (format_table(["ms", "x"], rows, m).splitlines() for m in (False, True))
    assert text[2:] == ["decode           1.0", "a longer name  100.0"]
    assert markdown[1] == "| ------------- | ----: |" and {line.count("|") for line in markdown} == {3}


def test_the_command_prints_a_table_and_writes_json(config, tmp_path, capsys):
    out = tmp_path / "bench.json"
    arguments = ["-c", str(config), "--frames", "2", "--warmup", "0", "--size", "160x90", "--threads", "1"]
    assert main(["bench", *arguments, "--json", str(out), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert torch.__version__ in lines[0] and "eager fp32" in lines[0] and "1 threads" in lines[0]
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:13] == [*STAGES, "total"]
    figures = json.loads(out.read_text())
    assert figures["options"]["image_size"] == [160, 90] and [t["name"] for t in figures["trackers"]] == ["little"]
    seconds = figures["trackers"][0]["seconds"]
    assert set(seconds) == {*STAGES, "total"} and all(0 < s["median"] <= s["p99"] for s in seconds.values())


def test_the_models_command_lists_every_configuration(config, capsys):
    assert main(["models", "-c", str(config), "-c", str(shipped_configs()[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2].startswith("little ") and lines[3].startswith(shipped_configs()[0].stem)
    assert {path.stem for path in shipped_configs()} >= {"petr_small_320x800", "petr_tiny_128x320"}


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        (["--device", "abacus"], "'abacus'"),
        (["--device", "meta"], "'meta'"),
        (["--device", "cuda:99"], "'cuda:99'"),
        (["--precision", "fp8"], "precision"),
        (["--frames", "0"], "frames"),
        (["--threads", "-1"], "threads"),
        (["--size", "64x0"], "image size"),
        (["-c", "nowhere.yaml"], "nowhere.yaml"),
        (["--rate", "3"], "--rate is not for this"),
        (["--ablation", "table6/4"], "--ablation is not for this"),
        (["node"], "--config is not for this"),
    ],
)
def test_a_bad_request_is_one_line(arguments, culprit, config, capsys):
    assert main(["bench", "-c", str(config), *arguments]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("syncl: error: ")]
    assert len(errors) == 1 and culprit in errors[0] and not captured.out


def _killed(config, options):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_measurement_is_told(config, monkeypatch):
    monkeypatch.setattr(bench, "measure", _killed)
    with pytest.raises(InputError, match="little.yaml: .*memory"):
        bench.measure_apart(config, bench.BenchOptions(**SMALL))
