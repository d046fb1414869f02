"""The core's own settings as parameters: names and defaults are those of its dataclasses."""

import dataclasses

from syncl_core.config import SyncConfig
from syncl_core.io.markers import MarkerOptions
from syncl_core.model_config import LARGEST
from syncl_ros.spec import Spec

_MARKERS = {  # field of MarkerOptions: description, choices, limits
    "box_style": ("wire frames or solids", ("lines", "cubes"), None),
    "color_by": ("what a colour tells", ("id", "class", "fixed"), None),
    "color": ("red, green, blue from 0 to 1, for color_by fixed", (), (0.0, 1.0)),
    "lifetime": ("seconds a marker stays without an update", (), (0.0, 3600.0)),
    "line_width": ("metres", (), (0.001, 10.0)),
    "text_height": ("metres", (), (0.01, 10.0)),
    "arrow_seconds": ("a velocity arrow ends where the object will be after this time", (), (0.0, 60.0)),
    "min_speed": ("m/s; slower objects have no arrow", (), (0.0, 100.0)),
    "history_seconds": ("length of the trail", (), (0.0, 600.0)),
}
_OPEN = (0.0, float(LARGEST))
_SYNC = {  # field of SyncConfig: description, limits
    "anchor": ("camera whose stamps the others are compared with; empty = the first", None),
    "process_period": ("seconds between two processed sets, as trained; 0 = every set", _OPEN),
    "max_spread": ("seconds that a camera's stamp may be from where it is expected", _OPEN),
    "timeout": ("seconds on the clock that a set waits for further cameras", _OPEN),
    "min_cameras": ("sets with fewer images are not processed", (1, 64)),
    "reset_gap": ("seconds without a set after which tracks are forgotten", _OPEN),
    "max_extrapolation": ("seconds that a pose may be extrapolated beyond the newest one", _OPEN),
    "coast_max": ("seconds that tracks are predicted after the last processed set", _OPEN),
    "max_ego_jump": ("metres the vehicle may be from where its motion led; more is reported; 0 = any", _OPEN),
    "reset_on_ego_jump": ("and tracks are forgotten", None),
}
LIVE_SYNC = ("max_spread", "timeout", "min_cameras")  # fields of SyncConfig that may be changed while the node runs


def marker_specs() -> tuple[Spec, ...]:
    """`markers.<field>` for every field of MarkerOptions."""
    return tuple(
        Spec(
            name=f"markers.{f.name}",
            default=f.default,
            description=_MARKERS[f.name][0],
            choices=_MARKERS[f.name][1],
            limits=_MARKERS[f.name][2],
            live=True,
        )
        for f in dataclasses.fields(MarkerOptions)
    )


def sync_specs(defaults: SyncConfig | None = None) -> tuple[Spec, ...]:
    """`sync.<field>` for the fields of SyncConfig that hold one value; `cameras.<camera>` holds the others."""
    defaults = defaults or SyncConfig()
    return tuple(
        Spec(
            name=f"sync.{f.name}",
            default=value,
            description=_SYNC[f.name][0],
            limits=_SYNC[f.name][1],
            live=f.name in LIVE_SYNC,
        )
        for f in dataclasses.fields(SyncConfig)
        if isinstance(value := getattr(defaults, f.name), (str, bool, int, float))
    )
