"""How much faster the tracker is than its slow twin, in one run: python test/core/compare_speed.py config/X.yaml ...

Both see the same two frames with the same weights; the second one is timed. Prints a Markdown table.
"""

import sys
import time
from pathlib import Path

import torch
from slow_backbones import vovnet99
from slow_pftrack import SlowPFTrack
from tiny_tracker import pose, rig, shake

from syncl_core.config import SynclConfig, load_config
from syncl_core.tensors import Frame
from syncl_core.tracking.build import build_tracker


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
def compare(path: str) -> tuple[float, float]:
    """Seconds of a step: ours, the twin's."""
    tracker = shake(build_tracker(load_config(path)), 0)
    twin, state, seconds = (
        SlowPFTrack(tracker.config, tracker.state_dict(), _backbone(tracker)),
        tracker.init_state(),
        [],
    )
    for i in range(2):
        frame = _frame(tracker.config, i)
        begin = time.perf_counter()
        state, _ = tracker.step(state, frame)
        middle = time.perf_counter()
        where = (frame.image_from_model[0], frame.camera_valid[0], frame.global_from_model[0])
        twin.step(frame.images[0], *where, int(frame.t_ns))
        seconds.append((middle - begin, time.perf_counter() - middle))
    return seconds[-1]


if __name__ == "__main__":
    print("| tracker | step, s | slow twin, s | ratio |\n|---|---:|---:|---:|")
    for path in sys.argv[1:]:
        ours, twins = compare(path)
        print(f"| {Path(path).stem} | {ours:.2f} | {twins:.1f} | {twins / ours:.0f} |", flush=True)
