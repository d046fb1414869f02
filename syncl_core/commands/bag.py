"""`syncl bag`: a nuScenes scene as a playable rosbag2."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  syncl bag /data/nuscenes --version v1.0-mini --scene scene-0103 -o scene-0103
  syncl bag out/world -o out/scene             the only scene of a root needs no name
  ros2 bag play scene-0103 --clock             plays it; so do Foxglove and `syncl track scene-0103`
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "bag",
        help="turn a nuScenes scene into a rosbag2 (MCAP)",
        description="Write one scene as a rosbag2: images with calibration, poses, ground truth, true time stamps.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, help="nuScenes root (with v1.0-*/ and samples/)")
    parser.add_argument("--version", default="", help="tables to use, such as v1.0-mini (default: the only one there)")
    parser.add_argument("--scene", default="", help="scene name (default: the only one there)")
    parser.add_argument("--no-sweeps", action="store_true", help="key frames only (2 Hz) instead of all frames (12 Hz)")
    parser.add_argument("--overwrite", action="store_true", help="replace the bag if it exists")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the new bag")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from syncl_core.data.nuscenes import NuScenesScenes
    from syncl_core.errors import InputError
    from syncl_core.io.scene_to_bag import write_scene_bag

    data = NuScenesScenes(args.root, args.version)
    if not args.scene and len(data.scene_names) != 1:
        names = ", ".join(data.scene_names[:10]) + (", ..." if len(data.scene_names) > 10 else "")
        raise InputError(f"{args.root}: choose a scene with --scene: {names or 'there are none'}")
    bag = write_scene_bag(
        data,
        args.scene or data.scene_names[0],
        args.output,
        sweeps=not args.no_sweeps,
        overwrite=args.overwrite,
        progress=True,
    )
    print(f"{bag.path}: {bag.seconds:.1f} s, {bag.images} images, {bag.samples} key frames with ground truth")
    if bag.missing_samples:
        total = bag.samples + bag.missing_samples
        print(f"note: {bag.missing_samples} of the scene's {total} key frames have no images on disk and are left out")
    return 0
