"""`syncl robustness`: what a tracker is worth with cameras missing and at other processing periods."""

import argparse

EXAMPLES = """examples:
  syncl robustness /data/sets/nuscenes --split mini_val --checkpoint model.safetensors -o out/robustness
  syncl robustness out/world -o out/robustness                                         the project's own weights
  syncl robustness out/world --checkpoint model.safetensors --missing 0 1 2 --periods 0.25 0.5 1 -o out/robustness

OUT/robustness.md holds two tables, "AMOTA with k cameras missing" and "AMOTA against the processing period";
OUT/robustness.json all figures. Missing cameras are dead for a whole scene; which ones is drawn per scene (--seed).
Periods below that of the key frames need the sweeps of the data set. Between processed sets objects are predicted.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "robustness",
        help="metrics with cameras missing and at other processing periods",
        description="Track and evaluate the same scenes under worse and worse conditions.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="NUSCENES", help="nuScenes root: has v1.0-*/ and maps/")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the tables")
    parser.add_argument("-c", "--config", default="", help="YAML or name of the tracker (default: the checkpoint's)")
    parser.add_argument("--checkpoint", default="", help="weights (.safetensors); without: as `syncl track` does")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--split", default="", help="nuScenes split, or one of the root's own splits.json")
    scope.add_argument("--scene", action="append", default=[], metavar="NAME", help="only this scene (repeatable)")
    parser.add_argument("--version", default="", help="version folder of a nuScenes root that has several")
    parser.add_argument(
        "--missing", type=int, nargs="*", default=[0, 1, 2, 3], metavar="K", help="cameras missing (default: 0 1 2 3)"
    )
    parser.add_argument(
        "--periods",
        type=float,
        nargs="*",
        default=[0.5, 1.0, 1.5, 2.0],
        metavar="S",
        help="seconds between two processed sets (default: 0.5 1 1.5 2)",
    )
    parser.add_argument("--device", default="", help="torch device (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="which cameras are missing; untrained weights (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from syncl_core.checkpoint import chosen_weights, load_tracker
    from syncl_core.data.nuscenes import NuScenesScenes
    from syncl_core.devices import default_device
    from syncl_core.evaluation import robustness
    from syncl_core.evaluation.tracking import import_devkit
    from syncl_core.io.files import make_folder, refuse_existing, write_text
    from syncl_core.offline import chosen_scenes
    from syncl_core.progress_bar import progress_bar
    from syncl_core.runtime.session import TrackerSession

    device = args.device or default_device()
    tracker = load_tracker(args.config, args.checkpoint, args.seed, device)
    trained = chosen_weights(args.config, args.checkpoint) is not None
    if not trained:
        print("note: no --checkpoint: the weights are untrained, the figures mean nothing", file=sys.stderr)
    conditions = _conditions(args, len(tracker.config.rig.cameras), robustness.Condition)
    data = NuScenesScenes(args.root, args.version)
    split = data.split(args.split) if args.split else ()
    scenes = chosen_scenes(
        data, args.scene, split, tracker.config, lambda text: print(f"note: {text}", file=sys.stderr)
    )
    for condition in conditions:  # before the first of them
        robustness.check_sweeps(data, scenes, tracker.config, condition)
    texts, tables = Path(args.output) / "robustness.md", Path(args.output) / "robustness.json"
    if not args.overwrite:
        refuse_existing(texts, tables)
    import_devkit()
    make_folder(args.output)

    def make_session(config):
        return TrackerSession(tracker.step, tracker.init_state, config, device)

    outcomes = []
    with progress_bar(total=len(conditions) * len(scenes), unit="scene") as bar:
        for condition in conditions:
            bar.set_description(
                f"every {condition.period_s:g} s" if condition.period_s else f"{condition.missing} missing"
            )
            outcomes.append(
                robustness.measure(
                    make_session, tracker.config, data, scenes, condition, args.seed, lambda _: bar.update()
                )
            )
    name = tracker.config.name if trained else f"{tracker.config.name} (untrained: the figures mean nothing)"
    write_text(texts, robustness.to_markdown(name, outcomes))
    write_text(tables, robustness.to_json(name, outcomes))
    print(texts.read_text(encoding="utf-8"), end="")
    return 0


def _conditions(args: argparse.Namespace, num_cameras: int, condition: type) -> list:
    import math

    from syncl_core.errors import InputError

    for count in args.missing:
        if not 0 <= count < num_cameras:
            raise InputError(f"--missing {count}: the rig has {num_cameras} cameras, one must be left")
    for period_s in args.periods:
        if not 0 < period_s < math.inf:
            raise InputError(f"--periods {period_s}: expected seconds above zero")
    if not args.missing and not args.periods:
        raise InputError("--missing, --periods: nothing to measure")
    return [condition(missing=k) for k in dict.fromkeys(args.missing)] + [
        condition(period_s=s) for s in dict.fromkeys(args.periods)
    ]
