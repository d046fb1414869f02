"""`syncl models`: how big the trackers are."""

import argparse

EXAMPLES = """examples:
  syncl models                                        every configuration of the package
  syncl models -c config/mutr3d_world_256x704.yaml    or only its name, here and wherever a configuration is given
  syncl models --markdown                             the table for docs/performance.md

Nothing is run: shapes are enough. GFLOP is of one frame with all cameras, a multiply-add counts as two; convolutions,
matrix products and attention are counted. The state is the memory of one scene between two frames.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "models",
        help="list the trackers and how big they are",
        description="List tracker configurations: parameters, GFLOP per frame, image tokens, size of the state.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", action="append", default=[], help="YAML or name of a tracker (repeatable)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from syncl_core.bench.footprint import footprint
    from syncl_core.bench.table import format_table
    from syncl_core.config import load_config
    from syncl_core.progress_bar import progress_bar
    from syncl_core.shipped import shipped_configs

    rows = []
    for path in progress_bar(args.config or shipped_configs(), desc="models", unit="tracker", leave=False):
        config = load_config(path)
        size = footprint(config)
        rows.append(
            [
                Path(path).stem,
                config.model.backbone,
                f"{size.parameters / 1e6:.2f}",
                f"{size.flops / 1e9:.1f}",
                str(size.image_tokens),
                f"{size.state_bytes / 1e6:.2f}",
            ]
        )
    header = ["tracker", "backbone", "parameters, M", "GFLOP per frame", "image tokens", "state, MB"]
    print(format_table(header, rows, args.markdown))
    return 0
