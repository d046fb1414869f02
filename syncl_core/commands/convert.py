"""`syncl convert`: public weights as a checkpoint of this program."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  syncl convert f3_q5_800x320.pth -c config/petr_vov_320x800.yaml -o petr_vov_320x800.safetensors
  syncl convert petr.pth -c config/petr_vov_320x800_900queries.yaml -o petr.safetensors
  syncl convert petrv2.pth -c config/petrv2_vov_320x800_detector.yaml -o petrv2.safetensors
  syncl convert fcos3d_vovnet.pth -c config/petr_vov_320x800.yaml -o start.safetensors    a start for training

Reads PF-Track (one, three and five frames), PETR, PETRv2, MUTR3D, StreamPETR, and as a start for training V2-99 of DD3D
or FCOS3D and ResNet of torchvision. The configuration must describe the network. Its image mean, std and channel order
are what the weights will be used with: they cannot be read from the weights, nor can a ResNet's style. No weights come
with this program; those of PF-Track are CC BY-NC-SA 4.0, and a converted file is under the licence of its source.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="convert public weights (PF-Track, PETR, PETRv2, MUTR3D, StreamPETR, backbones)",
        description="Turn a public checkpoint into one safetensors file with its configuration. Nothing is guessed "
        "silently: a tensor that is neither used nor dropped by a rule is an error.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help=".pth or .safetensors file; no code in it is run")
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML of the network the weights are for")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="new .safetensors file")
    parser.add_argument(
        "--mmdet3d",
        choices=("0.17", "1.0"),
        default="",
        help="box convention the weights were trained with (default: that of the publication, 0.17)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from syncl_core.checkpoint import save_converted
    from syncl_core.config import load_config
    from syncl_core.convert import convert_file
    from syncl_core.errors import InputError
    from syncl_core.io.files import refuse_existing

    if args.output.suffix != ".safetensors":
        raise InputError(f"{args.output}: the output is a .safetensors file")
    if not args.overwrite:
        refuse_existing(args.output)
    config = load_config(args.config)
    converted = convert_file(args.checkpoint, config, args.mmdet3d)
    source = converted.source
    origin = {
        "file": args.checkpoint.name,
        "sha256": _sha256(args.checkpoint),
        "family": source.name,
        "licence": source.licence,
        "mmdet3d": converted.mmdet3d,
    }
    save_converted(args.output, converted, config, origin)
    print(f"{args.checkpoint}: {source.name}, {len(converted.tensors)} tensors -> {args.output}")
    for note in _notes(converted, config):
        print(f"note: {note}")
    return 0


def _notes(converted, config) -> list[str]:
    from syncl_core.errors import list_names

    image, source = config.image, converted.source
    notes = [f"licence of these weights: {source.licence}"]
    notes.append(f"images are used as {image.channel_order}, minus {list(image.mean)}, over {list(image.std)}")
    if converted.dropped:
        notes.append(f"left out: {list_names(converted.dropped)}")
    if source.classes and source.classes != config.classes:
        notes.append("class rows were put into the order of the configuration")
    if source.classes and converted.mmdet3d == "1.0":
        notes.append("box rows were turned from the convention of mmdetection3d 1.0 into ours")
    if converted.lacking:
        notes.append(f"not a tracker yet, only a start for training: it lacks {', '.join(converted.lacking)}")
    return notes


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
