"""The transform tree against a slow reference: search all samples, scipy's own Slerp, chain matrices one by one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from syncl_core import geometry
from syncl_core.runtime.transform_tree import TransformLookupError, TransformTree

SECOND = 1_000_000_000


def random_transform(rng):
    return geometry.transform(rng.normal(size=3) * 10, rng.normal(size=4))


def slow_at(samples, t_ns):
    """Transform at a time of {stamp: matrix}, by scipy's own Slerp."""
    if t_ns in samples:
        return samples[t_ns]
    before, after = max(t for t in samples if t < t_ns), min(t for t in samples if t > t_ns)
    fraction = (t_ns - before) / (after - before)
    rotations = Rotation.from_matrix([samples[before][:3, :3], samples[after][:3, :3]])
    result = np.eye(4)
    result[:3, :3] = Slerp([0.0, 1.0], rotations)(fraction).as_matrix()
    result[:3, 3] = samples[before][:3, 3] * (1 - fraction) + samples[after][:3, 3] * fraction
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 5 * SECOND), min_size=2, max_size=12, unique=True),
    st.floats(0, 1),
)
def test_lookup_equals_slow_reference(seed, stamps, where):
    """map -> odom -> base -> cam (static) and odom -> drone; samples arrive in any order."""
    rng = np.random.default_rng(seed)
    edges = {("map", "odom"): {}, ("odom", "base"): {}, ("odom", "drone"): {}}
    tree = TransformTree()
    for (parent, child), samples in edges.items():
        for t_ns in rng.permutation(stamps).tolist():
            samples[t_ns] = random_transform(rng)
            tree.insert(parent, child, t_ns, samples[t_ns])
    base_from_cam = random_transform(rng)
    tree.insert("base", "cam", 0, base_from_cam, static=True)

    t_ns = min(stamps) + round(where * (max(stamps) - min(stamps)))
    odom_from_cam = slow_at(edges["odom", "base"], t_ns) @ base_from_cam
    drone_from_odom = np.linalg.inv(slow_at(edges["odom", "drone"], t_ns))
    map_from_odom = slow_at(edges["map", "odom"], t_ns)
    close = {"atol": 1e-9, "rtol": 0}
    np.testing.assert_allclose(tree.lookup("odom", "cam", t_ns), odom_from_cam, **close)
    np.testing.assert_allclose(tree.lookup("map", "cam", t_ns), map_from_odom @ odom_from_cam, **close)
    np.testing.assert_allclose(tree.lookup("drone", "cam", t_ns), drone_from_odom @ odom_from_cam, **close)
    there, back = tree.lookup("drone", "cam", t_ns), tree.lookup("cam", "drone", t_ns)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-9)


def two_sample_tree(**options):
    tree = TransformTree(**options)
    tree.insert("odom", "base", 10 * SECOND, geometry.transform([0, 0, 0]))
    tree.insert("odom", "base", 12 * SECOND, geometry.transform([4, 0, 0], geometry.quaternion_from_yaw(1.0)))
    return tree


def test_exact_stamp_gives_the_sample_bit_for_bit():
    rng = np.random.default_rng(0)
    tree, samples = TransformTree(), {t: random_transform(rng) for t in range(5)}
    for t, matrix in samples.items():
        tree.insert("odom", "base", t, matrix)
    for t, matrix in samples.items():
        assert (tree.lookup("odom", "base", t) == matrix).all()


def test_same_frame_is_identity_at_any_time():
    assert (two_sample_tree().lookup("base", "base", 99 * SECOND) == np.eye(4)).all()


def test_same_stamp_replaces():
    tree = two_sample_tree()
    tree.insert("odom", "base", 12 * SECOND, geometry.transform([7, 0, 0]))
    assert tree.lookup("odom", "base", 12 * SECOND)[0, 3] == 7
    assert tree.lookup("odom", "base", 11 * SECOND)[0, 3] == 3.5


@pytest.mark.parametrize(
    "dst, src, t_s, message, may_come",
    [
        ("odom", "base", 12.1, "odom -> base: not there yet, newest 12.000 s, asked 12.100 s", True),
        ("odom", "base", 9.9, "odom -> base: forgotten, oldest 10.000 s, asked 9.900 s", False),
        ("odom", "cam", 11, "unknown frame 'cam', known: base, lidar, odom, world", True),
        ("odom", "lidar", 11, "odom and lidar are not connected: roots are odom and world", True),
    ],
)
def test_errors_name_edge_and_times(dst, src, t_s, message, may_come):
    tree = two_sample_tree()
    tree.insert("world", "lidar", 0, np.eye(4), static=True)
    with pytest.raises(TransformLookupError) as caught:
        tree.lookup(dst, src, round(t_s * SECOND))
    assert str(caught.value) == message and caught.value.may_come is may_come


