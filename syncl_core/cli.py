"""The `syncl` command: one entry, one sub-command per file of `syncl_core.commands`."""

import argparse
import importlib.metadata
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from syncl_core.commands import (
    ablate,
    bag,
    bench,
    convert,
    doctor,
    evaluate,
    models,
    render,
    robustness,
    track,
    train,
    tune,
    world,
)
from syncl_core.errors import InputError
from syncl_core.signal_event import ending_signals

_STDOUT = 1  # as the system counts

EXAMPLES = """examples:
  syncl world out/world                        make a synthetic scene in the nuScenes schema
  syncl bag out/world -o out/scene             turn a scene into a playable rosbag2
  syncl track out/scene -o out/tracks          track the bag without ROS
  syncl eval out/world out/tracks/tracks.json  official nuScenes tracking metrics
  syncl render out/scene --tracks out/tracks/tracks.json -o out/pictures
  syncl convert f3.pth -c config/petr_vov_320x800.yaml -o tracker.safetensors    public weights
  syncl models                                 how big the trackers are
  syncl bench                                  how fast they are on this machine
  syncl doctor                                 what is missing on this machine
  syncl train config/petr_world_160x448.yaml -o out/run     train on the synthetic world
  syncl tune out/val --checkpoint out/run/last.safetensors -o out/tuned.yaml    the best threshold
  syncl ablate config/ablation_gpu.yaml --init config/ablation_gpu_detector.yaml -o out/ablation    SynCL, row by row
  syncl robustness out/world --checkpoint out/run/last.safetensors -o out/robustness    AMOTA with cameras missing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command. Returns the exit code: 0 done, 2 unusable input (one line on stderr), 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="syncl",
        description="Camera-only end-to-end 3D multi-object tracking.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    tools = (world, bag, track, evaluate, render, convert, models, bench, doctor)
    for command in (*tools, train, tune, ablate, robustness):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    return exit_code(args.run, args)


def _version() -> str:
    try:
        return importlib.metadata.version("syncl_ros")
    except importlib.metadata.PackageNotFoundError:
        return "not installed, from a source tree"


def _nobody_reads() -> bool:
    """Whether the reader of stdout, as `head` is, has had enough; what is left to say goes nowhere then."""
    watch = select.poll()
    watch.register(_STDOUT, 0)  # 0: nothing but errors
    if not watch.poll(0):
        return False  # it was another pipe
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return True


def exit_code(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """What `run` returns; 2 for unusable input (one line on stderr), 130 if Ctrl-C, SIGTERM or SIGHUP interrupted it,
    141 if nobody reads its output any more."""
    if threading.current_thread() is threading.main_thread():
        for number in ending_signals() - {signal.SIGINT}:
            signal.signal(number, signal.default_int_handler)  # clean up as after Ctrl-C
    try:
        code = run(args)
        sys.stdout.flush()  # what is wrong with it shall be told here
        return code
    except InputError as error:
        print(f"syncl: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a name that is too long, a disk that fails
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        print(f"syncl: error: {error.filename or run.__module__}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("syncl: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
