"""`syncl ablate`: rows of the paper's tables, several seeds each, trained alike and compared."""

import argparse

EXAMPLES = """examples:
  syncl ablate config/ablation_gpu.yaml --init config/ablation_gpu_detector.yaml --train-scenes 200 --jobs 4 -o out/gpu
  syncl ablate config/ablation_cpu.yaml --init out/detector/last.safetensors --train-scenes 60 --jobs 2 -o out/cpu
  syncl ablate CONFIG --init detector.safetensors --tables 4a --seeds 5 -o out/parts      from weights that are there
  syncl ablate CONFIG --tables 4a/4,4a/5 -o out/contrast            two rows; the baseline always comes along
  syncl ablate CONFIG --init detector.safetensors --tables 4a/5 --eval-scenes 8 --set train.iterations=300 -o out/few
  syncl ablate CONFIG --init detector.safetensors --tables 4a/5,open -o out/open   SynCL and what the paper leaves open
  syncl ablate CONFIG --data /data/nuscenes --init detector.safetensors -o out/nuscenes --set train.epochs=6
  syncl ablate CONFIG --list                                        what would be trained
  syncl ablate --report out/ablation                                page and picture again, without training
  syncl ablate --overview out/*/results.json -o overview.png        several comparisons in one picture
  syncl ablate --curve out/short/results.json out/long/results.json -o curve.png      over the iterations of training
  syncl ablate --evaluate out/ablation --eval-data out/more --eval-split world_val -o out/again    on other scenes
  syncl ablate --evaluate out/ablation --eval-data out/test --eval-split world_test --tune-data out/val -o out/tuned

Every row and seed is an ordinary training run in OUT/ROW/seed-N, all from the same weights and with the same clips;
rows that are the same network share it. The same command goes on after Ctrl-C, kill -9 or a crash and does only what is
left; more --seeds or --tables may be added. OUT gets results.json (every number) and results.md (means, spreads, the
paper's figures, costs) and results.png. A run that breaks is named and stops no other.
"""


_FOR_TRAINING = ("tables", "seeds", "init", "split", "train_scenes", "set")
"""Switches without a meaning for --evaluate and --report."""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "ablate",
        help="compare rows of the paper's tables over several seeds",
        description="Train rows of the paper's ablation tables with an equal budget and compare them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", default="", metavar="CONFIG", help="YAML or name of the rows' tracker")
    parser.add_argument("-o", "--output", default="", metavar="OUT", help="folder of the comparison")
    parser.add_argument("--tables", default="4a,4b,5", help="tables and rows, as 4a,5/2,open (default: 4a,4b,5)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per row (default: 3)")
    parser.add_argument(
        "--init", default="", metavar="FILE", help="weights to start from, or the YAML of a detector to train first"
    )
    _add_scenes(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG, as train.epochs=6"
    )
    parser.add_argument("--device", default="", help="torch device (default: all GPUs in turn, or the CPU)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--no-costs", action="store_true", help="do not measure times and memory after the runs")
    parser.add_argument("--list", action="store_true", help="print what would be trained and stop")
    _add_finished(parser)
    parser.set_defaults(run=run, for_training={name: parser.get_default(name) for name in _FOR_TRAINING})


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    """What is trained, evaluated and tuned on."""
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
    parser.add_argument("--thresholds", type=float, nargs="+", metavar="X", help="to choose from: see `syncl tune`")


def _add_finished(parser: argparse.ArgumentParser) -> None:
    """What is done with comparisons that are there, instead of training."""
    parser.add_argument(
        "--evaluate",
        default="",
        metavar="OUT",
        help="evaluate the runs of a comparison on --eval-data and stop",
    )
    parser.add_argument(
        "--report", default="", metavar="OUT", help="write page and picture of a comparison again and stop"
    )
    parser.add_argument(
        "--overview",
        nargs="+",
        default=[],
        metavar="JSON",
        help="draw SynCL of each results.json into -o FILE.png and stop",
    )
    parser.add_argument(
        "--curve",
        nargs="+",
        default=[],
        metavar="JSON",
        help="draw what results.json of several budgets say over their iterations into -o FILE.png and stop",
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison import conduct
    from syncl_core.training.comparison.asked import asked_study
    from syncl_core.training.comparison.study import load_study

    args.eval_data = args.eval_data or args.data
    if args.report:
        if vain := [name for name in ("config", "output", *_given_for_training(args)) if getattr(args, name)]:
            raise InputError(f"syncl ablate --report OUT writes into OUT; leave out {_switch(vain[0])}")
        folder = Path(args.report)
        return _told(folder, conduct.report(folder, load_study(folder)))
    if args.overview or args.curve:
        return _picture(args)
    if args.evaluate:
        return _evaluated(args)
    if not args.config or not (args.output or args.list):
        raise InputError("syncl ablate needs CONFIG and -o OUT, or --report OUT; see syncl ablate --help")
    study = asked_study(args)
    if args.list:
        print(_listed(study))
        return 0
    folder = Path(args.output)
    return _told(folder, conduct.compare(folder, study, args.device, args.jobs, _version(), not args.no_costs))


def _picture(args: argparse.Namespace) -> int:
    """One picture of several comparisons. Raises InputError naming what is missing or no comparison."""
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison.curve import curve, curve_figure
    from syncl_core.training.comparison.picture import figure, overview, write_picture

    files = [Path(name) for name in args.overview or args.curve]
    if not args.output.endswith(".png") or args.config or (args.overview and args.curve):
        raise InputError(
            "syncl ablate --overview JSON ... or --curve JSON ... needs the picture to write, -o FILE.png, no CONFIG"
        )
    write_picture(Path(args.output), figure(overview(files)) if args.overview else curve_figure(curve(files)))
    print(f"{len(files)} comparisons -> {args.output}")
    return 0


def _evaluated(args: argparse.Namespace) -> int:
    """The runs of --evaluate on other scenes."""
    from pathlib import Path

    from syncl_core.errors import InputError
    from syncl_core.training.comparison import conduct
    from syncl_core.training.comparison.asked import asked_evaluation, asked_tuning, check_counts

    folder, trained = Path(args.output), Path(args.evaluate)
    if not args.output or folder.resolve() == trained.resolve() or args.config:
        raise InputError("syncl ablate --evaluate OUT needs another folder, -o NEW, and no CONFIG")
    if given := _given_for_training(args):
        raise InputError(f"{_switch(given[0])} is for training; --evaluate OUT takes the runs of OUT")
    check_counts(args)
    tuning = asked_tuning(args)
    return _told(
        folder, conduct.evaluate_again(folder, trained, asked_evaluation(args), tuning, args.device, args.jobs)
    )


def _given_for_training(args: argparse.Namespace) -> list[str]:
    return [name for name, default in args.for_training.items() if getattr(args, name) != default]


def _switch(name: str) -> str:
    return {"config": "CONFIG"}.get(name, f"--{name.replace('_', '-')}")


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
