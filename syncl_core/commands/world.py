"""`syncl world`: write synthetic scenes in the nuScenes schema."""

import argparse
from pathlib import Path

_EPILOG = """examples:
  syncl world out/world                          one scene of 10 s, six cameras, 12 images a second each
  syncl world out/world --scenes 20 --seed 100   scenes world-0100 to world-0119
  syncl world out/val --split val --no-sweeps    world-val-00 to world-val-19, key frames alone
  syncl world out/small --seconds 4 --no-sweeps --image-width 480

Everything in it is synthetic. nuscenes-devkit loads the folder as version v1.0-syncl; its split is called world
(with --split val also world_val, and so on). A length of 20 s gives 40 key frames.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "world",
        help="write synthetic scenes in the nuScenes schema",
        description="Render synthetic street scenes for six cameras and write them in the nuScenes schema.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="",
        help="write the scenes of a fixed list; default: those from --seed on",
    )
    parser.add_argument("--scenes", type=int, metavar="N", help="number of scenes (default: 1, or all of val or test)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of a scene, of a split up to 20 (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene (default: %(default)s)")
    parser.add_argument("--image-width", type=int, default=800, help="pixels, up to 1600 (default: %(default)s)")
    parser.add_argument("--no-sweeps", action="store_true", help="key frames only, two a second")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one per CPU)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from syncl_core.world import writer

    config = writer.WorldConfig(
        split=args.split,
        scenes=args.scenes,
        seconds=args.seconds,
        seed=args.seed,
        image_width=args.image_width,
        sweeps=not args.no_sweeps,
        workers=args.workers,
    )
    out = writer.write_world(args.out, config, progress=True)
    scenes = len(writer.scene_seeds(config))
    images = sum(1 for folder in ("samples", "sweeps") for _ in (out / folder).glob("*/*.jpg"))
    print(f"{out}: {scenes} synthetic scene(s), {images} images, nuScenes schema {writer.VERSION}")
    return 0
