"""`syncl track`: a rosbag or a nuScenes root to tracks, without ROS."""

import argparse

EXAMPLES = """examples:
  syncl track out/scene -o out/tracks                         a rosbag2 folder or .mcap file
  syncl track /data/sets/nuscenes --scene scene-0103 -o out/tracks
  syncl track /data/sets/nuscenes --split mini_val --checkpoint model.safetensors -o out/tracks
  syncl track out/scene -c config/petr_small_320x800.yaml --checkpoint model.safetensors -o out/tracks

OUT/tracks.json is a nuScenes tracking submission (only where key frames are known), OUT/<scene> a rosbag2 with
/tracker/tracks and /tracker/markers. In tracks.json, boxes of a key frame between two processed sets are interpolated.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "track",
        help="track a rosbag or a nuScenes root without ROS",
        description="Track every frame set of a recording; nothing is dropped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="rosbag2 (folder, .mcap or .db3) or nuScenes root")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("-c", "--config", default="", help="YAML or name of the tracker (default: the checkpoint's)")
    parser.add_argument(
        "--checkpoint",
        default="",
        help="weights (.safetensors); without: untrained; without --config, too: our own, of the synthetic world",
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--split", default="", help="nuScenes split, or one of the root's own splits.json")
    scope.add_argument("--scene", action="append", default=[], metavar="NAME", help="only this scene (repeatable)")
    parser.add_argument("--version", default="", help="version folder of a nuScenes root that has several")
    parser.add_argument("--device", default="", help="torch device (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of untrained weights (default: 0)")
    parser.add_argument(
        "--dump-heads",
        default="",
        metavar="FILE.npz",
        help="also write what the heads said: logits and boxes per layer, features, tracks, one row per set",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import functools
    from pathlib import Path

    from syncl_core.checkpoint import load_tracker
    from syncl_core.devices import default_device
    from syncl_core.head_dump import HeadDump
    from syncl_core.io.files import check_writable, make_folder, refuse_existing
    from syncl_core.io.key_frames import fill_samples, reach
    from syncl_core.io.submission import tracking_submission, write_submission
    from syncl_core.io.track_bag import write_track_bag
    from syncl_core.offline import is_bag

    output, args.device = Path(args.output), args.device or default_device()
    tracker = load_tracker(args.config, args.checkpoint, args.seed, args.device)
    if args.config and not args.checkpoint:
        _print_note("no --checkpoint: the weights are untrained, the boxes mean nothing")
    elif not args.checkpoint:
        _print_note(f"{tracker.config.name}: weights trained on the synthetic world alone")
    recordings = _recordings(args, tracker.config)
    targets = [output / name for name, _, _ in recordings]
    _check_targets(args, output, targets)
    if any(samples for _, samples, _ in recordings):
        _check_submission(output, tracker.config)
    if not args.overwrite:
        refuse_existing(output / "tracks.json", *targets, *filter(None, [args.dump_heads]))
    make_folder(output)
    if args.dump_heads:
        check_writable(args.dump_heads)
    dump = HeadDump(tracker) if args.dump_heads else None
    results = {}
    try:
        for (name, samples, frame_sets), target in zip(recordings, targets, strict=True):
            step = functools.partial(dump.step, name) if dump else tracker.step
            objects = _track(step, tracker, frame_sets, name, args)
            write_track_bag(target, objects, overwrite=args.overwrite)
            # The sets of a root are its key frames: one without a set has no images that can be used.
            found = fill_samples(objects, samples, reach(tracker.config.sync) if is_bag(args.source) else 0.0)
            results |= found.objects
            print(f"{name}: {len(objects)} sets, {len({i for o in objects for i in o.ids})} tracks -> {target}")
            for note in found.notes(name):
                _print_note(note)
    finally:  # whoever interrupts keeps the scenes that are done
        if results:
            write_submission(output / "tracks.json", tracking_submission(results))
            print(f"{len(results)} key frames -> {output / 'tracks.json'}")
    if dump:
        dump.save(args.dump_heads)
        print(f"heads of {dump.num_frames} sets -> {args.dump_heads}")
    return 0


def _check_targets(args: argparse.Namespace, output, targets: list) -> None:
    """Before the work: results must not replace their own input or each other."""
    from pathlib import Path

    from syncl_core import offline
    from syncl_core.errors import InputError
    from syncl_core.io.bag_writer import check_target

    source = Path(args.source).resolve()
    for target in targets:
        if target.resolve() == source or (offline.is_bag(source) and source in target.resolve().parents):
            raise InputError(f"{target}: is the recording itself; choose another OUT")
        if args.overwrite:
            check_target(target, overwrite=True)
        if target == output / "tracks.json":
            raise InputError(f"{target}: the recording is called as the result file; choose another name for it")
    if args.dump_heads and not str(args.dump_heads).endswith(".npz"):
        raise InputError(f"--dump-heads {args.dump_heads}: expected a name that ends with .npz")


def _check_submission(output, config) -> None:
    """Before the work: whether tracks.json can be written at all."""
    from syncl_core.errors import InputError
    from syncl_core.io.submission import check_submittable

    check_submittable(config)
    if (output / "tracks.json").is_dir():
        raise InputError(f"{output / 'tracks.json'}: is a folder; choose another OUT")


def _recordings(args: argparse.Namespace, config) -> list[tuple]:
    """(name, key frames, frame sets) of each recording of the source."""
    from syncl_core import offline
    from syncl_core.data.nuscenes import NuScenesScenes
    from syncl_core.errors import InputError

    if not offline.is_bag(args.source):
        data = NuScenesScenes(args.source, args.version)
        split = data.split(args.split) if args.split else ()
        scenes = offline.chosen_scenes(data, args.scene, split, config, _print_note)
        return [(name, data.samples(name), offline.scene_frame_sets(data, name, config)) for name in scenes]
    if args.scene or args.split:
        option = "--scene" if args.scene else "--split"
        raise InputError(f"{args.source}: a bag is one recording; {option} is for nuScenes roots")
    if args.version:
        raise InputError(f"{args.source}: a bag has no versions; --version is for nuScenes roots")
    samples = [sample for scene in offline.bag_samples(args.source).values() for sample in scene]
    frame_sets = offline.bag_frame_sets(args.source, config, on_problems=lambda p: _print_problems(args.source, p))
    return [(offline.bag_name(args.source), samples, frame_sets)]


def _track(step, tracker, frame_sets, name: str, args: argparse.Namespace) -> list:
    """The objects of every set, under a progress bar."""
    import contextlib

    from syncl_core import offline
    from syncl_core.progress_bar import progress_bar
    from syncl_core.runtime.session import TrackerSession

    session, objects = TrackerSession(step, tracker.init_state, tracker.config, args.device), []
    source = str(args.source) if offline.is_bag(args.source) else f"{args.source}: {name}"
    with contextlib.closing(session), progress_bar(desc=name, unit="set") as bar:
        for one in offline.track(session.process, frame_sets, source):
            objects.append(one)
            bar.update()
    _print_problems(source, session.problems())
    return objects


def _print_problems(source: str, problems: dict) -> None:
    for reason, problem in problems.items():
        _print_note(f"{source}: {reason} ({problem.count} times), last: {problem.message}")


def _print_note(text: str) -> None:
    import sys

    print(f"note: {text}", file=sys.stderr)
