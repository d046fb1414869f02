"""What the soak run counts: no hole may hide, and what the playing machine did is not the node's loss."""

import pytest

pytest.importorskip("rclpy")

from syncl_ros import soak
from syncl_ros.soak_ledger import Balance, Ledger

CAMERAS, PER_SET, PERIOD_S, STEP_S = 6, 3, 1 / 12, 0.007


def stamp(sweep: int) -> int:
    """Of the last camera of a sweep."""
    return round((sweep * PERIOD_S + (CAMERAS - 1) * STEP_S) * 1e9)


def drive(processed, sweeps=61, late=(), without=()) -> Ledger:
    """Sweeps from time 0; `late` ones go out 0.2 s after their time, those in `without` lack a camera."""
    ledger = Ledger(CAMERAS, PER_SET)
    for sweep in range(sweeps):
        for camera in range(CAMERAS - (sweep in without)):
            due_s = sweep * PERIOD_S + camera * STEP_S
            ledger.sent(sweep, round(due_s * 1e9), due_s, due_s + 0.2 * (sweep in late))
        if sweep in processed:
            ledger.heard(stamp(sweep))
    return ledger


ALL = range(0, 61, 3)  # 21 sets
WHOLE = [(0.0, 10.0)]


def test_every_third_sweep_is_due_wherever_the_first_set_begins():
    for first in range(3):
        due = len(range(first, 61, 3))
        expected = Balance(due=due, lost=0, late_sweeps=0, sweeps=61)
        assert drive(range(first, 61, 3)).balance(WHOLE) == expected
    assert drive(range(3, 61, 3)).balance(WHOLE).lost == 1  # it could have begun with the first sweep


@pytest.mark.parametrize(
    ("processed", "lost"),
    [
        ([i for i in ALL if i != 30], 1),
        ([i for i in ALL if i not in (0, 30, 33, 60)], 4),
        ([*range(0, 30, 3), *range(31, 61, 3)], 1),  # one sweep later than due: a set failed, the next took its place
        ([], 20),
        ([30], 20),
    ],
)
def test_a_hole_is_a_lost_set_in_the_middle_and_at_both_ends(processed, lost):
    assert drive(processed).balance(WHOLE).lost == lost


def test_tracks_without_the_newest_image_and_predictions_are_no_sets():
    ledger = drive([i for i in ALL if i != 30])
    for t_ns in (stamp(30) - round(STEP_S * 1e9), stamp(30) + 1_000, 0):
        ledger.heard(t_ns)
    assert ledger.balance(WHOLE).lost == 1


def test_only_whole_sweeps_inside_of_quiet_times_count():
    processed = [i for i in ALL if not 18 <= i <= 30]
    quiet = [(0.0, 18 * PERIOD_S - 0.01), (31 * PERIOD_S - 0.01, 10.0)]
    assert drive(processed).balance(quiet) == Balance(due=6 + 10, lost=0, late_sweeps=0, sweeps=18 + 30)
    assert drive(processed, without=range(17, 32)).balance(WHOLE).lost == 0


def test_what_is_sent_late_is_counted_apart():
    balance = drive([i for i in ALL if not 30 <= i <= 33], late=range(28, 36)).balance(WHOLE)
    assert (balance.lost, balance.late_sweeps, balance.sweeps) == (0, 8, 61)


def test_after_a_jump_back_a_stamp_belongs_to_the_latest_sweep():
    ledger = Ledger(1, 1)
    for sweep, t_ns in enumerate((10, 20, 30, 10, 20)):
        ledger.sent(sweep, t_ns, sweep, sweep)
    ledger.heard(20)
    assert ledger.balance([(-1.0, 2.5)]).lost == 3 and ledger.balance([(3.5, 9.0)]).lost == 0


def outcome(**changes) -> soak.Outcome:
    fine = {
        "seconds": 60.0,
        "faults": {},
        "arrays": 9,
        "sessions": 1,
        "balance": Balance(due=100, lost=0, late_sweeps=0, sweeps=300),
        "masked": 0,
        "reused": 0,
        "growth": 0.0,
        "memory_mb": 400.0,
        "dropped": 0,
    }
    return soak.Outcome(**{**fine, **changes})


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"balance": Balance(due=100, lost=1, late_sweeps=0, sweeps=300)}, False),
        ({"balance": Balance(due=100, lost=0, late_sweeps=15, sweeps=300)}, True),
        ({"balance": Balance(due=100, lost=0, late_sweeps=16, sweeps=300)}, False),  # it tells nothing
        ({"balance": Balance(due=0, lost=0, late_sweeps=0, sweeps=0)}, False),
        ({"masked": 1}, False),
        ({"reused": 1}, False),
        ({"growth": 0.02}, True),
        ({"growth": 0.021}, False),
    ],
)
def test_one_lost_set_fails_the_run(changes, passed):
    assert outcome(**changes).passed is passed
    assert outcome(**changes).report().endswith("passed" if passed else "FAILED")


def test_a_set_without_a_camera_counts_where_all_were_sent_in_time():
    ledger = drive(ALL, late=range(40, 43))
    course = soak.Course(quiet=[(0.0, 2.0), (2.0, 10.0)], masked=[1, 2])
    assert soak.masked(course, ledger) == 1


def test_growth_is_measured_after_the_warm_up():
    samples = [(float(t), 300.0 + (100.0 if t >= 20 else t)) for t in range(0, 61, 5)]
    assert soak.growth(samples, 60.0) == 0.0
    leaking = [(at_s, mb * (1 + at_s / 600)) for at_s, mb in samples]
    assert 0.04 < soak.growth(leaking, 60.0) < 0.07
    assert soak.growth([(0.0, 400.0)], 20.0) == 0.0


def test_a_session_that_comes_back_is_counted():
    tally = soak.Tally()
    for ids in (("a-1", "a-2"), (), ("b-1",), ("b-2",), ("a-3",)):
        tally.hear(ids)
    assert (tally.arrays, tally.sessions, tally.reused) == (5, ["a", "b", "a"], 1)
