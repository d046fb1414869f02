"""The comparison that the arguments of `syncl ablate` ask for."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from syncl_core.checkpoint import save_checkpoint, start_from
from syncl_core.config import SynclConfig, load_config, with_values
from syncl_core.errors import InputError
from syncl_core.io.submission import check_submittable
from syncl_core.settings import with_settings
from syncl_core.tracking.build import build_tracker
from syncl_core.train_config import THRESHOLDS
from syncl_core.training.comparison.study import Place, Study, Tuning, choose_rows, detector_run, file_digest


def asked_study(args: argparse.Namespace) -> Study:
    """What is to be trained and compared. Raises InputError naming the switch."""
    check_counts(args)
    # Scenes drawn for the comparison are all used, whatever CONFIG says of a training by itself.
    drawn = {"train": {"first_scene": 0, "scenes": 0}} if args.train_scenes else {}
    config = with_values(with_settings(load_config(args.config), args.set), drawn)
    _check_tracker(args.config, config)
    is_detector = args.init.endswith((".yaml", ".yml"))
    study = Study(
        config=config,
        rows=choose_rows(args.tables),
        seeds=tuple(range(config.train.seed, config.train.seed + args.seeds)),
        training=Place(data=args.data, version=args.version, split=args.split, scenes=args.train_scenes),
        evaluation=asked_evaluation(args),
        tuning=asked_tuning(args),
        start="" if is_detector else args.init,
        start_digest=file_digest(args.init) if args.init and not is_detector else "",
        detector=with_values(load_config(args.init), drawn) if is_detector else None,
    )
    one_stage = [row.startswith("table8/") for row in study.rows]
    if args.init and any(one_stage):
        raise InputError("--tables 8: these rows are trained in one stage, from nothing; leave out --init")
    if any(one_stage) and not all(one_stage):
        raise InputError("--tables 8: these rows train for longer than others; compare them by themselves")
    if args.init:
        _check_start(args.init, study)
    return replace(study, start_digest=detector_run(study).digest) if is_detector else study


def asked_evaluation(args: argparse.Namespace) -> Place:
    """The scenes to evaluate on."""
    return Place(data=args.eval_data, version=args.version, split=args.eval_split, scenes=args.eval_scenes)


def asked_tuning(args: argparse.Namespace) -> Tuning | None:
    """How every run gets a threshold of its own; None without --tune-data. Raises InputError naming the switch."""
    if not args.tune_data:
        given = {"--tune-split": args.tune_split, "--tune-scenes": args.tune_scenes, "--thresholds": args.thresholds}
        if vain := [switch for switch, value in given.items() if value]:
            raise InputError(f"{vain[0]}: thresholds are only chosen on scenes of their own; give --tune-data, too")
        return None
    thresholds = args.thresholds or THRESHOLDS
    if wrong := [value for value in thresholds if not 0 < value <= 1]:
        raise InputError(f"--thresholds {wrong[0]:g}: expected values above 0, at most 1")
    split = args.tune_split or ("val" if args.tune_data == "world" else "")
    place = Place(data=args.tune_data, version=args.version, split=split, scenes=args.tune_scenes)
    return Tuning(place=place, thresholds=tuple(dict.fromkeys(thresholds)))


def check_counts(args: argparse.Namespace) -> None:
    """Raises InputError naming the switch."""
    for name, least in {"seeds": 1, "jobs": 1, "train_scenes": 0, "eval_scenes": 0, "tune_scenes": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')}: expected {least} or more, got {getattr(args, name)}")
    drawn = {"train-scenes": args.data, "eval-scenes": args.eval_data, "tune-scenes": args.tune_data}
    for name, data in drawn.items():
        if getattr(args, name.replace("-", "_")) and data not in ("", "world"):
            raise InputError(f"--{name}: only the world is drawn; leave it out for {data}")


def _check_tracker(file: str, config: SynclConfig) -> None:
    """Raises InputError naming the key."""
    if config.model.framework == "none":
        raise InputError(f"{file}: model.framework: none has no tracks to compare; give a tracker")
    if config.train.clip_length < 2:
        raise InputError(f"{file}: train.clip_length: a clip of one frame has no tracks to teach; give a tracker")
    check_submittable(config)  # all runs are evaluated


def _check_start(init: str, study: Study) -> None:
    """Raises InputError naming what of `init` does not fit: before scenes are drawn and a detector is trained."""
    with tempfile.TemporaryDirectory() as folder:
        weights = study.start
        if study.detector is not None:
            weights = Path(folder, "detector.safetensors")
            save_checkpoint(weights, build_tracker(study.detector))
        try:
            start_from(weights, build_tracker(study.config))
        except InputError as error:
            raise InputError(f"--init {init}: {str(error).removeprefix(f'{weights}: ')}") from None
