"""What is said in /diagnostics, as pure functions of what was observed. Names and keys fit Autoware's vocabulary."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from syncl_core.errors import DeviceError
from syncl_core.runtime.problems import Problem
from syncl_ros.camera_input import CameraInput
from syncl_ros.engine import Record
from syncl_ros.params import LiveParams

OK, WARN, ERROR = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One DiagnosticStatus, without ROS."""

    name: str
    level: int
    message: str
    values: Mapping[str, object]


def lifecycle_status(state: str, enabled: bool, failure: Exception | None) -> Status:
    """ERROR with the reason of the last failure, WARN while sets are ignored."""
    level, message = (OK, state) if enabled else (WARN, "disabled through ~/set_enabled")
    if failure is not None:
        what = "device" if isinstance(failure, DeviceError) else type(failure).__name__
        level, message = ERROR, f"{state}: {what}: {failure}"
    return Status(name="lifecycle", level=level, message=message, values={"state": state, "enabled": enabled})


def camera_status(
    cameras: Mapping[str, CameraInput],
    record: Record,
    rates_hz: Mapping[str, float],
    limits: LiveParams,
    why_silent: Callable[[str], str],
) -> Status:
    """ERROR, with names and what to change, while cameras are missing or rejected; WARN while sets lack one."""
    now_s, values, said, late = time.monotonic(), {}, [], []
    for camera, seen in cameras.items():
        age_ms = None if seen.image_s is None else max(0.0, 1e3 * (now_s - seen.image_s))
        state = camera_state(camera, seen, age_ms, record, limits)
        values[f"{camera}.state"] = state
        if age_ms is not None:
            values[f"{camera}.image_age_ms"] = round(age_ms)
        values[f"{camera}.rate_hz"] = round(rates_hz.get(camera, 0.0), 1)
        if state == "rejected":
            calibration = "" if seen.calibrated else seen.refused_calibration
            reasons = (seen.refused if _refuses(seen, limits) else "", calibration, record.rejected.get(camera))
            values[f"{camera}.rejected"] = "; ".join(dict.fromkeys(filter(None, reasons)))
            said.append(f"{camera} rejected: {values[f'{camera}.rejected']}")
        elif state != "active":
            said.append(f"{camera} {state}: {why_silent(camera)}")
        elif camera in record.absent:
            late.append(f"{camera} late: it sends, but the last set had to go without it; see input")
    values |= {
        "max_inter_camera_time_diff_ms": round(record.spread_ms, 1),
        "degraded_sets": record.degraded,
        "coasted_sets": record.coasted,
    }
    level, message = ERROR if said else WARN if late else OK, "; ".join(said + late) or "ok"
    return Status(name="camera_status", level=level, message=message, values=values)


def at_rest(record: Record) -> list[Status]:
    """Of cameras, processing and ego motion when a recording is over: nobody needs to start a publisher."""
    message, values = "the recording is over", {"processed_sets": record.processed}
    processing = Status(name="processing_time_status", level=OK, message=message, values=values)
    return [*inputs_at_rest(record, message), processing]


def inputs_at_rest(record: Record, why: str) -> list[Status]:
    """Of cameras and ego motion while nothing is expected to come."""
    values = {"processed_sets": record.processed}
    return [Status(name=name, level=OK, message=why, values=values) for name in ("camera_status", "ego_motion")]


def camera_state(camera: str, seen: CameraInput, age_ms: float | None, record: Record, limits: LiveParams) -> str:
    """One of rejected, waiting_camera_info, waiting_image, stale, active."""
    if _refuses(seen, limits):
        return "rejected"
    if age_ms is None:
        return "waiting_image"
    if age_ms > limits.max_image_age_ms:
        return "stale"
    if not seen.calibrated:
        return "rejected" if seen.refused_calibration else "waiting_camera_info"
    return "rejected" if camera in record.rejected else "active"


def _refuses(seen: CameraInput, limits: LiveParams) -> bool:
    """Whether a message of this camera was unusable lately."""
    return seen.refused_s is not None and 1e3 * (time.monotonic() - seen.refused_s) < limits.max_image_age_ms


