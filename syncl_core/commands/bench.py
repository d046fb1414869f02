"""`syncl bench`: where time goes on this machine, without any data: in a frame, a step, the world, the node."""

import argparse

EXAMPLES = """examples:
  syncl bench                                               every configuration of the package, on the CPU
  syncl bench -c config/mutr3d_world_256x704.yaml --threads 1
  syncl bench --device cuda --precision bf16 --json out/bench.json
  syncl bench --markdown                                    the table for docs/performance.md
  syncl bench train -c config/petr_vov_320x800.yaml --set train.checkpoint_activations=true --threads 2
  syncl bench train -c config/ablation_cpu.yaml --ablation table4a/3        another row than SynCL's
  syncl bench world                                         the synthetic world, on the CPU and on a GPU if there is one
  syncl bench node                                          six 1600x900 JPEG cameras at 12 Hz into the ROS node
  syncl bench node --transport raw --seconds 60

Fake JPEGs take the whole way from bytes to objects in the fixed frame; nothing is compiled. Each configuration runs in
a process of its own. Large ones take many seconds a frame on a CPU: name those you want with -c. fp32 leaves torch's
defaults as they are, so convolutions on a GPU may use TF32. Stages on a GPU are timed by events in its stream. Below
100 frames p99 is the slowest one.

`train` compares a training step of a row of the paper's tables (`syncl train --list-ablations`) with one of the
baseline, in turn on the same clips of the synthetic world. Operations: those of PyTorch that compute something, forward
and backward; on a GPU each is about one kernel, and a small network waits for their launches.

`world` draws key frames of six images, 32 of four scenes, one at a time and 8 at once, and asks for their ground truth;
--size is that of the images drawn.

`node` needs ROS 2. The node runs a network that costs nothing: what is measured is receiving, joining, decoding,
scaling and publishing, between processes.
"""

