"""The tables of a nuScenes root on disk: which versions, scenes and splits there are, and the devkit opened on them."""

import json
from collections.abc import Sequence
from pathlib import Path

from syncl_core.data.schema import check_records
from syncl_core.errors import InputError, one_line

TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
"""Every table nuscenes-devkit needs in `<root>/<version>/`."""


def find_version(root: str | Path, version: str = "") -> str:
    """The version folder to use: `version`, or the only one there is. Raises InputError where it lacks a table."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a nuScenes root, which has v1.0-*/, samples/ and maps/")
    found = sorted(path.parent.name for path in root.glob("*/sample_data.json"))
    if not version and len(found) > 1:
        raise InputError(f"{root}: has several versions, choose one with --version: {', '.join(found)}")
    if not version and not found:
        raise InputError(f"{root}: not a nuScenes root: no folder in it has a sample_data.json")
    version = version or found[0]
    if not (root / version).is_dir():
        raise InputError(f"{root}: no version {version!r}; versions here: {', '.join(found) or 'none'}")
    missing = [name for name in TABLES if not (root / version / f"{name}.json").is_file()]
    if missing:
        raise InputError(f"{root / version}: incomplete: lacks {', '.join(f'{name}.json' for name in missing)}")
    return version


def read_table(root: str | Path, version: str, name: str) -> list[dict]:
    """The records of one table. Raises InputError naming the file."""
    path = Path(root) / version / f"{name}.json"
    records = _read_json(path)
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a list of records")
    check_records(path, name, records)
    return records


def read_splits(root: str | Path, version: str) -> dict[str, tuple[str, ...]]:
    """Scene names of every split: those of nuScenes, and the root's own from `<version>/splits.json`.

    Scenes are as listed; a mini root has few of those of "val". Raises InputError naming the file.
    """
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError as error:
        raise InputError(f"reading nuScenes needs nuscenes-devkit: {error}") from None
    splits = {}
    path = Path(root) / version / "splits.json"
    if path.is_file():
        splits = _read_json(path)
        if not isinstance(splits, dict) or not all(_is_name_list(names) for names in splits.values()):
            raise InputError(f"{path}: expected lists of scene names by split name")
    # Like the devkit: a custom split cannot change a predefined one.
    return {name: tuple(scenes) for name, scenes in {**splits, **create_splits_scenes()}.items()}


def scenes_of_split(root: str | Path, version: str, split: str, present: Sequence[str]) -> tuple[str, ...]:
    """The scenes of `split` among those `present` in the root. Raises InputError where there are none."""
    splits = read_splits(root, version)
    usable = [name for name, scenes in splits.items() if set(scenes) & set(present)]
    if split not in usable:
        reason = "has no scene here" if split in splits else "is unknown"
        raise InputError(f"{root}: split {split!r} {reason}; splits with scenes here: {', '.join(usable) or 'none'}")
    return tuple(name for name in present if name in set(splits[split]))


def open_devkit(root: str | Path, version: str):
    """nuscenes-devkit's `NuScenes` on these tables, silent. Raises InputError with the reason in one line."""
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise InputError(f"reading nuScenes needs nuscenes-devkit: {error}") from None
    try:
        nusc = NuScenes(version=version, dataroot=str(root), verbose=False)
    except (AssertionError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        for name in TABLES:
            read_table(root, version, name)  # an unreadable table has a better message than the devkit's
        raise InputError(f"{Path(root) / version}: nuscenes-devkit cannot load it: {describe(error)}") from None
    for name in TABLES:
        check_records(Path(root) / version / f"{name}.json", name, getattr(nusc, name))
    return nusc


def some(names: Sequence[str], limit: int = 10) -> str:
    """Names for an error message, not all 850 of them."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") or "none"


def describe(error: Exception) -> str:
    """An exception as one line that means something without its traceback."""
    return f"{type(error).__name__}: {one_line(error)}"


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def _is_name_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
