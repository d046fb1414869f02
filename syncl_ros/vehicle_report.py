"""What the doctor heard of a vehicle, and what that says: pure functions, without ROS."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from syncl_core.config import RigConfig, SynclConfig
from syncl_core.io.topics import frame_of
from syncl_core.runtime import calibrations
from syncl_core.runtime.mounts import camera_problem, configured_model_frame, placed_model_frame
from syncl_core.runtime.stream_report import StreamStatistics, longest_round, stream_report
from syncl_core.runtime.transform_tree import TransformLookupError, TransformTree
from syncl_core.types import CameraModel

POSE = "vehicle pose"
NOTHING_CAME = "nothing came on its calibration topic"
OLD_SECONDS = 1.0  # stamps this far from the clock belong to another one
OTHER_SECONDS = 0.1  # and so do those of a camera whose images are this much older or newer than the others'


@dataclass(slots=True)
class CameraHeard:
    """What came from one camera."""

    stamps_ns: list[int] = field(default_factory=list)
    age_s: list[float] = field(default_factory=list)  # of images when they came, on the ROS clock
    frame_id: str = ""
    size_px: tuple[int, int] | None = None  # width and height of its latest image; None = unknown
    problem: str = ""  # of its latest image
    model: CameraModel | None = None
    model_problem: str = NOTHING_CAME
    silence: str = ""  # why no image came


@dataclass(slots=True)
class Heard:
    """Everything that came."""

    cameras: dict[str, CameraHeard]
    moving_ns: dict[str, list[int]] = field(default_factory=dict)  # stamps of every frame that moves against its parent
    tree: TransformTree = field(default_factory=TransformTree)
    no_pose: str = ""  # why no pose of the vehicle came
    unused_clock: bool = False  # somebody publishes /clock, and use_sim_time is off
    problems: set[str] = field(default_factory=set)

    def pose_ns(self, fixed_frame: str, base_frame: str) -> list[int] | None:
        """Stamps of the vehicle's pose: of the rarest transform between the two frames. None = not connected."""
        path = self.tree.between(fixed_frame, base_frame)
        if path is None:
            return None
        moving = [self.moving_ns.get(frame, []) for frame, moves in path.items() if moves]
        return min(moving, key=len, default=[])


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `bad` = the tracker cannot work well before it is changed."""

    bad: bool
    text: str


def examine(
    heard: Heard,
    config: SynclConfig,
    offsets_s: dict[str, float],
    fixed_frame: str,
    base_frame: str,
    model_frame: str = "",
) -> list[Finding]:
    """What was heard, in words that say what to change. `offsets_s` are the cameras' stamp offsets in use."""
    rounds = {c: longest_round(h.stamps_ns) for c, h in heard.cameras.items()}
    shifted = {c: [t + round(1e9 * offsets_s[c]) for t in stamps] for c, stamps in rounds.items()}
    anchor = config.sync.anchor or config.rig.cameras[0]
    pose_ns = heard.pose_ns(fixed_frame, base_frame)
    pose_ns = pose_ns and longest_round(pose_ns)
    report = stream_report({**shifted, POSE: pose_ns or []}, anchor, config.sync.max_spread)
    findings = [f for c, h in heard.cameras.items() for f in _camera(c, h, report.streams[c])] + _ages(heard)
    if any(len(stamps) < len(heard.cameras[c].stamps_ns) for c, stamps in rounds.items()):
        findings.append(Finding(False, "time jumped back, as in a recording that loops: one round was looked at"))
    phases = [s.phase_s for name, s in report.streams.items() if name != POSE and s.phase_s is not None]
    if len(phases) > 1:
        findings.append(Finding(False, f"cameras fire within {1e3 * (max(phases) - min(phases)):.0f} ms"))
    for camera, offset_s in report.suggested_offsets_s.items():
        if camera != POSE:
            total_s = offsets_s[camera] + offset_s
            findings.append(
                Finding(
                    True,
                    f"{camera}: its stamps are {-1e3 * offset_s:+.0f} ms from {anchor}'s, sync.max_spread allows "
                    f"{1e3 * config.sync.max_spread:.0f}: set cameras.{frame_of(camera)}.stamp_offset: {total_s:.3f} "
                    "if its clock is off, or raise sync.max_spread if it fires then",
                )
            )
    findings += _clocks(heard, offsets_s, report.suggested_offsets_s, config.sync.timeout)
    findings += _poses(heard, pose_ns, report.streams[POSE], fixed_frame, base_frame)
    findings += _mounts(heard, pose_ns, base_frame) + [
        _model_frame(heard, pose_ns, config.rig, base_frame, model_frame)
    ]
    return findings + [Finding(True, problem) for problem in sorted(heard.problems)]


