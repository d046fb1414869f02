"""`syncl render`: pictures and a video of a drive, its tracks and its ground truth."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from syncl_core.config import SynclConfig

EXAMPLES = """examples:
  syncl render out/scene --tracks out/tracks/tracks.json --ground-truth --video -o out/pictures
  syncl render out/scene --tracks out/result -o out/pictures      tracks of the node, from its result bag
  syncl render /data/nuscenes --scene scene-0103 --ground-truth -o out/pictures
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "render",
        help="pictures and a video of tracks on the camera images",
        description="Draw one picture per set: six cameras with 3D boxes, and the scene from above with trails.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="bag (folder, .mcap or .db3), or a nuScenes root")
    parser.add_argument("--scene", default="", help="scene of a nuScenes root (default: the only one there)")
    parser.add_argument("--version", default="", help="tables of a nuScenes root (default: the only ones there)")
    parser.add_argument("--tracks", type=Path, metavar="FILE", help="result bag, or nuScenes tracking JSON")
    parser.add_argument("--topic", default="/tracker/tracks", help="topic of the tracks in the result bag")
    parser.add_argument("--ground-truth", action="store_true", help="draw the ground truth, dashed and white")
    parser.add_argument(
        "-c", "--config", type=Path, metavar="YAML", help="the tracker's: which images make a set of a bag"
    )
    parser.add_argument("--model", default="", help="name of the tracker, for the headline")
    parser.add_argument("--notice", default="", help="warning for the headline")
    parser.add_argument("--width", type=int, default=1920, help="width of a picture in pixels (default: 1920)")
    parser.add_argument("--video", action="store_true", help="write video.mp4, too")
    parser.add_argument(
        "--fps", type=float, default=0.0, help="pictures per second of the video (default: as recorded)"
    )
    parser.add_argument(
        "--pictures",
        choices=("all", "last", "none"),
        default="all",
        help="all: picture_0001.png ...; last: only the last one, as picture.png",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import sys

    from syncl_core.errors import InputError, list_names
    from syncl_core.progress_bar import progress_bar
    from syncl_core.view.picture import Caption
    from syncl_core.view.recording import open_recording, period, read_tracks
    from syncl_core.view.replay import render_sets
    from syncl_core.view.video import write_video

    if not 320 <= args.width <= 8192 or not 0 <= args.fps <= 1000:
        raise InputError("--width must be within 320 and 8192 pixels, --fps within 0 and 1000")
    if args.pictures == "none" and not args.video:
        raise InputError("--pictures none: nothing would be written; give --video")
    config = _config(args)
    recording = open_recording(args.source, config, args.scene, args.version)
    tracks = read_tracks(args.tracks, recording.sample_times, args.topic) if args.tracks else None
    truth = recording.ground_truth if args.ground_truth else None
    count = recording.count if tracks is None else len(tracks)
    caption = Caption(scene=recording.name, model=args.model, notice=args.notice, count=count)
    pages = render_sets(
        recording.frame_sets, tracks, truth, caption=caption, cameras=config.rig.cameras, width=args.width
    )
    with progress_bar(pages, "pictures", total=count or None, unit="") as bar:
        if args.video:
            fps = args.fps or 1.0 / ((period(tracks) if tracks else recording.period_s) or 0.5)
            drawn = write_video(args.output / "video.mp4", _saved(bar, args), fps)
        else:
            drawn = sum(1 for _ in _saved(bar, args))
    print(f"{args.output}: {drawn} pictures drawn" + ", video.mp4" * args.video)
    if args.pictures == "all" and (older := _numbered(args.output, drawn + 1)):
        print(f"note: {args.output}: {list_names(older, 1)} of an earlier drawing left as they were", file=sys.stderr)
    return 0


def _config(args: argparse.Namespace) -> "SynclConfig":
    """The tracker's configuration; without tracks to go with them, incomplete sets are shown, too."""
    from dataclasses import replace

    from syncl_core.config import SynclConfig, load_config

    config = load_config(args.config) if args.config else SynclConfig()
    return config if args.tracks else replace(config, sync=replace(config.sync, min_cameras=1))


def _numbered(folder: Path, first: int) -> list[str]:
    """The pictures in a folder from this number on."""
    numbers = {path.name: path.stem.removeprefix("picture_") for path in folder.glob("picture_*.png")}
    return [name for name, number in numbers.items() if number.isdecimal() and int(number) >= first]


def _saved(pages: Iterable["np.ndarray"], args: argparse.Namespace) -> Iterator["np.ndarray"]:
    """Pass the pages on, and write those that are wanted as PNG."""
    from syncl_core.errors import InputError
    from syncl_core.view.png import write_png

    page = None
    for number, page in enumerate(pages, start=1):
        if args.pictures == "all":
            write_png(args.output / f"picture_{number:04d}.png", page)
        yield page
    if page is None:
        raise InputError(f"{args.source}: nothing to draw: no time stamp of {args.tracks} is that of a frame set")
    if args.pictures == "last":
        write_png(args.output / "picture.png", page)
