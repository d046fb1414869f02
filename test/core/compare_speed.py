"""How much faster a tracker is than its slow twin, in one run. Prints a Markdown table.

    python test/core/compare_speed.py config/petr_vov_320x800.yaml config/mutr3d_r50_900x1600.yaml --image 64x192

Both see the same two frames with the same weights; the second frame is timed. The twins of the backbones are used where
there is one (V2-99); otherwise both sides share ours.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from slow_backbones import vovnet99
from slow_mutr3d import SlowMUTR3D
from slow_petrv2 import SlowPETRv2
from slow_pftrack import SlowPFTrack
from slow_stream import SlowStream
from tiny_tracker import pose, rig, shake

from syncl_core.config import SynclConfig, load_config
from syncl_core.tensors import Frame
from syncl_core.tracking.build import build_tracker

TWINS = {"petr": SlowPFTrack, "petrv2": SlowPETRv2, "detr3d": SlowMUTR3D, "stream_petr": SlowStream}


def _frame(config: SynclConfig, i: int) -> Frame:
    size = (config.image.height, config.image.width)
    cameras = rig()
    return Frame(
        images=torch.randint(0, 256, (1, 6, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)),
        image_from_model=torch.cat([cameras, cameras @ pose(yaw=0.4)])[None],
        camera_valid=torch.ones(1, 6, dtype=torch.bool),
        global_from_model=pose(3.0 * i)[None],
        t_ns=torch.tensor([i * 500_000_000]),
    )


def _backbone(tracker):
    if tracker.config.model.backbone != "v2_99":
        return tracker.img_backbone
    weights = {name: value.double() for name, value in tracker.img_backbone.state_dict().items()}
    return lambda images: vovnet99(images.double(), weights)


@torch.inference_mode()
def compare(config: SynclConfig) -> tuple[float, float]:
    """Seconds of a step: ours, the twin's."""
    tracker = shake(build_tracker(config), 0)
    twin = TWINS[config.model.detector](config, tracker.state_dict(), _backbone(tracker))
    state, seconds = tracker.init_state(), []
    for i in range(2):
        frame = _frame(config, i)
        begin = time.perf_counter()
        state, _ = tracker.step(state, frame)
        middle = time.perf_counter()
        where = (frame.image_from_model[0], frame.camera_valid[0], frame.global_from_model[0])
        twin.step(frame.images[0], *where, int(frame.t_ns))
        seconds.append((middle - begin, time.perf_counter() - middle))
    return seconds[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="+", help="YAML of a tracker")
    parser.add_argument("--image", default="", metavar="HxW", help="size of the network's image (default: its own)")
    args = parser.parse_args()
    print("| tracker | step, s | slow twin, s | ratio |\n|---|---:|---:|---:|")
    for path in args.config:
        config = load_config(path)
        if args.image:
            height, width = map(int, args.image.split("x"))
            config = dataclasses.replace(config, image=dataclasses.replace(config.image, height=height, width=width))
        ours, twins = compare(config)
        print(f"| {Path(path).stem} | {ours:.2f} | {twins:.1f} | {twins / ours:.0f} |", flush=True)


if __name__ == "__main__":
    main()
