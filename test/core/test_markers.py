"""Markers: what a display shows after each array is exactly the current objects, under ids that never change."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncl_core import geometry
from syncl_core.io import markers
from syncl_core.io.markers import MarkerBuilder, MarkerOptions
from syncl_core.types import ObjectSet
from syncl_core.view.colors import identity_color

STEP_NS = 500_000_000


def make(type_name: str, **fields):
    return SimpleNamespace(type_name=type_name, **fields)


def object_set(step: int, ids, speed: float = 5.0) -> ObjectSet:
    """Objects that drive along x; their place depends on identity and step only."""
    count = len(ids)
    places = [np.array([speed * step * 0.5, 4.0 * (sum(map(ord, identity)) % 50), 1.0]) for identity in ids]
    return ObjectSet(
        t_ns=step * STEP_NS,
        ids=tuple(ids),
        labels=("car",) * count,
        scores=np.ones(count),
        centers=np.array(places).reshape(-1, 3),
        sizes=np.tile([4.5, 1.9, 1.6], (count, 1)),
        rotations=np.tile(geometry.quaternion_from_yaw(np.array(0.4)), (count, 1)),
        velocities=np.tile([speed, 0.0], (count, 1)),
    )


class Display:
    """The slow reference: applies arrays as RViz does, without lifetimes."""

    def __init__(self):
        self.shown = {}

    def apply(self, array) -> None:
        for marker in array.markers:
            if marker.action == markers.DELETEALL:
                self.shown.clear()
            elif marker.action == markers.DELETE:
                del self.shown[marker.ns, marker.id]  # deleting what is not there would be a bug
            else:
                self.shown[marker.ns, marker.id] = marker

    def ids(self, ns: str) -> set[int]:
        return {number for name, number in self.shown if name == ns}


IDENTITIES = st.lists(
    st.one_of(st.integers(0, 12).map(lambda n: f"0badcafe-{n}"), st.sampled_from(["a1" * 16, "b2" * 16, "c3d4" * 8])),
    unique=True,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(IDENTITIES, min_size=1, max_size=8))
def test_the_display_shows_the_current_objects_under_stable_ids(sequence):
    builder, display, numbers = MarkerBuilder(), Display(), {}
    for step, ids in enumerate(sequence):
        display.apply(builder.build(object_set(step, ids), "odom", make))
        labels = {marker.text: number for (ns, number), marker in display.shown.items() if ns == "labels"}
        assert len(labels) == len(display.ids("boxes")) == len(ids)
        assert display.ids("boxes") == display.ids("labels") == display.ids("velocity") >= display.ids("history")
        for text, number in labels.items():
            assert numbers.setdefault(text, number) == number
        assert len(set(numbers.values())) == len(numbers)
        assert all(0 <= number < 2**31 for number in numbers.values())


def test_only_the_first_array_and_a_reset_clear_the_display():
    builder = MarkerBuilder()

    def clears(step: int) -> list[int]:
        array = builder.build(object_set(step, ["s-1"]), "odom", make)
        return [i for i, marker in enumerate(array.markers) if marker.action == markers.DELETEALL]

    assert clears(3) == [0]  # whatever an earlier process left on the display
    assert clears(4) == []
    builder.reset()
    assert clears(5) == [0]
    assert clears(2) == [0]  # time ran backwards: the bag was started again
    assert clears(3) == []


def test_a_saved_state_continues_as_if_nothing_happened():
    one, other = MarkerBuilder(), MarkerBuilder()
    one.build(object_set(0, ["s-1", "s-2"]), "odom", make)
    other.state = one.state
    assert one.build(object_set(1, ["s-2"]), "odom", make) == other.build(object_set(1, ["s-2"]), "odom", make)


def test_track_numbers_become_ids_modulo_int32():
    builder, display = MarkerBuilder(), Display()
    display.apply(builder.build(object_set(0, ["s-7", f"s-{2**31 + 5}"]), "odom", make))
    assert display.ids("boxes") == {7, 5}


def by_namespace(builder: MarkerBuilder, objects: ObjectSet) -> dict:
    array = builder.build(objects, "odom", make)
    return {marker.ns: marker for marker in array.markers if marker.action == markers.ADD}


def xyz(points) -> np.ndarray:
    return np.array([(p.x, p.y, p.z) for p in points])


def test_wire_frame_edges_are_the_box():
    objects = object_set(3, ["s-1"])
    box = by_namespace(MarkerBuilder(), objects)["boxes"]
    assert (box.type, box.header.frame_id) == (markers.LINE_LIST, "odom")
    lengths = np.linalg.norm(np.diff(xyz(box.points).reshape(-1, 2, 3), axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(sorted(lengths), sorted([4.5] * 4 + [1.9] * 4 + [1.6] * 4 + [4.5 / 2]))
    start, end = xyz(box.points)[-2:]
    np.testing.assert_allclose(end - start, 4.5 / 2 * np.array([np.cos(0.4), np.sin(0.4), 0]), atol=1e-12)
    np.testing.assert_allclose(xyz(box.points)[:24].mean(axis=0), objects.centers[0])


def test_cube_is_the_box():
    objects = object_set(3, ["s-1"])
    box = by_namespace(MarkerBuilder(MarkerOptions(box_style="cubes")), objects)["boxes"]
    assert box.type == markers.CUBE
    assert (box.scale.x, box.scale.y, box.scale.z) == (4.5, 1.9, 1.6)
    np.testing.assert_array_equal(xyz([box.pose.position])[0], objects.centers[0])
    quaternion = box.pose.orientation
    np.testing.assert_array_equal([quaternion.w, quaternion.x, quaternion.y, quaternion.z], objects.rotations[0])


def test_arrow_points_where_the_object_will_be_and_needs_a_known_speed():
    objects = object_set(3, ["s-1"])
    arrow = by_namespace(MarkerBuilder(MarkerOptions(arrow_seconds=2.0)), objects)["velocity"]
    np.testing.assert_allclose(xyz(arrow.points), [objects.centers[0], objects.centers[0] + [10.0, 0, 0]])
    for speed in (0.0, 0.1, np.nan):
        still = object_set(3, ["s-1"], speed=0.0)
        still.velocities[:] = speed
        assert "velocity" not in by_namespace(MarkerBuilder(), still)


def test_trail_follows_the_track_through_a_gap_and_has_limited_length():
    builder = MarkerBuilder(MarkerOptions(history_seconds=2.0))
    for step, ids in enumerate([["s-1"], ["s-1"], [], ["s-1"], ["s-1"]]):
        shown = by_namespace(builder, object_set(step, ids))
    np.testing.assert_allclose(xyz(shown["history"].points)[:, 0], 2.5 * np.array([0, 1, 3, 4]))
    for step in range(5, 30):
        shown = by_namespace(builder, object_set(step, ["s-1"]))
    assert len(shown["history"].points) == 5
    builder.build(object_set(100, []), "odom", make)
    assert builder.state.trails == {}


@pytest.mark.parametrize(
    ("options", "color"),
    [
        (MarkerOptions(), np.array(identity_color("s-1")) / 255),
        (MarkerOptions(color_by="fixed", color=(0.1, 0.2, 0.3)), (0.1, 0.2, 0.3)),
    ],
)
def test_color(options, color):
    shown = by_namespace(MarkerBuilder(options), object_set(1, ["s-1"]))
    for marker in shown.values():
        np.testing.assert_allclose([marker.color.r, marker.color.g, marker.color.b], color)


def test_class_colors_differ():
    objects = object_set(0, [f"s-{n}" for n in range(3)])
    colors = set()
    for label in ("car", "truck", "pedestrian", "unheard_of"):
        builder = MarkerBuilder(MarkerOptions(color_by="class"))
        labelled = ObjectSet(
            **{name: getattr(objects, name) for name in ObjectSet.__dataclass_fields__ if name != "labels"},
            labels=(label,) * 3,
        )
        shown = by_namespace(builder, labelled)["boxes"].color
        colors.add((shown.r, shown.g, shown.b))
    assert len(colors) == 4