def _camera(camera: str, heard: CameraHeard, stream: StreamStatistics) -> list[Finding]:
    if not heard.stamps_ns:
        return [Finding(True, f"{camera}: {heard.silence or 'no image'}")]
    findings = [Finding(False, f"{camera}: {stream.rate_hz:.1f} Hz, jitter {1e3 * stream.jitter_s:.1f} ms")]
    if stream.gaps:
        text = f"{stream.gaps} gaps, the longest {stream.longest_gap_s:.2f} s: images are lost on the way"
        findings.append(Finding(True, f"{camera}: {text} (docs/ros.md, middleware)"))
    if stream.duplicates or stream.out_of_order:
        text = f"{stream.duplicates} stamps twice, {stream.out_of_order} out of order: two publishers?"
        findings.append(Finding(True, f"{camera}: {text}"))
    calibration = heard.model_problem or (heard.model and calibrations.unusable(heard.model))
    problems = filter(None, (heard.problem, calibration and f"calibration: {calibration}", _other_size(heard)))
    return findings + [Finding(True, f"{camera}: {problem}") for problem in problems]


def _ages(heard: Heard) -> list[Finding]:
    """Cameras whose stamps are of another clock than the tracker's."""
    ages_s = {c: float(np.median(h.age_s)) for c, h in heard.cameras.items() if h.age_s}
    old = {camera: age_s for camera, age_s in ages_s.items() if abs(age_s) > OLD_SECONDS}
    if old and heard.unused_clock:
        text = "/clock is published (a replay, a simulation) and use_sim_time is off: --ros-args -p use_sim_time:=true"
        return [Finding(True, f"{text}, for the tracker as for the doctor")]
    text = "s old when they come: another clock? (use_sim_time, time synchronisation)"
    return [Finding(True, f"{camera}: images are {age_s:.1f} {text}") for camera, age_s in old.items()]


def _other_size(heard: CameraHeard) -> str:
    """Why the tracker would reject every image of a camera, although its calibration is usable; "" = it would not."""
    model, size_px = heard.model, heard.size_px
    if model is None or size_px in (None, (model.width, model.height)):
        return ""
    said = f"images are {size_px[0]}x{size_px[1]}, its calibration is for {model.width}x{model.height}"
    return f"{said}: no image would be used; publish both for one size"


def _clocks(
    heard: Heard, offsets_s: dict[str, float], suggested_s: Mapping[str, float], timeout_s: float
) -> list[Finding]:
    """Cameras whose images are older or newer than the others' when they come, by more than their phases suggest, which
    do not tell whole periods. Their clocks are off, or they are slow, which is bad above `timeout_s` alone."""
    heard_s = {c: float(np.median(seen.age_s)) for c, seen in heard.cameras.items() if seen.age_s}
    ages_s = {c: age_s - offsets_s[c] for c, age_s in heard_s.items() if abs(age_s) <= OLD_SECONDS}
    findings = []
    # Of two, which one is off nobody can tell: the older one speaks for both.
    for camera in ages_s if len(ages_s) > 2 else sorted(ages_s, key=ages_s.get)[1:]:
        others_s = {other: other_s for other, other_s in ages_s.items() if other != camera}
        off_s = ages_s[camera] - float(np.median(list(others_s.values())))
        if abs(off_s - _suggested_s(camera, others_s, suggested_s)) < OTHER_SECONDS:
            continue
        whose = "the other cameras" if len(others_s) > 1 else next(iter(others_s))
        wrong = "its clock is off" if len(others_s) > 1 else "their clocks differ"
        slow = "it is" if off_s > 0 else f"{whose} are"
        offset = f"cameras.{frame_of(camera)}.stamp_offset: {offsets_s[camera] + off_s:.3f}"
        said = f"its images are {1e3 * abs(off_s):.0f} ms {'older' if off_s > 0 else 'newer'} than those of {whose}"
        advice = f"set {offset} if {wrong}; if {slow} only slow, keep sync.timeout above that"
        findings.append(
            Finding(abs(off_s) >= timeout_s, f"{camera}: when they come {said}: {advice} ({timeout_s:g} s)")
        )
    return findings


