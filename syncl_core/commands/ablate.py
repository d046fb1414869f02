"""`syncl ablate`: rows of the paper's tables, several seeds each, trained alike and compared."""

import argparse

from syncl_core.commands.tune import THRESHOLDS

EXAMPLES = """examples:
  syncl ablate config/ablation_gpu.yaml --init config/ablation_gpu_detector.yaml --train-scenes 200 --jobs 4 -o out/gpu
  syncl ablate config/ablation_cpu.yaml --init out/detector/last.safetensors --train-scenes 60 --jobs 2 -o out/cpu
  syncl ablate CONFIG --init detector.safetensors --tables 4a --seeds 5 -o out/parts      from weights that are there
  syncl ablate CONFIG --tables 4a/4,4a/5 -o out/contrast            two rows; the baseline always comes along
  syncl ablate CONFIG --init detector.safetensors --tables 4a/5 --eval-scenes 8 --set train.iterations=300 -o out/few
  syncl ablate CONFIG --init detector.safetensors --tables 4a/5,open -o out/open   SynCL and what the paper leaves open
  syncl ablate CONFIG --data /data/nuscenes --init detector.safetensors -o out/nuscenes --set train.epochs=6
  syncl ablate CONFIG --list                                        what would be trained
  syncl ablate --report out/ablation                                the page again, without training
  syncl ablate --overview out/*/results.json -o overview.png        several comparisons in one picture
  syncl ablate --evaluate out/ablation --eval-data out/more --eval-split world_val -o out/again    on other scenes
  syncl ablate --evaluate out/ablation --eval-data out/test --eval-split world_test --tune-data out/val -o out/tuned

Every row and seed is an ordinary training run in OUT/ROW/seed-N, all from the same weights and with the same clips;
rows that are the same network share it. The same command goes on after Ctrl-C, kill -9 or a crash and does only what is
left; more --seeds or --tables may be added. OUT gets results.json (every number) and results.md (means, spreads, the
paper's figures, costs) and results.png. A run that breaks is named and stops no other.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "ablate",
        help="compare rows of the paper's tables over several seeds",
        description="Train rows of the paper's ablation tables with an equal budget and compare them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", default="", metavar="CONFIG", help="YAML of the tracker, for all rows")
    parser.add_argument("-o", "--output", default="", metavar="OUT", help="folder of the comparison")
    parser.add_argument("--tables", default="4a,4b,5", help="tables and rows, as 4a,5/2,open (default: 4a,4b,5)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per row (default: 3)")
    parser.add_argument(
        "--init", default="", metavar="FILE", help="weights to start from, or the YAML of a detector to train first"
    )
    parser.add_argument("--data", default="world", metavar="world|NUSCENES", help="training data (default: world)")
    parser.add_argument("--version", default="", help="version folder of a nuScenes root that has several")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument("--eval-data", default="", metavar="NUSCENES", help="root to evaluate on (default: --data)")
    parser.add_argument("--eval-split", default="val", help="split to evaluate on (default: val)")
    parser.add_argument(
        "--train-scenes", type=int, default=0, metavar="N", help="of the world, drawn once for all runs (0: endless)"
    )
    parser.add_argument(
        "--eval-scenes", type=int, default=0, metavar="N", help="of the world, to evaluate on (0: the whole split)"
    )
    parser.add_argument(
        "--tune-data",
        default="",
        metavar="world|NUSCENES",
        help="choose every run's threshold by AMOTA on these scenes, others than those to evaluate on",
    )
    parser.add_argument("--tune-split", default="", help="split to choose thresholds on (default: val of the world)")
    parser.add_argument(
        "--tune-scenes", type=int, default=0, metavar="N", help="of the world, to choose thresholds on (0: all)"
    )
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=THRESHOLDS, metavar="X", help="to choose from: see `syncl tune`"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG, as train.epochs=6"
    )
    parser.add_argument("--device", default="", help="torch device (default: all GPUs in turn, or the CPU)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--no-costs", action="store_true", help="do not measure times and memory after the runs")
    parser.add_argument("--list", action="store_true", help="print what would be trained and stop")
    parser.add_argument(
        "--evaluate",
        default="",
        metavar="OUT",
        help="evaluate the runs of a comparison on --eval-data and stop; what is for training alone is not looked at",
    )
    parser.add_argument("--report", default="", metavar="OUT", help="write the page of a comparison again and stop")
    parser.add_argument(
        "--overview", nargs="+", default=[], metavar="JSON", help="draw SynCL of each results.json into -o OUT and stop"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison import conduct
    from syncl_core.training.comparison.study import load_study

    args.eval_data = args.eval_data or args.data
    if args.report:
        folder = Path(args.report)
        return _told(folder, conduct.report(folder, load_study(folder)))
    if args.overview:
        return _overview(args)
    if args.evaluate:
        return _evaluated(args)
    if not args.config or not (args.output or args.list):
        raise InputError("syncl ablate needs CONFIG and -o OUT, or --report OUT; see syncl ablate --help")
    study = _study(args)
    if args.list:
        print(_listed(study))
        return 0
    folder = Path(args.output)
    return _told(folder, conduct.compare(folder, study, args.device, args.jobs, _version(), not args.no_costs))


def _overview(args: argparse.Namespace) -> int:
    """One picture of several comparisons. Raises InputError naming what is missing or no comparison."""
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison.picture import overview, write_picture

    if not args.output or args.config:
        raise InputError("syncl ablate --overview JSON ... needs the picture to write, -o FILE.png, and no CONFIG")
    write_picture(Path(args.output), overview([Path(name) for name in args.overview]))
    print(f"{len(args.overview)} comparisons -> {args.output}")
    return 0


def _evaluated(args: argparse.Namespace) -> int:
    """The runs of --evaluate on other scenes."""
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison import conduct
    from syncl_core.training.comparison.study import Place

    folder, trained = Path(args.output), Path(args.evaluate)
    if not args.output or folder.resolve() == trained.resolve() or args.config:
        raise InputError("syncl ablate --evaluate OUT needs another folder, -o NEW, and no CONFIG")
    _check_counts(args)
    place = Place(data=args.eval_data, version=args.version, split=args.eval_split, scenes=args.eval_scenes)
    return _told(folder, conduct.evaluate_again(folder, trained, place, _tuning(args), args.device, args.jobs))


def _tuning(args: argparse.Namespace):
    """How every run gets a threshold of its own; None without --tune-data. Raises InputError naming the switch."""
    from syncl_core.errors import InputError
    from syncl_core.training.comparison.study import Place, Tuning

    if not args.tune_data:
        return None
    if wrong := [value for value in args.thresholds if not 0 < value <= 1]:
        raise InputError(f"--thresholds {wrong[0]:g}: expected values above 0, at most 1")
    split = args.tune_split or ("val" if args.tune_data == "world" else "")
    place = Place(data=args.tune_data, version=args.version, split=split, scenes=args.tune_scenes)
    return Tuning(place=place, thresholds=tuple(dict.fromkeys(args.thresholds)))


def _check_counts(args: argparse.Namespace) -> None:
    """Raises InputError naming the switch."""
    from syncl_core.errors import InputError

    for name, least in {"seeds": 1, "jobs": 1, "train_scenes": 0, "eval_scenes": 0, "tune_scenes": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')}: expected {least} or more, got {getattr(args, name)}")
    drawn = {"train-scenes": args.data, "eval-scenes": args.eval_data, "tune-scenes": args.tune_data}
    for name, data in drawn.items():
        if getattr(args, name.replace("-", "_")) and data != "world":
            raise InputError(f"--{name}: only the world is drawn; leave it out for {data}")


def _study(args: argparse.Namespace):
    """What is asked for. Raises InputError naming the switch."""
    from dataclasses import replace

    from syncl_core.commands.train import with_settings
    from syncl_core.config import load_config, with_values
    from syncl_core.errors import InputError
    from syncl_core.io.submission import check_submittable
    from syncl_core.training.comparison.study import Place, Study, choose_rows, detector_run, file_digest

    _check_counts(args)
    # Scenes drawn for the comparison are all used, whatever CONFIG says of a training by itself.
    drawn = {"train": {"first_scene": 0, "scenes": 0}} if args.train_scenes else {}
    config = with_values(with_settings(load_config(args.config), args.set), drawn)
    if config.model.framework == "none":
        raise InputError(f"{args.config}: model.framework: none has no tracks to compare; give a tracker")
    if config.train.clip_length < 2:
        raise InputError(
            f"{args.config}: train.clip_length: a clip of one frame has no tracks to teach; give a tracker"
        )
    check_submittable(config)  # all runs are evaluated
    is_detector = args.init.endswith((".yaml", ".yml"))
    study = Study(
        config=config,
        rows=choose_rows(args.tables),
        seeds=tuple(range(config.train.seed, config.train.seed + args.seeds)),
        training=Place(data=args.data, version=args.version, split=args.split, scenes=args.train_scenes),
        evaluation=Place(data=args.eval_data, version=args.version, split=args.eval_split, scenes=args.eval_scenes),
        tuning=_tuning(args),
        start="" if is_detector else args.init,
        start_digest=file_digest(args.init) if args.init and not is_detector else "",
        detector=with_values(load_config(args.init), drawn) if is_detector else None,
    )
    one_stage = [row.startswith("table8/") for row in study.rows]
    if args.init and any(one_stage):
        raise InputError("--tables 8: these rows are trained in one stage, from nothing; leave out --init")
    if any(one_stage) and not all(one_stage):
        raise InputError("--tables 8: these rows train for longer than others; compare them by themselves")
    return replace(study, start_digest=detector_run(study).digest) if is_detector else study


def _listed(study) -> str:
    """What would be trained, in the order of work."""
    from syncl_core.training.ablations import ABLATIONS
    from syncl_core.training.comparison.study import planned, run_of

    runs = list(planned(study))
    lines = [f"{'row':<26}{'runs in':<26}what"]
    for row in study.rows:
        lines.append(f"{row:<26}{run_of(study, row, study.seeds[0]).row:<26}{ABLATIONS[row].description}")
    first = f"the detector {study.detector.name}, then " if study.detector else ""
    return "\n".join([*lines, f"{first}{len(runs)} runs: seeds {', '.join(map(str, study.seeds))}"])


def _told(folder, results: dict) -> int:
    """Say where the page is. Raises InputError naming the first run that is missing."""
    from syncl_core.errors import InputError

    print(f"{len(results['runs'])} runs -> {folder / 'results.md'}")
    if results["missing"]:
        name, reason = next(iter(results["missing"].items()))
        more = f" (and {len(results['missing']) - 1} more)" if len(results["missing"]) > 1 else ""
        raise InputError(f"{name}: {reason}{more}")
    return 0


def _version() -> str:
    """The commit of the code in use where there is one, else the version of the package."""
    import subprocess
    from importlib import metadata
    from pathlib import Path

    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        said = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return said.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        return metadata.version("syncl_ros")
    except metadata.PackageNotFoundError:
        return "unknown"
