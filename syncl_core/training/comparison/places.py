"""Where the scenes of a comparison are; those of the world are drawn once, for all of its runs."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.errors import InputError, list_names
from syncl_core.training.comparison.study import Place, Study, Tuning
from syncl_core.training.sources import WORLD

_TRAINING_SECONDS, _EVALUATION_SECONDS = 20.0, 10.0  # of a scene of the world


def draw(folder: Path, study: Study) -> tuple[Place, Place]:
    """Where scenes are to be found, once those of the world that are used many times are drawn."""
    training = study.training
    if training.scenes:
        training = drawn(folder, training, study, _TRAINING_SECONDS)
    return training, drawn(folder, study.evaluation, study)


def drawn(folder: Path, place: Place, study: Study, seconds: float = _EVALUATION_SECONDS) -> Place:
    """Where the scenes of a place are to be found, those of the world after drawing them."""
    from syncl_core.world.writer import WorldConfig, write_world

    if place.data != WORLD:
        return place
    count, width = f"-{place.scenes}" if place.scenes else "", study.config.image.width
    root = folder / f"world-{place.split}{count}-{width}"
    if not root.exists():
        print(f"drawing scenes of the world, once -> {root}", file=sys.stderr)
        config = WorldConfig(
            split=place.split, scenes=place.scenes or None, seconds=seconds, image_width=width, sweeps=False
        )
        write_world(root, config, progress=True)
    return Place(data=str(root))


def drawn_tuning(folder: Path, study: Study, evaluated: Sequence[str]) -> Tuning | None:
    """How thresholds are chosen, once its scenes are drawn. Raises InputError for one of `evaluated`."""
    if study.tuning is None:
        return None
    place = drawn(folder, study.tuning.place, study)
    if both := set(scenes_of(study, place)) & set(evaluated):
        raise InputError(f"--tune-data: {min(both)} is a scene to evaluate on, too; choose thresholds on others")
    return replace(study.tuning, place=place)


def say_shared(study: Study, training: Place, evaluated: Sequence[str]) -> None:
    """A note where scenes to train on are evaluated on, which says nothing of others."""
    if training.data != WORLD and (both := set(scenes_of(study, training)) & set(evaluated)):
        shared = f"scenes to evaluate on are trained on, too: {list_names(both, 1)}"
        print(f"note: {shared}; the figures flatter the trackers", file=sys.stderr)


def scenes_of(study: Study, place: Place) -> tuple[str, ...]:
    """Raises InputError now, not after the first training, if there is nothing to evaluate on."""
    return NuScenesClips(place.data, study.config, place.split, place.version).scene_names
