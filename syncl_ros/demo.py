"""`make demo`: a scene becomes a bag; player, node and recorder talk over DDS; metrics, a picture and a video come out.

Three operating-system processes, as on a vehicle. What is evaluated and drawn is read back from the recorded bag, so
all of it has gone over DDS.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from syncl_core.checkpoint import load_tracker
from syncl_core.cli import main as syncl
from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.devices import default_device
from syncl_core.errors import InputError
from syncl_core.evaluation.tracking import evaluate_tracking, format_metrics
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.files import write_text
from syncl_core.io.key_frames import fill_samples, reach
from syncl_core.io.scene_to_bag import write_scene_bag
from syncl_core.io.submission import check_submittable, tracking_submission, write_submission
from syncl_core.io.track_bag import MARKERS_TOPIC, TRACKS_TOPIC
from syncl_core.progress_bar import progress_bar
from syncl_core.types import ObjectSet
from syncl_core.view.picture import Caption
from syncl_core.view.png import write_png
from syncl_core.view.recording import open_recording
from syncl_core.view.replay import render_sets
from syncl_core.view.video import write_video
from syncl_ros.children import child_process, folder_taken, wait_for_recorder
from syncl_ros.environment import ros_environment, share_file

UNTRAINED = "UNTRAINED WEIGHTS: boxes mean nothing"
SYNTHETIC = "weights of the synthetic world, which knows no real street"
EXAMPLES = """examples:
  python -m syncl_ros.demo                                             a synthetic scene
  python -m syncl_ros.demo --data /data/sets/nuscenes --scene scene-0103
"""


class Demo(NamedTuple):
    """What the demo is made with, and where it puts things."""

    data: NuScenesScenes
    scene: str
    config: SynclConfig
    parameters: Mapping[str, str]  # of the node: config, checkpoint and device, as far as they are given
    notice: str  # what must be said about the weights
    output: Path

    @property
    def bag(self) -> Path:
        return self.output / "scene"

    @property
    def result(self) -> Path:
        return self.output / "tracks"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="demo", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="", help="nuScenes root (default: make a synthetic scene)")
    parser.add_argument("--scene", default="", help="scene of the root (default: the first one with images)")
    parser.add_argument("--checkpoint", default="", help="weights (.safetensors; default: the project's own)")
    parser.add_argument(
        "--config", default="", help="YAML or name of the tracker; without --checkpoint its weights are untrained"
    )
    parser.add_argument("--device", default="", help="torch device (default: a GPU if there is one)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the synthetic scene (default: 8)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"), help="folder for the results")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(args)
    except InputError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a name that is too long, a disk that fails
        print(f"demo: error: {error.filename or args.output}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """All steps. Raises InputError naming the step's culprit."""
    started = time.monotonic()
    device = args.device or default_device()
    # What cannot be used must not come up after minutes.
    config = load_tracker(args.config, args.checkpoint, device=device).config
    check_submittable(config)
    given = {name: value for name in ("config", "checkpoint", "device") if (value := getattr(args, name))}
    with folder_taken(args.output):
        _say(1, f"scene: {args.data or 'a synthetic one'}")
        data = NuScenesScenes(args.data or _synthetic_scene(args.output, args.seconds))
        demo = Demo(
            data=data,
            scene=args.scene or _first_scene(data),
            config=config,
            parameters=given,
            notice=_notice(args),
            output=args.output,
        )
        _make(demo, started)


def _notice(args: argparse.Namespace) -> str:
    """What must be said about the weights."""
    if args.checkpoint:
        return ""
    if args.config:
        return UNTRAINED
    return SYNTHETIC if args.data else ""


def _make(demo: Demo, started: float) -> None:
    _say(2, f"rosbag of {demo.scene}")
    write_scene_bag(demo.data, demo.scene, demo.bag, overwrite=True, progress=True)
    _say(3, "player, tracker node and recorder as three processes over DDS")
    _replay(demo)
    _say(4, "official nuScenes tracking metrics")
    object_sets, table = _evaluate(demo)
    _say(5, "picture and video")
    _draw(demo, object_sets)
    _summary(demo, len(object_sets), table, time.monotonic() - started)


def _say(number: int, text: str) -> None:
    print(f"[{number}/5] {text}", flush=True)


def _synthetic_scene(output: Path, seconds: float) -> Path:
    """Make the scene, unless an earlier demo did: a world's folder appears only when it is complete."""
    root = output / f"world-{seconds:g}s"
    if not root.exists() and syncl(["world", str(root), "--seconds", f"{seconds:g}"]):
        raise InputError(f"{root}: the synthetic scene could not be made")
    return root


def _first_scene(data: NuScenesScenes) -> str:
    for scene in data.scene_names:
        if any(data.cameras_on_disk(sample.token) for sample in data.samples(scene)):
            return scene
    raise InputError(f"{data.root}: no scene has camera images on disk")


