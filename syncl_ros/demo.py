"""`make demo`: a scene becomes a bag; player, node and recorder talk over DDS; metrics, a picture and a video come out.

Three operating-system processes, as on a vehicle. What is evaluated and drawn is read back from the recorded bag, so
all of it has gone over DDS.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from syncl_core.cli import main as syncl
from syncl_core.config import load_config
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.errors import InputError
from syncl_core.evaluation.tracking import evaluate_tracking, format_metrics
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.files import write_text
from syncl_core.io.scene_to_bag import write_scene_bag
from syncl_core.io.submission import match_to_samples, tracking_submission, write_submission
from syncl_core.io.track_bag import MARKERS_TOPIC, TRACKS_TOPIC
from syncl_core.types import ObjectSet
from syncl_core.view.picture import Caption
from syncl_core.view.png import write_png
from syncl_core.view.recording import open_recording
from syncl_core.view.replay import render_sets
from syncl_core.view.video import write_video
from syncl_ros.children import child_process, folder_taken, wait_for_recorder
from syncl_ros.environment import ros_environment, share_file

UNTRAINED = "UNTRAINED WEIGHTS: boxes mean nothing"
EXAMPLES = """examples:
  python -m syncl_ros.demo                                             a synthetic scene
  python -m syncl_ros.demo --data /data/sets/nuscenes --scene scene-0103
"""


class Demo(NamedTuple):
    """What the demo is made with, and where it puts things."""

    data: NuScenesScenes
    scene: str
    config: Path
    checkpoint: str
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
    parser.add_argument("--config", default="", help="YAML of the tracker (default: config/petr_tiny_128x320.yaml)")
    parser.add_argument("--checkpoint", default="", help="weights (.safetensors); without: untrained")
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
    config = Path(args.config) if args.config else share_file("config/petr_tiny_128x320.yaml")
    load_config(config)
    with folder_taken(args.output):
        _make(args, config, started)


def _make(args: argparse.Namespace, config: Path, started: float) -> None:
    _say(1, f"scene: {args.data or 'a synthetic one'}")
    data = NuScenesScenes(args.data or _synthetic_scene(args.output, args.seconds))
    demo = Demo(data, args.scene or _first_scene(data), config, args.checkpoint, args.output)
    _say(2, f"rosbag of {demo.scene}")
    write_scene_bag(data, demo.scene, demo.bag, overwrite=True, progress=True)
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
    checkpoint = ["-p", f"checkpoint:={demo.checkpoint}"] if demo.checkpoint else []
    with BagReader(demo.bag) as reader:
        topics = [*reader.topics, TRACKS_TOPIC, MARKERS_TOPIC]
    commands = {
        "tracker": [
            *("--ros-args", "--params-file", str(share_file("config/replay.yaml"))),
            *("-p", f"config:={demo.config}", *checkpoint),
        ],
        "recorder": [
            *("-o", str(demo.result), "--overwrite", "--whole", "--until", "/tracker/finished", "--topics", *topics),
            *("--ros-args", "-p", "use_sim_time:=true"),  # log times as in the scene's bag
        ],
        "player": [str(demo.bag), "--clock", "100", "--wait-for", "/tracker/ready", "/recorder/ready"],
    }
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(child_process(name, arguments, environment, log / f"{name}.log"))
            for name, arguments in commands.items()
        }
        wait_for_recorder(running, log)


def _evaluate(demo: Demo) -> tuple[list[ObjectSet], str]:
    """The recorded tracks and the text table of their official metrics."""
    with BagReader(demo.result) as reader:
        object_sets = reader.object_sets(TRACKS_TOPIC)
    results = match_to_samples(object_sets, demo.data.samples(demo.scene))
    path = demo.output / "tracks.json"
    write_submission(path, tracking_submission(results))
    metrics = evaluate_tracking(demo.data.root, demo.data.version, [demo.scene], path, demo.output / "metrics")
    table = format_metrics(metrics)
    write_text(demo.output / "metrics.txt", table + "\n")
    return object_sets, table


def _draw(demo: Demo, object_sets: list[ObjectSet]) -> None:
    """A video of all sets, and the picture of the one in the middle."""
    tracks = {objects.t_ns: objects for objects in object_sets}
    notice = "" if demo.checkpoint else UNTRAINED
    recording = open_recording(demo.bag, load_config(demo.config))
    caption = Caption(scene=demo.scene, model=demo.config.stem, notice=notice, count=len(tracks))
    pages = render_sets(recording.frame_sets, tracks, recording.ground_truth, caption=caption)
    with tqdm(total=len(tracks), desc="pictures", unit="", disable=None) as bar:
        write_video(demo.output / "video.mp4", _with_picture(pages, len(tracks) // 2, demo, bar), fps=2.0)


def _with_picture(pages: Iterable[np.ndarray], middle: int, demo: Demo, bar: tqdm) -> Iterator[np.ndarray]:
    for number, page in enumerate(pages):
        if number == middle:
            write_png(demo.output / "picture.png", page)
        bar.update()
        yield page


def _summary(demo: Demo, count: int, table: str, seconds: float) -> None:
    output, config = demo.output, shlex.quote(os.path.relpath(demo.config))
    warning = "" if demo.checkpoint else f"\n{UNTRAINED}. The demo shows the way from cameras to tracks, not quality.\n"
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
  Foxglove   open {output}/tracks/tracks.mcap, add a 3D panel, display frame odom
  RViz       ros2 launch syncl_ros replay.launch.py bag:={output}/scene rviz:=true
  again      syncl track {output}/scene -c {config} -o out/offline   (the same tracks, without ROS)"""
    )


if __name__ == "__main__":
    sys.exit(main())
