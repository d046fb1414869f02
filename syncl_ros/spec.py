"""What is known of one ROS parameter, and how a dataclass declares some."""

import dataclasses
from dataclasses import dataclass


def parameter(default, description: str, *, name: str = "", choices=(), limits=None, live: bool = False):
    """A dataclass field that is a parameter; `name` is its ROS name where that has dots."""
    metadata = {"name": name, "description": description, "choices": choices, "limits": limits, "live": live}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One ROS parameter."""

    name: str
    default: object
    description: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    live: bool = False


def ros_name(field: dataclasses.Field) -> str:
    return field.metadata["name"] or field.name


def specs_of(kind: type, prefix: str = "") -> tuple[Spec, ...]:
    """The parameters of a dataclass made with `parameter`."""
    return tuple(
        Spec(
            name=prefix + ros_name(f),
            default=f.default,
            **{key: f.metadata[key] for key in ("description", "choices", "limits", "live")},
        )
        for f in dataclasses.fields(kind)
    )
