"""What a tracker is worth when its input is worse than in training: cameras missing, or sets processed more rarely.

The metrics are the official ones. Whatever was processed, every key frame is evaluated: where no set was, with the
objects that the tracker predicts for it (`TrackerSession.coast`), as a node would publish them.
"""

import heapq
import json
import math
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from syncl_core import offline
from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes, Sample
from syncl_core.errors import InputError, RejectedSetError
from syncl_core.evaluation.tracking import TrackingMetrics, evaluate_tracking
from syncl_core.io.key_frames import OWN_SET_NS, nothing
from syncl_core.io.submission import check_submittable, tracking_submission, write_submission
from syncl_core.runtime.intake import Intake
from syncl_core.runtime.session import TrackerSession
from syncl_core.types import FrameSet, ObjectSet

MakeSession = Callable[[SynclConfig], TrackerSession]
FIXED_FRAME, BASE_FRAME = "odom", "base_link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of a table."""

    missing: int = 0  # cameras that are dead for a whole scene; which ones is drawn for every scene
    period_s: float = 0.0  # seconds between two processed sets; 0 = every key frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    condition: Condition
    metrics: TrackingMetrics
    num_sets: int  # processed


def measure(
    make_session: MakeSession,
    config: SynclConfig,
    data: NuScenesScenes,
    scenes: Sequence[str],
    condition: Condition,
    seed: int = 0,
    on_scene: Callable[[str], None] = lambda scene: None,
) -> Outcome:
    """Track the scenes under a condition and evaluate them. `on_scene` hears of each scene that is through.

    Raises InputError if there is nothing to process, such as sweeps for a period below that of the key frames.
    """
    check_submittable(config)
    check_sweeps(data, scenes, config, condition)
    config = _prepared(config, condition)
    results, num_sets = {}, 0
    for scene in scenes:
        dead = dead_cameras(config.rig.cameras, condition.missing, f"{seed}:{scene}")
        frame_sets = (without(frame_set, dead) for frame_set in _frame_sets(data, scene, config, condition))
        session = make_session(config)
        try:
            found, count = at_key_frames(session, frame_sets, data.samples(scene))
        finally:
            session.close()
        results |= found
        num_sets += count
        on_scene(scene)
    if not num_sets:
        raise InputError(f"{data.root}: no set of images can be processed with {condition}")
    with tempfile.TemporaryDirectory(prefix="syncl-robustness-") as folder:
        path = Path(folder) / "tracks.json"
        write_submission(path, tracking_submission(results))
        metrics = evaluate_tracking(data.root, data.version, scenes, path, classes=config.tracking_classes)
    return Outcome(condition=condition, metrics=metrics, num_sets=num_sets)


def dead_cameras(cameras: Sequence[str], count: int, seed: str) -> frozenset[str]:
    """So many cameras; those that are dead for a smaller count are among those of a larger one."""
    return frozenset(random.Random(seed).sample(list(cameras), len(cameras))[:count])


def without(frame_set: FrameSet, cameras: frozenset[str]) -> FrameSet:
    views = tuple(None if view is None or view.camera in cameras else view for view in frame_set.views)
    return replace(frame_set, views=views)


def thinned(frame_sets: Iterable[FrameSet], period_s: float) -> Iterator[FrameSet]:
    """One set per period, chosen as `runtime/set_assembler.py` does: up to half a set's distance early is on time.

    Real key frames are 0.4 to 0.6 s apart; a period of 0.5 s must not leave one out.
    """
    times_ns, due_ns, period_ns = [], None, round(period_s * 1e9)
    for frame_set in frame_sets:
        times_ns.append(frame_set.t_ns)
        early_ns = min(np.median(np.diff(times_ns)), period_ns) / 2 if due_ns is not None else 0
        if due_ns is None or frame_set.t_ns >= due_ns - early_ns:
            due_ns = frame_set.t_ns + period_ns
            yield frame_set


def at_key_frames(
    session: TrackerSession, frame_sets: Iterable[FrameSet], samples: Iterable[Sample]
) -> tuple[dict[str, ObjectSet], int]:
    """Objects for every key frame, and how many sets were processed. Both inputs are in order of time."""
    waiting, results, count = deque(samples), {}, 0
    for frame_set in frame_sets:
        while waiting and waiting[0].t_ns < frame_set.t_ns - OWN_SET_NS:
            sample = waiting.popleft()
            results[sample.token] = session.coast(sample.t_ns) or nothing(sample.t_ns)
        try:
            objects = session.process(frame_set).objects
        except RejectedSetError:
            continue
        count += 1
        if waiting and waiting[0].t_ns <= frame_set.t_ns + OWN_SET_NS:
            results[waiting.popleft().token] = objects
    return results | {s.token: session.coast(s.t_ns) or nothing(s.t_ns) for s in waiting}, count


