"""What `syncl bench` says of the trackers it timed: the conditions, a table, every figure for a file."""

import dataclasses
from collections.abc import Sequence

import torch

from syncl_core.bench.measure import BenchOptions, BenchResult, quantile
from syncl_core.bench.table import format_table


def conditions(options: BenchOptions, results: Sequence[BenchResult], load: float) -> str:
    """In a line. load: that of the machine before."""
    width, height = options.image_size
    return (
        f"{results[0].device}, {results[0].threads} threads, load {load:.1f} before; torch {torch.__version__}, "
        f"eager {options.precision}; JPEGs of {width}x{height}, {options.warmup} + {options.frames} frames"
    )


def stage_table(results: Sequence[BenchResult], markdown: bool) -> str:
    """One column per tracker, one row per stage and figure."""

    def times(stage: str) -> list[str]:
        pairs = ([1e3 * quantile(r.seconds[stage], q) for q in (0.5, 0.99)] for r in results)
        return [f"{median:.1f} / {p99:.1f}" if p99 else "-" for median, p99 in pairs]

    def facts(name: str, figure) -> list[str]:
        return [name, *(figure(r) for r in results)]

    rows = [
        *([stage, *times(stage)] for stage in results[0].seconds),
        facts("peak memory, MB", lambda r: f"{r.peak_memory_bytes / 1e6:.0f}" if r.peak_memory_bytes else "?"),
        facts("parameters, M", lambda r: f"{r.footprint.parameters / 1e6:.1f}"),
        facts("GFLOP per frame", lambda r: f"{r.footprint.flops / 1e9:.1f}"),
        facts("image tokens", lambda r: str(r.footprint.image_tokens)),
        facts("state, MB", lambda r: f"{r.footprint.state_bytes / 1e6:.2f}"),
    ]
    return format_table(["ms, median / p99", *(r.name for r in results)], rows, markdown)


def figures(options: BenchOptions, results: Sequence[BenchResult], load: float) -> dict:
    """For a file."""
    trackers = [
        {
            "name": r.name,
            "device": r.device,
            "threads": r.threads,
            "peak_memory_bytes": r.peak_memory_bytes,
            **dataclasses.asdict(r.footprint),
            "seconds": {
                stage: {"median": quantile(values, 0.5), "p99": quantile(values, 0.99)}
                for stage, values in r.seconds.items()
            },
        }
        for r in results
    ]
    return {"torch": torch.__version__, "load": load, "options": dataclasses.asdict(options), "trackers": trackers}
