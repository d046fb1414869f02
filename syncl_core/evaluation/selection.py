"""Any selection of scenes for nuscenes-devkit, which evaluates whole splits only, and of classes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.data import tables
from syncl_core.errors import InputError

SPLIT = "selected"
"""The name of the split that `link_root` makes."""


def check_classes(classes: Sequence[str]) -> None:
    """Raises InputError unless nuScenes tracks them all, and there is one."""
    if not classes or (unknown := [label for label in classes if label not in TRACKING_CLASSES]):
        named = ", ".join(unknown) if classes else "none"
        raise InputError(f"classes: expected some of {', '.join(TRACKING_CLASSES)}, got {named}")


def select_scenes(
    root: Path, version: str, split_or_scenes: str | Sequence[str], submitted: Iterable[str]
) -> tuple[str, ...]:
    """Scenes of a split (its name) or a sequence of scene names; "" = those with a key frame in `submitted`."""
    records = tables.read_table(root, version, "scene")
    present = tuple(record["name"] for record in records)
    if isinstance(split_or_scenes, str) and split_or_scenes:
        return tables.scenes_of_split(root, version, split_or_scenes, present)
    if split_or_scenes:
        unknown = [name for name in split_or_scenes if name not in present]
        if unknown:
            raise InputError(f"{root}: no scene {unknown[0]!r} in {version}; scenes here: {tables.some(present)}")
        return tuple(dict.fromkeys(split_or_scenes))
    samples, submitted = tables.read_table(root, version, "sample"), set(submitted)
    covered = {sample["scene_token"] for sample in samples if sample["token"] in submitted}
    if not covered:
        raise InputError(f"{root}: the submission has no key frame of {version}; is it from another data set?")
    return tuple(record["name"] for record in records if record["token"] in covered)


def samples_of(root: Path, version: str, scenes: Sequence[str]) -> list[str]:
    """The tokens of the scenes' key frames."""
    tokens = {scene["token"] for scene in tables.read_table(root, version, "scene") if scene["name"] in scenes}
    return [s["token"] for s in tables.read_table(root, version, "sample") if s["scene_token"] in tokens]


def link_root(root: Path, version: str, scenes: Sequence[str], folder: Path) -> Path:
    """A nuScenes root of links with a split of our own: the devkit takes selections from `splits.json` only."""
    linked = folder / "root"
    (linked / version).mkdir(parents=True)
    (linked / "maps").symlink_to(root.resolve() / "maps")
    for name in tables.TABLES:
        (linked / version / f"{name}.json").symlink_to(root.resolve() / version / f"{name}.json")
    (linked / version / "splits.json").write_text(json.dumps({SPLIT: list(scenes)}))
    return linked


def cannot_evaluate(error: Exception, root: str | Path, linked_root: Path, version: str) -> InputError:
    """Why the devkit refuses to evaluate, in words of the user's root."""
    reason = tables.describe(error).replace(str(linked_root), str(root))
    if "Invalid box type: None" in reason:  # no box to tell detection from tracking by
        reason = "no ground truth of any tracking class in these scenes"
    return InputError(f"{root}: nuscenes-devkit cannot evaluate {version}: {reason}")
