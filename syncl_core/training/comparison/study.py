"""What is compared with what: rows of the paper's tables and seeds over one configuration, data and start."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from syncl_core.config import SynclConfig, config_from_dict, config_to_dict, with_defaults, with_values
from syncl_core.errors import InputError, one_line
from syncl_core.io.files import write_text
from syncl_core.train_config import FREE_TO_CHANGE
from syncl_core.training.ablations import ABLATIONS, ablated, baseline_of

STUDY = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Scenes of a nuScenes root, or "world"."""

    data: str
    version: str = ""
    split: str = ""
    scenes: int = 0  # of the world: the first so many of the split; training: 0 = endless, drawn while it is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Every run is evaluated with the threshold that is best for it on other scenes."""

    place: Place
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that decides about numbers."""

    config: SynclConfig  # of all rows; a row's keys go over it
    rows: tuple[str, ...]  # of ABLATIONS; their baselines are among them
    seeds: tuple[int, ...]
    training: Place
    evaluation: Place
    tuning: Tuning | None = None  # None = the thresholds of `config`
    start: str = ""  # weights all runs start from; "" = from nothing
    start_digest: str = ""  # of that file, or of the run that makes it
    detector: SynclConfig | None = None  # trained first, once, to start from


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    row: str  # the first row of ABLATIONS with these keys: rows that are the same network share their runs
    seed: int
    config: SynclConfig
    digest: str  # of everything in `settings`
    settings: dict

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Below the study's folder."""
        return Path(self.row) / f"seed-{self.seed}"


def choose_rows(tables: str) -> tuple[str, ...]:
    """Rows by tables and rows, as "4a,4b,5" or "4a/1,open"; what they are compared with comes first, always.

    Raises InputError for what is not there.
    """
    chosen = []
    for item in filter(None, (part.strip() for part in tables.split(","))):
        item = item.removeprefix("table")
        names = (item, f"table{item}")
        found = [name for name in ABLATIONS if name in names or name.split("/")[0] in names]
        if not found:
            known = ", ".join(dict.fromkeys(name.split("/")[0].removeprefix("table") for name in ABLATIONS))
            raise InputError(f"--tables {item}: unknown; tables: {known}; rows look like 4a/2, see --list")
        chosen += found
    baselines = map(baseline_of, chosen or [""])
    return tuple(dict.fromkeys([*baselines, *chosen]))


@functools.cache
def run_of(study: Study, row: str, seed: int) -> PlannedRun:
    """The run of a row. Raises InputError naming a key that does not fit."""
    config = _config_of(study, row, seed)
    same = next(name for name in ABLATIONS if name == row or _is(config, study, name, seed))
    settings = _settings(study, config, study.start_digest)
    if study.tuning is not None:
        settings["tuning"] = dataclasses.asdict(study.tuning)
    return PlannedRun(row=same, seed=seed, config=config, digest=_digest(settings), settings=settings)


def detector_run(study: Study) -> PlannedRun:
    """The run whose weights all others start from."""
    config = with_values(study.detector, {"train": {"evaluate_every": 0}})
    settings = _settings(study, config, "")
    return PlannedRun(
        row="detector", seed=config.train.seed, config=config, digest=_digest(settings), settings=settings
    )


def planned(study: Study) -> Iterator[PlannedRun]:
    """Every run once, seed by seed, so that an interrupted study has all rows of its first seeds."""
    for seed in study.seeds:
        seen = set()
        for row in study.rows:
            run = run_of(study, row, seed)
            if run.digest not in seen:
                seen.add(run.digest)
                yield run


def file_digest(path: str | Path) -> str:
    """Raises InputError naming the file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path}: cannot read the weights to start from: {error.strerror}") from None


def first_difference(stored: dict, given: dict) -> str:
    """ "KEY: was X, is Y" of the first setting that differs; "" if none does."""
    stored, given = dict(_flat(stored)), dict(_flat(json.loads(json.dumps(given))))  # a file has no tuples
    for key in (*given, *stored):
        if stored.get(key) != given.get(key):
            return f"{key}: was {_said(stored.get(key))}, is {_said(given.get(key))}"
    return ""


def _said(value) -> object:
    return "nothing" if value in ("", None) else value


def complete(stored: dict) -> dict:
    """Settings that an earlier version stored, with the keys that have come since."""
    places = {key: stored[key] for key in ("training", "evaluation", "start", "tuning") if key in stored}
    config = with_defaults({key: value for key, value in stored.items() if key not in places})
    config["train"] = {key: value for key, value in config.get("train", {}).items() if key not in FREE_TO_CHANGE}
    return config | places


def save_study(folder: Path, study: Study) -> None:
    values = {f.name: getattr(study, f.name) for f in dataclasses.fields(Study)}
    values |= {"config": config_to_dict(study.config)}
    values |= {"detector": study.detector and config_to_dict(study.detector)}
    values |= {name: dataclasses.asdict(getattr(study, name)) for name in ("training", "evaluation")}
    values |= {"tuning": study.tuning and dataclasses.asdict(study.tuning)}
    write_text(folder / STUDY, json.dumps(values, indent=2) + "\n")


def load_study(folder: Path) -> Study:
    """Raises InputError if the folder holds none."""
    path = folder / STUDY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        detector, tuning = values.pop("detector"), values.pop("tuning", None)
        return Study(
            config=config_from_dict(SynclConfig, values.pop("config")),
            detector=config_from_dict(SynclConfig, detector) if detector else None,
            rows=tuple(values.pop("rows")),
            seeds=tuple(values.pop("seeds")),
            training=Place(**values.pop("training")),
            evaluation=Place(**values.pop("evaluation")),
            tuning=tuning and Tuning(place=Place(**tuning["place"]), thresholds=tuple(tuning["thresholds"])),
            **values,
        )
    except OSError:
        raise InputError(f"{path}: no such file; {folder} holds no comparison of syncl ablate") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a study of this program ({one_line(error)})") from None


@functools.cache  # every run asks for those of the rows before its own
def _config_of(study: Study, row: str, seed: int) -> SynclConfig:
    return with_values(ablated(study.config, row), {"train": {"seed": seed, "evaluate_every": 0}})


def _is(config: SynclConfig, study: Study, row: str, seed: int) -> bool:
    try:
        return _config_of(study, row, seed) == config
    except InputError:  # a row nobody asked for need not fit this configuration
        return False


def _settings(study: Study, config: SynclConfig, start: str) -> dict:
    values = config_to_dict(config)
    values["train"] = {key: value for key, value in values["train"].items() if key not in FREE_TO_CHANGE}
    places = {"training": dataclasses.asdict(study.training), "evaluation": dataclasses.asdict(study.evaluation)}
    return values | places | {"start": start}


def _digest(settings: dict) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _flat(values: dict, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        yield from _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