def test_extrapolation_only_when_asked_and_only_so_far():
    tree = two_sample_tree()
    t_ns = round(12.5 * SECOND)
    with pytest.raises(TransformLookupError):
        tree.lookup("odom", "base", t_ns, max_extrapolation_s=0.4)
    result = tree.lookup("odom", "base", t_ns, max_extrapolation_s=0.5)
    assert result[0, 3] == pytest.approx(5)
    assert math.atan2(result[1, 0], result[0, 0]) == pytest.approx(1.25)


def test_memory_is_bounded_and_old_samples_are_forgotten():
    tree = TransformTree(max_seconds=1.0)
    for i in range(1000):
        tree.insert("odom", "base", i * SECOND // 100, np.eye(4))
    assert len(tree._edges["base"].stamps_ns) == 101
    with pytest.raises(TransformLookupError, match="forgotten"):
        tree.lookup("odom", "base", 8 * SECOND)


def test_more_is_remembered_from_when_it_is_asked_for():
    tree = TransformTree(max_seconds=1.0)
    for i in range(5):
        tree.insert("odom", "base", i * SECOND, np.eye(4))
    tree.remember(1000.0)
    for i in range(5, 2000):
        tree.insert("odom", "base", i * SECOND, np.eye(4))
        assert tree._edges["base"].stamps_ns[0] == max(3, i - 1000) * SECOND


@pytest.mark.parametrize(
    "matrix, why",
    [
        (np.full((4, 4), np.nan), "not a finite"),
        (np.eye(3), "not a finite"),
        (np.diag([2.0, 1, 1, 1]), "not a rigid"),
        (np.diag([-1.0, 1, 1, 1]), "not a rigid"),
        (np.eye(4) + 1e-3 * np.eye(4)[[1, 0, 2, 3]], "not a rigid"),
        (np.eye(4) + 1e-3 * np.eye(4)[[3, 1, 2, 0]] * [[0], [0], [0], [1]], "not a rigid"),
    ],
)
def test_bad_matrix_is_refused_and_changes_nothing(matrix, why):
    tree = two_sample_tree()
    with pytest.raises(ValueError, match=f"odom -> base: {why}"):
        tree.insert("odom", "base", 11 * SECOND, matrix)
    assert tree.lookup("odom", "base", 11 * SECOND)[0, 3] == 2


def test_loops_are_refused():
    tree = two_sample_tree()
    tree.insert("base", "cam", 0, np.eye(4), static=True)
    for parent in ("cam", "odom"):
        with pytest.raises(ValueError, match=f"{parent} -> odom: would close a loop"):
            tree.insert(parent, "odom", 0, np.eye(4))


def test_last_parent_wins():
    tree = two_sample_tree()
    tree.insert("map", "base", 11 * SECOND, geometry.transform([1, 2, 3]))
    assert tree.parent("base") == "map"
    assert tree.lookup("map", "base", 11 * SECOND)[2, 3] == 3
    with pytest.raises(TransformLookupError, match="unknown frame 'odom'"):
        tree.lookup("odom", "base", 11 * SECOND)


def test_clear_keeps_static_and_what_is_not_newer():
    tree = two_sample_tree()
    tree.insert("base", "cam", 0, geometry.transform([1, 0, 0]), static=True)
    tree.insert("map", "odom", 5 * SECOND, np.eye(4))
    tree.clear(newer_than_ns=6 * SECOND)
    assert tree.newest_ns("base") is None and tree.newest_ns("odom") == 5 * SECOND
    tree.clear()
    assert tree.newest_ns("odom") is None
    assert tree.lookup("base", "cam", 77)[0, 3] == 1


def test_the_way_between_two_frames_and_what_moves_on_it():
    tree = TransformTree()
    assert tree.between("odom", "base") is None and tree.between("odom", "odom") == {}
    tree.insert("footprint", "base", 0, np.eye(4), static=True)
    assert tree.between("odom", "base") is None
    tree.insert("odom", "footprint", SECOND, np.eye(4))
    tree.insert("base", "camera", 0, np.eye(4), static=True)
    assert tree.between("odom", "base") == {"base": False, "footprint": True} == tree.between("base", "odom")
    assert tree.between("odom", "footprint") == {"footprint": True}