def _suggested_s(camera: str, others: Iterable[str], suggested_s: Mapping[str, float]) -> float:
    """What the phases say already about a camera against the others."""
    return suggested_s.get(camera, 0.0) - float(np.median([suggested_s.get(other, 0.0) for other in others]))


def _poses(
    heard: Heard, pose_ns: list[int] | None, stream: StreamStatistics, fixed_frame: str, base_frame: str
) -> list[Finding]:
    if pose_ns is None:
        known = ", ".join(heard.tree.frames()) or "none"
        why = heard.no_pose or "check ego_motion.source, fixed_frame, base_frame"
        return [Finding(True, f"no pose {fixed_frame} -> {base_frame}: {why}; frames: {known}")]
    if not pose_ns:
        text = f"{POSE}: nothing between {fixed_frame} and {base_frame} moves: right on a test bench alone"
        return [Finding(True, text)]
    findings = [Finding(False, f"{POSE}: {stream.rate_hz:.0f} Hz")]
    if stream.rate_hz < 10 or stream.longest_gap_s > 0.2:
        text = f"{POSE}: {stream.rate_hz:.0f} Hz with gaps of {stream.longest_gap_s:.2f} s: 20 Hz or more are needed"
        findings.append(Finding(True, text))
    for camera, seen in heard.cameras.items():
        if not seen.stamps_ns:
            continue
        try:
            heard.tree.lookup(fixed_frame, seen.frame_id, _moment(seen.stamps_ns[-1], pose_ns))
        except TransformLookupError as error:
            text = f"{camera}: no transform {fixed_frame} -> {seen.frame_id} ({error}): publish it on /tf_static"
            findings.append(Finding(True, f"{text}, or set cameras.{frame_of(camera)}.frame_id"))
    return findings


def _moment(t_ns: int, pose_ns: list[int] | None) -> int:
    """A late moment for which all poses are remembered, so that only the tree can be wrong."""
    return max(pose_ns[0], min(max(t_ns, pose_ns[-1] - 10**9), pose_ns[-1])) if pose_ns else t_ns


def _mounts(heard: Heard, pose_ns: list[int] | None, base_frame: str) -> list[Finding]:
    """Cameras that cannot look where their transforms say."""
    findings = []
    for camera, seen in heard.cameras.items():
        if not seen.stamps_ns:
            continue
        t_ns = _moment(seen.stamps_ns[-1], pose_ns)
        with contextlib.suppress(TransformLookupError):  # said already
            if problem := camera_problem(camera, heard.tree.lookup(base_frame, seen.frame_id, t_ns)):
                text = f"{camera}: by {base_frame} -> {seen.frame_id} {problem}"
                findings.append(Finding(True, f"{text} (cameras.{frame_of(camera)}.frame_id, or the transform)"))
    return findings


def _model_frame(heard: Heard, pose_ns: list[int] | None, rig: RigConfig, base_frame: str, model_frame: str) -> Finding:
    """Where the network thinks it is."""
    frame, configured = model_frame or frame_of(rig.model_frame), configured_model_frame(rig)
    latest_ns = max((seen.stamps_ns[-1] for seen in heard.cameras.values() if seen.stamps_ns), default=0)
    try:
        found = heard.tree.lookup(base_frame, frame, _moment(latest_ns, pose_ns))
        _, problem = placed_model_frame(frame, found, configured, chosen=bool(model_frame))
    except TransformLookupError as error:
        if model_frame:
            return Finding(True, f"model_frame: {error}")
        height = f"{configured[2, 3]:.2f} m above {base_frame}, which must be on the road"
        return Finding(False, f"no {frame} in /tf: the network's frame is {height} (docs/ros.md, frames)")
    return Finding(bool(problem), problem or f"{frame} in /tf is where the network's frame is")
