"""Which scenes there are: every scene is a number, its seed, and has a name. Splits are ranges of numbers.

    world-0007            one of the FREE scenes, for whoever wants some
    world-val-03          scene 3 of a fixed list for validation; likewise world-test-03
    world-train-000042    scene 42 of a list for training that is longer than any training

Ranges do not meet, so no scene of one split is in another. What a scene holds follows from its seed and from the code
of `generate`; whoever changes that changes all scenes, and test_world_splits.py notices.
"""

from syncl_core.errors import InputError

FREE, VAL, TEST, TRAIN = 0, 900_000, 950_000, 1_000_000  # first seeds
SIZES = {"train": 4_000_000, "val": 20, "test": 30}
_FIRST = {"train": TRAIN, "val": VAL, "test": TEST}
_DIGITS = {"train": 6, "val": 2, "test": 2}


def check(split: str, scenes: int | None = None, first: int = 0) -> int:
    """The number of scenes asked for (None: all from `first` on). Raises InputError naming what is wrong."""
    if split not in SIZES:
        raise InputError(f"world: no split {split!r}; choose one of {', '.join(SIZES)}")
    if not 0 <= first < SIZES[split]:
        raise InputError(f"world: split {split} has the scenes 0 to {SIZES[split] - 1}, got first scene = {first}")
    count = SIZES[split] - first if scenes is None else scenes
    if not 1 <= count <= SIZES[split] - first:
        beyond = f" from scene {first} on" if first else ""
        raise InputError(f"world: split {split} has 1 to {SIZES[split] - first} scenes{beyond}, got scenes = {count}")
    return count


def seeds(split: str, scenes: int | None = None, first: int = 0) -> range:
    """The seeds of a split, or `scenes` of them from number `first` on. Raises InputError naming what is wrong."""
    count, begin = check(split, scenes, first), _FIRST.get(split, FREE) + first
    return range(begin, begin + count)


def scene_names(split: str, scenes: int | None = None, first: int = 0) -> tuple[str, ...]:
    """The names of a split, or `scenes` of them from number `first` on. Raises InputError naming what is wrong."""
    return tuple(map(scene_name, seeds(split, scenes, first)))


def scene_name(seed: int) -> str:
    """The name of the scene with this seed."""
    for split, first in _FIRST.items():
        if 0 <= seed - first < SIZES[split]:
            return f"world-{split}-{seed - first:0{_DIGITS[split]}d}"
    if not 0 <= seed < VAL:
        raise InputError(f"world: seed must be at least 0 and less than {VAL}, got {seed}; beyond lie the fixed splits")
    return f"world-{seed:04d}"


def seed_of(name: str) -> int:
    """The seed of a scene. Raises InputError if there is no such scene."""
    kind, _, number = name.removeprefix("world-").rpartition("-")
    if number.isascii() and number.isdigit() and (not kind or kind in _FIRST):
        seed = int(number) + _FIRST.get(kind, FREE)
        try:
            if scene_name(seed) == name:
                return seed
        except InputError:
            pass
    raise InputError(f"world: no scene {name!r}; names look like world-train-000042, world-val-03 or world-0007")
