"""The tables of docs/ros.md, made from the code: `python -m syncl_ros.reference --update docs/ros.md`."""

import argparse
import re
import sys
from pathlib import Path

from syncl_core.errors import InputError
from syncl_ros import params
from syncl_ros.spec import Spec

INPUTS = [  # topic, type, content
    ("`image_topic`/compressed, or `image_topic`", "sensor_msgs/CompressedImage or Image", "one per camera"),
    ("`camera_info_topic`", "sensor_msgs/CameraInfo", "one per camera; not with a calibration file"),
    ("/tf, /tf_static", "tf2_msgs/TFMessage", "fixed frame -> vehicle -> cameras"),
    ("`odometry_topic`", "nav_msgs/Odometry", "the vehicle's pose, with `ego_motion.source: odometry`"),
    ("`end_topic`", "std_msgs/Bool", "true = a recording is over"),
]
OUTPUTS = [  # topic, type, content
    ("~/tracks", "vision_msgs/Detection3DArray", "tracks; empty = nothing is tracked, silence = nothing was processed"),
    (
        "~/tracked_objects",
        "autoware_perception_msgs/TrackedObjects",
        "the same with velocities and UUIDs; if installed",
    ),
    ("~/detections", "vision_msgs/Detection3DArray", "all boxes of a processed set, below the thresholds too; no ids"),
    ("~/markers", "visualization_msgs/MarkerArray", "boxes, labels, velocities, histories"),
    ("~/label_info", "vision_msgs/LabelInfo", "class numbers and names; latched"),
    ("~/debug/image/<camera>", "sensor_msgs/Image", "the camera's image with projected boxes"),
    ("~/debug/pipeline_latency_ms", "std_msgs/Float64", "from the oldest image of a set to its tracks"),
    ("~/debug/cyclic_time_ms", "std_msgs/Float64", "between two messages on ~/tracks"),
    ("~/debug/processing_time/wait_ms", "std_msgs/Float64", "from a complete set to the start of its processing"),
    ("~/debug/processing_time/prepare_ms", "std_msgs/Float64", "decoding, rectifying, scaling"),
    ("~/debug/processing_time/step_ms", "std_msgs/Float64", "the network (on a GPU: until it is queued)"),
    ("~/debug/processing_time/output_ms", "std_msgs/Float64", "tracks back to the host (on a GPU: and waiting for it)"),
    ("~/debug/processing_time/publish_ms", "std_msgs/Float64", "building and sending messages"),
    ("~/debug/processing_time/total_ms", "std_msgs/Float64", "from a complete set to its tracks"),
    ("~/ready", "std_msgs/Bool", "true = active; latched"),
    ("~/finished", "std_msgs/Bool", "true = a recording is over and fully published; latched"),
    ("~/hold", "std_msgs/Bool", "true = a replay should wait, sets pile up (`sync.queue: all`); latched"),
    ("/diagnostics", "diagnostic_msgs/DiagnosticArray", "see below"),
]
SERVICES = [  # service, type, effect
    ("~/reset", "std_srvs/Trigger", "forget all tracks; the answer names the new session"),
    ("~/set_enabled", "std_srvs/SetBool", "false: ignore sets, keep everything loaded"),
    ("~/change_state, ~/get_state, ...", "lifecycle_msgs", "configure, activate, deactivate, cleanup, shutdown"),
    ("~/set_parameters, ...", "rcl_interfaces", "live parameters"),
]
LIMITLESS = 1e5  # limits beyond it say nothing to a reader


def tables() -> dict[str, str]:
    """Markdown by section name."""
    return {
        "inputs": _table(("topic", "type", "content"), INPUTS),
        "outputs": _table(("topic", "type", "content"), OUTPUTS),
        "services": _table(("service", "type", "effect"), SERVICES),
        "parameters": _table(("parameter", "default", "live", "meaning"), map(_parameter, params.all_specs())),
    }


def _parameter(spec: Spec) -> tuple[str, ...]:
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    shown = str(default).lower() if isinstance(default, bool) else '""' if default == "" else default
    meaning = spec.description
    if spec.choices:
        meaning += f" (one of: {', '.join(choice or 'empty' for choice in spec.choices)})"
    elif spec.limits and spec.limits[1] < LIMITLESS:
        meaning += f" ({spec.limits[0]:g} to {spec.limits[1]:g})"
    return f"`{spec.name}`", f"`{shown}`", "yes" if spec.live else "", meaning


def _table(header, rows) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows)])


def help_text() -> str:
    """Every parameter in a line, for --help."""
    lines = ["parameters (--ros-args -p name:=value, or --params-file):"]
    for spec in params.all_specs():
        choices = f" [{' | '.join(choice or 'empty' for choice in spec.choices)}]" if spec.choices else ""
        lines.append(f"  {spec.name} ({spec.default!r}){choices}: {spec.description}")
    return "\n".join(lines)


def updated(text: str) -> str:
    """A document with the tables between its `<!-- table: NAME -->` and `<!-- end -->` lines replaced."""
    current = tables()

    def replace(match: re.Match) -> str:
        if match[1] not in current:
            raise InputError(f"table {match[1]}: unknown; known: {', '.join(current)}")
        return f"<!-- table: {match[1]} -->\n{current[match[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="reference", description=__doc__)
    parser.add_argument("--update", type=Path, metavar="FILE", help="replace the tables in this document")
    args = parser.parse_args(argv)
    if args.update is None:
        print("\n\n".join(f"## {name}\n\n{table}" for name, table in tables().items()))
        return 0
    try:
        args.update.write_text(updated(args.update.read_text(encoding="utf-8")), encoding="utf-8")
    except (InputError, OSError) as error:
        print(f"reference: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