MAX_THREADS = 1024
IMAGE_SIZE = (1600, 900)  # of the fake JPEGs
_NOT_FOR = {  # switches that would change nothing
    "trackers": ("ablation", "set", "transport", "rate", "seconds"),
    "train": ("transport", "rate", "seconds"),
    "world": ("config", "precision", "ablation", "set", "transport", "rate", "seconds"),
    "node": ("config", "precision", "threads", "frames", "warmup", "json", "markdown", "ablation", "set"),
}


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="time every stage of the trackers on this machine",
        description="Time every stage of untrained trackers on fake images, or something else on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("trackers", "train", "world", "node"),
        default="trackers",
        help="default: trackers; train: a training step with and without SynCL; world: drawing; node: the ROS node",
    )
    parser.add_argument("-c", "--config", action="append", default=[], help="YAML or name of a tracker (repeatable)")
    parser.add_argument(
        "--device", default="", help="cpu, cuda or cuda:N (default: a GPU if there is one; for world both)"
    )
    parser.add_argument("--precision", help="fp32 (default), or bf16 by autocast; of trackers only")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads on the CPU (default: its own choice)")
    parser.add_argument(
        "--frames",
        type=int,
        help="frames to measure (default: 10; 200 on a GPU; world: 32); train: pairs of steps (12)",
    )
    parser.add_argument("--warmup", type=int, help="frames before them (default: 2; 20 on a GPU; train: 2; world: 8)")
    parser.add_argument(
        "--size", type=_size, metavar="WxH", help="of the JPEGs, default 1600x900; world: of the images (default: four)"
    )
    parser.add_argument("--json", default="", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    train = parser.add_argument_group("bench train")
    train.add_argument("--ablation", metavar="ROW", help="what to compare (default: table4a/5)")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    node = parser.add_argument_group("bench node")
    node.add_argument("--transport", choices=("compressed", "raw"), help="default: compressed")
    node.add_argument("--rate", type=float, help="images per second and camera (default: 12)")
    node.add_argument("--seconds", type=float, help="how long to measure (default: 20)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from syncl_core.errors import InputError
    from syncl_core.io.files import check_writable

    if vain := [name for name in _NOT_FOR[args.what] if getattr(args, name)]:
        raise InputError(f"bench {args.what}: --{vain[0]} is not for this measurement; leave it out")
    if args.json:
        check_writable(args.json)
    benches = {"trackers": _bench_trackers, "train": _bench_training, "world": _bench_world, "node": _bench_node}
    return benches[args.what](args)


def _bench_training(args: argparse.Namespace) -> int:
    import json

    import torch

    from syncl_core.bench.table import format_table
    from syncl_core.bench.training import measure_steps
    from syncl_core.config import load_config
    from syncl_core.errors import InputError
    from syncl_core.io.files import write_text
    from syncl_core.settings import with_settings
    from syncl_core.training.ablations import baseline_of

    if len(args.config) != 1:
        raise InputError("bench train: name one tracker with -c")
    for name, key in {"precision": "train.precision=bf16", "size": "image.width=448"}.items():
        if getattr(args, name) is not None:
            raise InputError(f"bench train: --{name} is not for training steps; change the configuration: --set {key}")
    _check_counts(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = with_settings(load_config(args.config[0]), args.set)
    if config.model.framework == "none":
        raise InputError(f"{args.config[0]}: model.framework: none has no tracks to train; give a tracker")
    given, row = {"warmup": args.warmup, "pairs": args.frames}, args.ablation or "table4a/5"
    times = measure_steps(config, row, args.device, **{k: v for k, v in given.items() if v is not None})
    print(f"{config.name} on {times['device']}, {torch.get_num_threads()} threads: a step of the optimiser", end="\n\n")
    ratio = f"{times['step_ratio']:.3f} +- {times['step_ratio_spread']:.3f}"
    rows = [
        [name, f"{times[f'{kind}step_seconds']:.3f}", against, str(times[f"{kind}step_operations"])]
        for name, kind, against in ((baseline_of(row), "baseline_", "1"), (row, "", ratio))
    ]
    print(format_table(["row", "s, median", "ratio", "operations"], rows, args.markdown))
    if args.json:
        write_text(args.json, json.dumps({"tracker": config.name, "row": row} | times, indent=2) + "\n")
    return 0


def _bench_world(args: argparse.Namespace) -> int:
    import json
    import os

    import torch

    from syncl_core.bench.measure import device_name
    from syncl_core.bench.world import SIZES, measure_world, world_figures, world_table
    from syncl_core.devices import check_device, default_device
    from syncl_core.io.files import write_text
    from syncl_core.progress_bar import progress_bar

    _check_counts(args)
    devices = [args.device] if args.device else sorted({"cpu", default_device()})
    for device in devices:
        check_device(device)
    if args.threads:
        torch.set_num_threads(args.threads)
    frames, warmup = (32 if args.frames is None else args.frames, 8 if args.warmup is None else args.warmup)
    cases = [(size, device) for device in devices for size in ([args.size] if args.size else SIZES)]
    load = os.getloadavg()[0]
    results = [measure_world(*case, frames, warmup) for case in progress_bar(cases, desc="bench world", unit="size")]
    names = ", ".join(device_name(torch.device(device)) for device in devices)
    facts = {"devices": names, "threads": torch.get_num_threads(), "load": load, "torch": torch.__version__}
    print(f"{names}, {facts['threads']} threads, load {load:.1f} before; torch {torch.__version__}", end="\n\n")
    print(world_table(results, args.markdown))
    if args.json:
        write_text(args.json, json.dumps(facts | {"world": [world_figures(r) for r in results]}, indent=2) + "\n")
    return 0


def _check_counts(args: argparse.Namespace) -> None:
    from syncl_core.errors import InputError

    if not 0 <= args.threads <= MAX_THREADS:
        raise InputError(f"--threads {args.threads}: expected 0 to {MAX_THREADS}")
    for name, least in (("frames", 1), ("warmup", 0)):
        if (count := getattr(args, name)) is not None and count < least:
            raise InputError(f"--{name} {count}: expected {least} or more")


def _bench_node(args: argparse.Namespace) -> int:
    """A process of its own: nothing here knows ROS."""
    import importlib.util
    import subprocess
    import sys

    from syncl_core.errors import InputError

    for package in ("rclpy", "syncl_ros"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"bench node: {package} is not found; source a ROS 2, or run `make setup`")
    width, height = args.size or IMAGE_SIZE
    given = {"seconds": args.seconds, "rate": args.rate, "size": f"{width}x{height}", "transport": args.transport}
    flags = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
    return subprocess.call([sys.executable, "-m", "syncl_ros.bench_node", *flags])


def _bench_trackers(args: argparse.Namespace) -> int:
    import json
    import os

    from syncl_core.bench.measure import BenchOptions, measure_apart
    from syncl_core.bench.report import conditions, figures, stage_table
    from syncl_core.config import load_config
    from syncl_core.devices import default_device
    from syncl_core.io.files import write_text
    from syncl_core.progress_bar import progress_bar
    from syncl_core.shipped import shipped_configs

    _check_counts(args)
    device = args.device or default_device()
    frames, warmup = (200, 20) if device.startswith("cuda") else (10, 2)
    options = BenchOptions(
        device=device,
        precision=args.precision or "fp32",
        threads=args.threads,
        frames=frames if args.frames is None else args.frames,
        warmup=warmup if args.warmup is None else args.warmup,
        image_size=args.size or IMAGE_SIZE,
    )
    configs = args.config or shipped_configs()
    for config in configs:
        load_config(config)  # a bad one must not come up after minutes
    load = os.getloadavg()[0]
    results = [measure_apart(config, options) for config in progress_bar(configs, desc="bench", unit="tracker")]
    print(conditions(options, results, load), end="\n\n")
    print(stage_table(results, args.markdown))
    if args.json:
        write_text(args.json, json.dumps(figures(options, results, load), indent=2) + "\n")
    return 0


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1600x900, got {text!r}") from None
    return width, height