def _replay(demo: Demo) -> None:
    """Bag -> player -> DDS -> node -> DDS -> recorder -> bag. Raises InputError with a failing process's last words."""
    log = demo.output / "log"
    # A domain of its own keeps other ROS systems on this network out of the demo, and the demo out of them.
    environment = ros_environment(domain_id=1 + os.getpid() % 100)
    parameters = [text for name, value in demo.parameters.items() for text in ("-p", f"{name}:={value}")]
    with BagReader(demo.bag) as reader:
        topics = [*reader.topics, TRACKS_TOPIC, MARKERS_TOPIC]
    commands = {
        "tracker": [
            *("--ros-args", "--params-file", str(share_file("config/replay.yaml"))),
            *parameters,
        ],
        "recorder": [
            *("-o", str(demo.result), "--overwrite", "--whole", "--until", "/tracker/finished", "--topics", *topics),
            *("--ros-args", "-p", "use_sim_time:=true"),  # log times as in the scene's bag
        ],
        "player": [str(demo.bag), "--clock", "100", "--wait-for", "/tracker/ready", "/recorder/ready"],
    }
    modules = {"tracker": "node", "recorder": "recorder", "player": "player"}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, module in modules.items():  # Ctrl-C reaches this process alone, which then ends them in its order
            child = (f"syncl_ros.{module}", commands[name], environment, log / f"{name}.log")
            running[name] = stack.enter_context(child_process(*child, own_session=True))
        wait_for_recorder(running, log)


def _evaluate(demo: Demo) -> tuple[list[ObjectSet], str]:
    """The recorded tracks and the text table of their official metrics."""
    with BagReader(demo.result) as reader:
        object_sets = reader.object_sets(TRACKS_TOPIC)
    samples = demo.data.samples(demo.scene)
    found = fill_samples(object_sets, samples, reach(demo.config.sync))
    for note in found.notes(demo.scene):
        print(f"note: {note}", file=sys.stderr)
    path = demo.output / "tracks.json"
    write_submission(path, tracking_submission(found.objects))
    metrics = evaluate_tracking(demo.data.root, demo.data.version, [demo.scene], path, demo.output / "metrics")
    table = format_metrics(metrics)
    write_text(demo.output / "metrics.txt", table + "\n")
    return object_sets, table


def _draw(demo: Demo, object_sets: list[ObjectSet]) -> None:
    """A video of all sets, and the picture of the one in the middle."""
    tracks = {objects.t_ns: objects for objects in object_sets}
    recording = open_recording(demo.bag, demo.config)
    caption = Caption(scene=demo.scene, model=demo.config.name, notice=demo.notice, count=len(tracks))
    pages = render_sets(recording.frame_sets, tracks, recording.ground_truth, caption=caption)
    with progress_bar(total=len(tracks), desc="pictures", unit="") as bar:
        write_video(demo.output / "video.mp4", _with_picture(pages, len(tracks) // 2, demo, bar), fps=2.0)


def _with_picture(pages: Iterable[np.ndarray], middle: int, demo: Demo, bar: tqdm) -> Iterator[np.ndarray]:
    for number, page in enumerate(pages):
        if number == middle:
            write_png(demo.output / "picture.png", page)
        bar.update()
        yield page


def _summary(demo: Demo, count: int, table: str, seconds: float) -> None:
    output, layout = demo.output, os.path.relpath(share_file("config/tracks_foxglove.json"))
    scene, here = shlex.quote(f"{output}/scene"), Path(sys.executable).with_name("syncl")
    command = "syncl" if shutil.which("syncl") or not here.exists() else shlex.quote(os.path.relpath(here))
    tracker = "".join(f" --{name} {shlex.quote(os.path.relpath(path))}" for name, path in demo.parameters.items())
    warning = f"\n{demo.notice}. The demo shows the way from cameras to tracks, not quality.\n" if demo.notice else ""
    print(
        f"""
{table}
{warning}
{count} frame sets tracked over DDS, {seconds:.0f} s in all. Results:
  {output}/picture.png   six cameras and the bird's-eye view
  {output}/video.mp4     the same for every set
  {output}/tracks        rosbag2 with images, ground truth, tracks and markers
  {output}/tracks.json   nuScenes tracking submission
  {output}/metrics.txt   the table above
Open them:
  Foxglove   open {output}/tracks/tracks.mcap, import the layout {layout}
  RViz       ros2 launch syncl_ros replay.launch.py bag:={scene} rviz:=true   (with a sourced ROS 2)
  again      {command} track {scene}{tracker} -o out/offline   (the same tracks, without ROS)"""
    )


if __name__ == "__main__":
    sys.exit(main())