def processing_status(
    record: Record, waiting: int, dropped: int, idle_s: float, busy_s: float, limits: LiveParams
) -> Status:
    """WARN while sets take too long or are predicted, ERROR when that lasts or nothing is processed at all.

    `idle_s`: seconds for which no set was processed although the node was active and enabled. `busy_s`: those that the
    set at hand has taken so far.
    """
    total_ms = record.milliseconds.get("processing_time/total_ms")
    since_s = record.delayed_since_s  # read once: another thread sets it
    # Up to the last message: when nothing comes any more, nothing is late.
    delay_ms = 0.0 if since_s is None else 1e3 * (record.published_s - since_s)
    level, message = OK, "ok"
    if since_s is not None:
        level, message = WARN, f"a set took {total_ms:.0f} ms, allowed are {limits.max_processing_ms:g}"
        if delay_ms > limits.max_delay_ms:
            level, message = ERROR, f"{message}, for {delay_ms / 1e3:.1f} s: smaller network or longer process_period"
    if record.coasting:
        level, message = max(level, WARN), "coasting: no usable set, tracks are predicted"
    if 1e3 * idle_s > limits.max_delay_ms:
        level, message = ERROR, f"no set was processed for {idle_s:.1f} s: see camera_status, ego_motion and input"
    if 1e3 * busy_s > limits.max_delay_ms:
        level, message = ERROR, f"the network has been at one set for {busy_s:.1f} s: does the device hang?"
    values = {
        "is_processing_time_ms_in_expected_range": record.delayed_since_s is None,
        "consecutive_delay_ms": round(delay_ms),
        "processed_sets": record.processed,
        "dropped_sets": dropped,
        "waiting_sets": waiting,
    }
    if total_ms is not None:
        values["processing_time_ms"] = round(total_ms, 2)
    if record.published_s is not None:
        values["time_since_last_publish_ms"] = round(1e3 * (time.monotonic() - record.published_s))
    if record.latency_ms is not None:
        values["output_latency_ms"] = round(record.latency_ms, 1)
    values |= {name.removeprefix("processing_time/"): round(ms, 2) for name, ms in record.milliseconds.items()}
    return Status(name="processing_time_status", level=level, message=message, values=values)


def ego_motion_status(
    source: str,
    path: Mapping[str, bool] | None,
    pose_s: float | None,
    problems: Mapping[str, Problem],
    fresh: frozenset[str],
    limits: LiveParams,
    why_none: Callable[[bool], str],
) -> Status:
    """Where the vehicle's pose comes from, and whether it does. `path`: see Intake.vehicle_path.

    `why_none(came)` says why it does not; `came` = it did once.
    """
    age_ms = None if pose_s is None else max(0.0, 1e3 * (time.monotonic() - pose_s))
    missing, jumps = problems.get("missing_transform"), problems.get("ego_jump")
    values = {"source": source, "jumps": jumps.count if jumps else 0}
    level, message = OK, "ok"
    if path is not None and not any(path.values()):
        level, message = WARN, "the vehicle's pose never changes: nothing moves between fixed_frame and base_frame"
    elif age_ms is None:
        level, message = ERROR, f"no pose yet from {source}: {why_none(False)}"
    elif age_ms > limits.max_image_age_ms:
        level, message = ERROR, f"no pose from {source} for {age_ms / 1e3:.1f} s: {why_none(True)}"
    elif "missing_transform" in fresh:
        level, message = WARN, missing.message
    elif "ego_jump" in fresh:
        level, message = WARN, jumps.message
    if age_ms is not None:
        values["age_ms"] = round(age_ms)
    if missing:
        values |= {"last_error": missing.message, "missing_transforms": missing.count}
    return Status(name="ego_motion", level=level, message=message, values=values)


def input_status(problems: Mapping[str, Problem], fresh: frozenset[str]) -> Status:
    """WARN while problems come (`fresh` reasons), OK when there were none since the last report."""
    values: dict[str, object] = {f"{reason}.count": problem.count for reason, problem in problems.items()}
    values |= {f"{reason}.last": problem.message for reason, problem in problems.items()}
    message = "; ".join(problems[reason].message for reason in sorted(fresh)) or "ok"
    return Status(name="input", level=WARN if fresh else OK, message=message, values=values)


def tracker_status(session: str, record: Record) -> Status:
    """Tracks, session, resets by reason."""
    values = {"session": session, "tracks": record.tracks, "state": "coasting" if record.coasting else "confirmed"}
    values |= {f"resets.{reason}": count for reason, count in record.resets.items()}
    return Status(name="tracker", level=OK, message="coasting" if record.coasting else "ok", values=values)


def model_status(name: str, checkpoint: str, device: str, warm_up_s: float, trained_s: float, record: Record) -> Status:
    """What is loaded; WARN while sets come at another rhythm than the network was trained with."""
    period_s, level, message = record.period_s, OK, "ok" if checkpoint else "untrained weights: the boxes mean nothing"
    values = {"name": name, "checkpoint": checkpoint, "device": device, "warm_up_ms": round(1e3 * warm_up_s)}
    values["trained_dt_s"] = trained_s
    if device.startswith("cuda"):
        values["gpu_memory_mb"] = round(torch.cuda.memory_allocated(device) / 1e6)
    if period_s is not None:
        values["actual_dt_s"] = round(period_s, 3)
        if not 0.75 * trained_s <= period_s <= 1.25 * trained_s:
            level = WARN
            message = f"{period_s:.2f} s between sets, trained with {trained_s:g}: see sync.process_period"
    return Status(name="model", level=level, message=message, values=values)
