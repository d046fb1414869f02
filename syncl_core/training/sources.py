"""Where clips come from: the endless synthetic world, or a nuScenes root."""

import math
import sys
from pathlib import Path

import torch.distributed as dist

from syncl_core.config import SynclConfig
from syncl_core.data.clip_source import ClipSource
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.training.distributed import Workers

WORLD = "world"
_DEFAULT_SCENES = 700  # as many as nuScenes has for training


def training_source(data: str, version: str, split: str, config: SynclConfig, workers: Workers) -> ClipSource:
    """The scenes of a split of `data`, "world" or a nuScenes root: `train.scenes` of them from `train.first_scene` on.

    Without that number the world has as many scenes as the run has use for. Worker processes draw on the CPU; without
    them the run's own device draws. Raises InputError naming what is wrong or missing.
    """
    first, most = config.train.first_scene, config.train.scenes
    if data != WORLD:
        return NuScenesClips(data, config, split, version, first, most)
    from syncl_core.world.rig import camera_model
    from syncl_core.world.source import KEY_FRAMES, WorldSource
    from syncl_core.world.splits import SIZES

    image, train = config.image, config.train
    clips = train.iterations * train.batch_size * workers.size  # 0 = as many as in a pass over _DEFAULT_SCENES
    scenes = most or (math.ceil(clips / KEY_FRAMES) if clips else _DEFAULT_SCENES)
    rows = camera_model(config.rig.cameras[0], image.width).height
    return WorldSource(
        split=split,
        cameras=config.rig.cameras,
        image_width=image.width,
        image_height=min(rows, math.ceil(image.height / min(1.0, train.resize[0]))),
        num_scenes=min(scenes, SIZES.get(split, scenes) - first),
        first_scene=first,
        device="cpu" if train.workers else workers.device,
    )


def evaluation_clips(
    data: str, version: str, split: str, config: SynclConfig, folder: Path, workers: Workers
) -> NuScenesClips:
    """The scenes to evaluate on. Those of the world are first written as a nuScenes root: the metrics read tables."""
    if data != WORLD:
        return NuScenesClips(data, config, split, version)
    root = folder / f"world-{split}-{config.image.width}"
    if workers.leads and not root.exists():
        from syncl_core.world.writer import WorldConfig, write_world

        print(f"drawing the scenes to evaluate on, once -> {root}", file=sys.stderr)
        write_world(root, WorldConfig(split=split, image_width=config.image.width, sweeps=False), progress=True)
    if dist.is_initialized():
        dist.barrier()
    return NuScenesClips(root, config)
