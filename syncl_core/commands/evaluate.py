"""`syncl eval`: official nuScenes tracking metrics of a submission file."""

import argparse

EXAMPLES = """examples:
  syncl eval /data/nuscenes out/tracks/tracks.json --split mini_val
  syncl eval /data/nuscenes out/tracks/tracks.json --scene scene-0103 --scene scene-0916 -o out/metrics
  syncl eval out/world out/tracks/tracks.json          every scene the file has key frames of
  syncl eval out/world out/tracks/tracks.json --by-distance     and up to where the tracks can be relied on
  syncl eval out/world out/tracks/tracks.json --class car       of a tracker that knows nothing else
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="official nuScenes tracking metrics",
        description="Compare tracks with the ground truth of a nuScenes root, by nuscenes-devkit: AMOTA, AMOTP, IDS.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="NUSCENES", help="nuScenes root: has v1.0-*/ and maps/")
    parser.add_argument("tracks", metavar="TRACKS.JSON", help="tracks in the nuScenes tracking submission format")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--split", default="", help="nuScenes split, or one of the root's own splits.json")
    scope.add_argument("--scene", action="append", default=[], metavar="NAME", help="scene; may be given several times")
    parser.add_argument("--version", default="", help="version folder; needed only if the root has several")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="class that counts; may be given several times (default: all seven)",
    )
    parser.add_argument(
        "--by-distance", action="store_true", help="add which objects are tracked and which boxes are right, in rings"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="write the devkit's summary and details there, and the table"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from syncl_core.classes import TRACKING_CLASSES
    from syncl_core.evaluation.rings import format_rings, measure_rings
    from syncl_core.evaluation.tracking import evaluate_tracking, format_metrics
    from syncl_core.io.files import write_text
    from syncl_core.progress_bar import progress_bar

    asked = (args.root, args.version, args.split or args.scene, args.tracks)
    classes = args.classes or TRACKING_CLASSES
    rings = measure_rings(*asked, classes) if args.by_distance else ()  # first: the official metrics take longer
    with progress_bar(total=len(classes), desc="eval", unit="class") as bar:
        table = format_metrics(evaluate_tracking(*asked, args.output, classes, bar.update))
    if rings:
        table += f"\n\n{format_rings(rings)}"
    print(table)
    if args.output:
        write_text(Path(args.output) / "metrics.txt", table + "\n")
    return 0
