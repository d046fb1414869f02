"""`syncl tune`: the threshold of its scores that a tracker is best with."""

import argparse

from syncl_core.train_config import THRESHOLDS

EXAMPLES = """examples:
  syncl tune out/val --checkpoint out/run/last.safetensors -o out/tuned.yaml
  syncl tune /data/nuscenes --split mini_val --checkpoint model.safetensors --thresholds 0.2 0.3 0.4 -o out/tuned.yaml
  syncl track out/scene -c out/tuned.yaml --checkpoint out/run/last.safetensors -o out/tracks     use what was found

Take scenes that the weights were not trained on, and others again for figures that you publish. Every threshold is
tried on the same scenes; images are decoded for each, what the network sees in them is worked out once.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "tune",
        help="the threshold of its scores that a tracker is best with",
        description="Track scenes with several thresholds, and write the configuration with the highest AMOTA.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="NUSCENES", help="nuScenes root: has v1.0-*/ and maps/")
    parser.add_argument("-o", "--output", required=True, metavar="YAML", help="configuration to write")
    parser.add_argument("-c", "--config", default="", help="YAML or name of the tracker (default: the checkpoint's)")
    parser.add_argument("--checkpoint", default="", help="weights (.safetensors); without: as `syncl track` does")
    parser.add_argument("--split", default="", help="nuScenes split, or one of the root's own splits.json")
    parser.add_argument("--version", default="", help="version folder of a nuScenes root that has several")
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        default=THRESHOLDS,
        metavar="X",
        help=f"values of track.score_threshold; the others keep their ratios to it (default: {_words(THRESHOLDS)})",
    )
    parser.add_argument("--device", default="", help="torch device (default: a GPU if there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    parser.set_defaults(run=run)


def _words(values) -> str:
    return " ".join(f"{value:g}" for value in values)


def run(args: argparse.Namespace) -> int:
    import sys
    import tempfile
    from pathlib import Path

    import yaml

    from syncl_core.checkpoint import chosen_weights, load_tracker
    from syncl_core.config import config_to_dict
    from syncl_core.data.nuscenes_clips import NuScenesClips
    from syncl_core.evaluation.tracking import import_devkit
    from syncl_core.io.files import check_writable, refuse_existing, write_text
    from syncl_core.progress_bar import progress_bar
    from syncl_core.training import thresholds
    from syncl_core.training.distributed import join
    from syncl_core.training.evaluate import Evaluation

    output, workers = Path(args.output), join(args.device)
    if not args.overwrite:
        refuse_existing(output)
    check_writable(output)
    tracker = load_tracker(args.config, args.checkpoint, device=str(workers.device))
    weights = chosen_weights(args.config, args.checkpoint)
    if weights is None:
        print("note: no --checkpoint: the weights are untrained, the figures mean nothing", file=sys.stderr)
    values = tuple(dict.fromkeys(args.thresholds))
    for value in values:  # before the first of them
        thresholds.at_threshold(tracker, value)
    clips = NuScenesClips(args.root, tracker.config, args.split, args.version)
    import_devkit()
    with tempfile.TemporaryDirectory(prefix="syncl-tune-") as folder:
        with progress_bar(total=len(clips.scene_names), desc="tune", unit="scene") as bar:
            evaluation = Evaluation(clips, Path(folder), workers)
            scores = thresholds.scores_by_threshold(evaluation, tracker, values, bar.update)
    print(thresholds.format_scores(scores, tracker.config))
    best = thresholds.at_threshold(tracker, thresholds.best_threshold(scores)).config
    write_text(output, yaml.safe_dump(config_to_dict(best), sort_keys=False))
    print(f"track.score_threshold {best.track.score_threshold:g} -> {output}")
    if weights:
        print(f"to be used with its weights: -c {output} --checkpoint {weights}")
    return 0