def to_markdown(name: str, outcomes: Sequence[Outcome]) -> str:
    """Both tables, of the outcomes with missing cameras and of those with a period."""
    metrics = outcomes[0].metrics
    lines = [f"# Robustness of {name}", "", f"{len(metrics.scenes)} scene(s), {metrics.num_samples} key frames."]
    columns = "sets | AMOTA | AMOTP (m) | recall | MOTA | IDS |"
    tables = (
        ("cameras missing", [(f"{o.condition.missing}", o) for o in outcomes if not o.condition.period_s]),
        ("processing period (s)", [(f"{o.condition.period_s:g}", o) for o in outcomes if o.condition.period_s]),
    )
    for title, rows in tables:
        if rows:
            lines += ["", f"| {title} | {columns}", "|" + "---:|" * 7]
            lines += [f"| {label} | {outcome.num_sets} | {_cells(outcome.metrics)} |" for label, outcome in rows]
    return "\n".join(lines) + "\n"


def to_json(name: str, outcomes: Sequence[Outcome]) -> str:
    """The same with all figures; what is undefined is null."""
    figures = ("amota", "amotp", "recall", "mota", "motp", "ids", "fp", "fn", "gt")
    rows = [
        {
            "missing_cameras": outcome.condition.missing,
            "period_s": outcome.condition.period_s or None,
            "processed_sets": outcome.num_sets,
            **{figure: _or_none(getattr(outcome.metrics, figure)) for figure in figures},
        }
        for outcome in outcomes
    ]
    return json.dumps({"tracker": name, "scenes": list(outcomes[0].metrics.scenes), "rows": rows}, indent=2) + "\n"


def _prepared(config: SynclConfig, condition: Condition) -> SynclConfig:
    """The configuration under which the condition is no reason to reject sets, to forget tracks or to stop coasting."""
    sync = replace(
        config.sync,
        min_cameras=max(1, config.sync.min_cameras - condition.missing),
        process_period=condition.period_s,
        reset_gap=max(config.sync.reset_gap, 2 * condition.period_s),
        coast_max=max(config.sync.coast_max, 2 * condition.period_s),
    )
    return replace(config, sync=sync, rig=replace(config.rig, stamp_offsets=()))  # the data's stamps are right


def _frame_sets(data: NuScenesScenes, scene: str, config: SynclConfig, condition: Condition) -> Iterator[FrameSet]:
    if _between_key_frames(data, scene, condition):
        return sweep_frame_sets(data, scene, config)
    return thinned(offline.scene_frame_sets(data, scene, config), condition.period_s)


def _between_key_frames(data: NuScenesScenes, scene: str, condition: Condition) -> bool:
    times_ns = [sample.t_ns for sample in data.samples(scene)]
    between_s = float(np.median(np.diff(times_ns))) * 1e-9 if len(times_ns) > 1 else 0.0
    return 0 < condition.period_s < 0.9 * between_s


def check_sweeps(data: NuScenesScenes, scenes: Iterable[str], config: SynclConfig, condition: Condition) -> None:
    """Raises InputError if a scene lacks the sweeps that a period needs: its row would be that of the key frames."""
    for scene in scenes:
        if _between_key_frames(data, scene, condition) and not data.has_sweeps(scene, config.rig.cameras[0]):
            raise InputError(f"{data.root}: {scene}: a period of {condition.period_s:g} s needs sweeps on disk")


def sweep_frame_sets(data: NuScenesScenes, scene: str, config: SynclConfig) -> Iterator[FrameSet]:
    """All images of a scene, sweeps too, through the intake of the node: one set per `sync.process_period`."""
    intake = Intake(config, lambda: 0, FIXED_FRAME, BASE_FRAME, strict=True)
    for channel, base_from_sensor in data.static_transforms(scene).items():
        intake.add_transform(BASE_FRAME, channel.lower(), 0, base_from_sensor, static=True)
    for camera, model in data.camera_models(scene).items():
        intake.add_camera_model(camera, model)
    poses = ((t_ns, 0, pose) for t_ns, pose in data.ego_poses(scene))
    views = ((v.t_ns, 1, v) for v in data.camera_views(scene, config.rig.cameras, allow_missing=True))
    for t_ns, is_view, value in heapq.merge(poses, views, key=lambda event: event[:2]):
        if is_view:
            intake.add_image(value.camera, t_ns, value.camera.lower(), value.image)
        else:
            intake.add_odometry(t_ns, value)
        yield from intake.poll()
    yield from intake.finish()


def _cells(metrics: TrackingMetrics) -> str:
    ratios = (metrics.amota, metrics.amotp, metrics.recall, metrics.mota)
    texts = ["-" if math.isnan(value) else f"{value:.3f}" for value in ratios]
    return " | ".join([*texts, "-" if math.isnan(metrics.ids) else f"{metrics.ids:.0f}"])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
