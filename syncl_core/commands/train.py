"""`syncl train`: train a detector or a tracker. With several GPUs: torchrun ... -m syncl_core.train, same arguments."""

import argparse

EXAMPLES = """examples:
  syncl train config/petr_world_160x448.yaml -o out/run                     on the endless synthetic world
  syncl train config/petr_vov_320x800_detector.yaml --data /data/nuscenes --init fcos3d.pth -o out/detector
  syncl train config/petr_vov_320x800.yaml --data /data/nuscenes --init out/detector/last.safetensors -o out/tracker
  syncl train config/petr_vov_320x800.yaml -o out/tracker --data /data/nuscenes --resume        after an interruption
  syncl train config/petr_vov_320x800.yaml -o out/k6 --ablation table6/6 --set train.epochs=6
  syncl train --list-ablations                                              rows of the paper's tables
  torchrun --nproc-per-node 8 -m syncl_core.train config/petr_vov_320x800.yaml --data /data/nuscenes -o out/tracker

OUT gets last.pt (everything --resume needs), last.safetensors and best.safetensors (weights for `syncl track`),
log.jsonl, event files for TensorBoard and, with train.evaluate_every, official metrics under evaluations/. Ctrl-C saves
and stops.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a detector or a tracker",
        description="Train the network of a configuration on clips, by its `train:` and `syncl:` keys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", default="", metavar="CONFIG", help="YAML or name of the tracker")
    parser.add_argument("-o", "--output", default="", metavar="OUT", help="folder of the run")
    parser.add_argument("--data", default="world", metavar="world|NUSCENES", help="training data (default: world)")
    parser.add_argument("--version", default="", help="version folder of a nuScenes root that has several")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument("--eval-data", default="", metavar="NUSCENES", help="root to evaluate on (default: --data)")
    parser.add_argument("--eval-split", default="", help="split to evaluate on (default: val)")
    parser.add_argument("--init", default="", metavar="FILE", help="weights to start from: ours or public ones")
    parser.add_argument("--resume", action="store_true", help="go on where OUT/last.pt was written")
    parser.add_argument("--maps", default="", metavar="FOLDER", help="where a frozen encoder's maps are kept (or OUT)")
    parser.add_argument("--ablation", default="", metavar="NAME", help="a row of the paper's tables, as table4a/2")
    parser.add_argument("--list-ablations", action="store_true", help="print those rows and stop")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG, as train.epochs=6"
    )
    parser.add_argument("--device", default="", help="torch device (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training import distributed
    from syncl_core.training.ablations import format_ablations

    if args.list_ablations:
        print(format_ablations())
        return 0
    if not args.config or not args.output:
        raise InputError("syncl train needs CONFIG and -o OUT; see syncl train --help")
    config, folder = _configuration(args), Path(args.output)
    _check_arguments(args, config)
    _check_folder(folder, args.resume)
    workers = distributed.join(args.device)
    try:
        finished = _train(args, config, folder, workers)
    finally:
        distributed.leave()
    if workers.leads and finished:
        print(f"trained weights -> {folder / 'last.safetensors'}")
    return 0 if finished else 130


def _train(args: argparse.Namespace, config, folder, workers) -> bool:
    import contextlib
    import sys
    from pathlib import Path

    from syncl_core.io.folder_lock import locked
    from syncl_core.training.evaluate import Evaluation
    from syncl_core.training.run import train
    from syncl_core.training.sources import evaluation_clips, training_source

    source = training_source(args.data, args.version, args.split, config, workers)
    evaluate = None
    if config.train.evaluate_every:
        root = args.eval_data or args.data
        clips = evaluation_clips(root, args.version, args.eval_split or "val", config, folder, workers)
        evaluate = Evaluation(clips, folder / "evaluations", workers)
        if workers.leads and (learned := set(clips.scene_names) & set(source.scene_names)):
            print(
                f"note: {len(learned)} of the {len(clips.scene_names)} scenes to evaluate on are trained on, too: "
                "the figures flatter the tracker",
                file=sys.stderr,
            )
    with locked(folder) if workers.leads else contextlib.nullcontext():
        if workers.leads:
            _check_folder(folder, args.resume)  # again: another run may have ended here since
        return train(
            *(config, source, folder, workers),
            evaluate=evaluate,
            resume=args.resume,
            start=args.init,
            encoded=Path(args.maps) if args.maps else None,
        )


def _configuration(args: argparse.Namespace):
    """CONFIG, then the ablation, then every --set."""
    from syncl_core.config import load_config
    from syncl_core.settings import with_settings
    from syncl_core.training.ablations import ablated

    config = load_config(args.config)
    if args.ablation:
        config = ablated(config, args.ablation)
    return with_settings(config, args.set)


def _check_arguments(args: argparse.Namespace, config) -> None:
    """No switch may be given in vain, and nothing be drawn before what is missing is told."""
    import sys
    from pathlib import Path

    from syncl_core.checkpoint import start_from
    from syncl_core.classes import CAMERAS
    from syncl_core.data.augment import check_size
    from syncl_core.errors import InputError
    from syncl_core.io.submission import check_submittable
    from syncl_core.tracking.build import build_tracker
    from syncl_core.training.sources import WORLD
    from syncl_core.world.rig import camera_model

    train = config.train
    if config.syncl.enabled and config.model.framework == "none":
        raise InputError(
            f"{args.config}: model.framework: none has no tracks, which syncl.enabled needs; give a tracker"
        )
    if args.maps and not train.freeze_encoder:
        raise InputError("--maps: without train.freeze_encoder no feature maps are kept")
    for name in ("eval_data", "eval_split"):
        if getattr(args, name) and not train.evaluate_every:
            raise InputError(f"--{name.replace('_', '-')}: nothing is evaluated without --set train.evaluate_every=N")
    if args.version and {args.data, args.eval_data or args.data} == {"world"}:
        raise InputError("--version: the world has no versions; it is for a nuScenes root (--data)")
    if train.evaluate_every and config.model.framework != "none":
        check_submittable(config)
    if args.data == WORLD:  # a nuScenes root looks at its own images
        check_size(f"world: {CAMERAS[0]}", camera_model(CAMERAS[0], config.image.width), config.image)
    if args.init and not args.resume:
        if not Path(args.init).is_file():
            raise InputError(f"--init {args.init}: no such file")
        if train.evaluate_every:  # its scenes may have to be drawn
            start_from(args.init, build_tracker(config))
    if (train.freeze_encoder or train.freeze_backbone) and not (args.init or args.resume):
        print("note: without --init the parts that train.freeze_... freezes are untrained", file=sys.stderr)


def _check_folder(folder, resume: bool) -> None:
    """A new run must not bury an old one, and only an old one can be resumed."""
    from syncl_core.errors import InputError

    snapshot, best = folder / "last.pt", folder / "best.safetensors"
    if resume and not snapshot.is_file():
        raise InputError(f"{snapshot}: no such snapshot; nothing to resume")
    if not resume and (snapshot.exists() or best.exists()):
        raise InputError(f"{folder}: holds a run already; give --resume to go on with it, or another -o")
