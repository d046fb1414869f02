"""What happened to objects and hypotheses, as nuscenes-devkit tells its metrics, in columns instead of tables.

Which events there are is decided by motmetrics' accumulator; here they are only kept, and put together, in less time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
from nuscenes.eval.tracking.mot import MOTAccumulatorCustom

_TYPES = tuple(MOTAccumulatorCustom.new_event_dataframe().Type.cat.categories)
_CODE = {name: code for code, name in enumerate(_TYPES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The events of one scene as columns; ids are numbered in the order of their appearance, -1 = none."""

    frame: np.ndarray  # [E]
    event: np.ndarray  # [E]
    type: np.ndarray  # [E] places in the devkit's list of types
    oid: np.ndarray  # [E] objects
    hid: np.ndarray  # [E] hypotheses
    distance: np.ndarray  # [E] metres, NaN = no pair


class SceneEvents(MOTAccumulatorCustom):
    """The devkit's accumulator of one scene, without tables that nobody reads."""

    def __init__(self):
        super().__init__()
        self._start = 0  # of the newest frame

    def update(self, *args, **kwargs):
        self._start = len(self._indices["FrameId"])
        return super().update(*args, **kwargs)

    @property
    def events(self):
        """Something whose `loc` knows the newest frame, which is all that the devkit asks for in between."""
        newest = {name: self._events[name][self._start :] for name in ("Type", "HId")}
        return SimpleNamespace(loc={self._indices["FrameId"][self._start]: pd.DataFrame(newest)})

    @staticmethod
    def merge_event_dataframes(accumulators: Sequence["SceneEvents"]) -> "SceneEvents":
        """Itself: a scene is alone here. See `merge`."""
        (only,) = accumulators
        return only

    def columns(self) -> Events:
        return Events(
            frame=np.array(self._indices["FrameId"], dtype=np.int64),
            event=np.array(self._indices["Event"], dtype=np.int64),
            type=np.array([_CODE[name] for name in self._events["Type"]], dtype=np.int8),
            oid=pd.factorize(np.array(self._events["OId"], dtype=object))[0],
            hid=pd.factorize(np.array(self._events["HId"], dtype=object))[0],
            distance=np.array(self._events["D"], dtype=np.float64),
        )


def merge(scenes: Sequence[Events]) -> pd.DataFrame:
    """What the devkit's `merge_event_dataframes` makes of the scenes: frames, objects, hypotheses numbered through."""
    columns = {name: [] for name in Events.__slots__}
    frames = oids = hids = 0
    for scene in scenes:
        for name in ("event", "type", "distance"):
            columns[name].append(getattr(scene, name))
        columns["frame"].append(scene.frame + frames)
        columns["oid"].append(np.where(scene.oid < 0, -1, scene.oid + oids))
        columns["hid"].append(np.where(scene.hid < 0, -1, scene.hid + hids))
        frames, oids, hids = (
            count + column.max(initial=-1) + 1
            for count, column in ((frames, scene.frame), (oids, scene.oid), (hids, scene.hid))
        )
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    table = {
        "Type": pd.Categorical.from_codes(whole["type"], categories=_TYPES),
        "OId": _names(whole["oid"]),
        "HId": _names(whole["hid"]),
        "D": whole["distance"],
    }
    index = pd.MultiIndex.from_arrays([whole["frame"], whole["event"]], names=["FrameId", "Event"])
    return pd.DataFrame(table, index=index)


def _names(numbers: np.ndarray) -> np.ndarray:
    """Numbers as text, -1 as NaN."""
    names = np.array([*map(str, range(numbers.max(initial=-1) + 1)), np.nan], dtype=object)
    return names[numbers]  # -1 is the last
