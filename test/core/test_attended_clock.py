"""Deadlines do not pass while nobody is there to take what has come."""

from test_intake import CONFIG, IMAGE, MS, add_poses, add_rig, sweep

from syncl_core.runtime.attended_clock import AttendedClock
from syncl_core.runtime.intake import Intake

LONGEST_NS = 40 * MS


class Steady:
    def __init__(self):
        self.now_ns = 5_000 * MS

    def __call__(self) -> int:
        return self.now_ns


def test_time_passes_as_it_is_asked_and_an_absence_counts_little():
    steady = Steady()
    clock = AttendedClock(LONGEST_NS, steady)
    begin_ns = clock()
    for step_ms, passed_ms in ((10, 10), (39, 49), (40, 89), (41, 129), (9_000, 169), (0, 169)):
        steady.now_ns += step_ms * MS
        assert clock() - begin_ns == passed_ms * MS


def test_a_simulation_s_time_passes_as_it_goes_however_it_goes():
    """Its clock ticks ten times a second, at a quarter of real time or at five times that; then it begins anew."""
    for speed in (0.25, 1.0, 5.0):
        steady, sensors = Steady(), Steady()
        clock = AttendedClock(LONGEST_NS, steady, sensors)
        begin_ns = clock()
        for tick in range(1, 201):  # asked every 20 ms for 4 s
            steady.now_ns += 20 * MS
            if tick % 5 == 0:
                sensors.now_ns += round(speed * 100) * MS
            passed_ns = clock() - begin_ns
        assert passed_ns == round(speed * 4_000) * MS
        steady.now_ns += 400 * MS  # nobody was there
        sensors.now_ns += round(speed * 400) * MS
        assert clock() - begin_ns == passed_ns + round(speed * 40) * MS
        sensors.now_ns = 0
        assert clock() - begin_ns == passed_ns + round(speed * 40) * MS


def test_a_set_is_not_closed_over_images_that_wait_to_be_read():
    """Three cameras are there, then the process gets no processor for longer than the set would wait."""
    for clock_of, closed_early in (
        (lambda steady: AttendedClock(LONGEST_NS, steady), False),
        (lambda steady: steady, True),
    ):
        steady = Steady()
        intake = Intake(CONFIG, clock_of(steady))
        add_rig(intake)
        sets = []
        for n in range(4):
            add_poses(intake, n)
            for number, (t_ns, camera) in enumerate(sweep(n)):
                steady.now_ns += 400 * MS if (n, number) == (3, 3) else MS
                sets += intake.poll()  # a timer that is due comes before the messages
                intake.add_image(camera, t_ns, camera.lower(), IMAGE)
                sets += intake.poll()
        assert ("too_few_cameras" in intake.problems()) == closed_early
        assert len(sets) == 4 - closed_early and all(all(one.views) for one in sets)


def test_a_camera_that_stays_silent_is_given_up_as_before():
    steady = Steady()
    intake = Intake(CONFIG, AttendedClock(LONGEST_NS, steady))
    add_rig(intake)
    add_poses(intake, 0)
    for t_ns, camera in sweep(0)[:-1]:
        intake.add_image(camera, t_ns, camera.lower(), IMAGE)
    polls = 0
    while not intake.take_missed():
        steady.now_ns += 20 * MS
        intake.poll()
        polls += 1
    assert polls == 8  # sync.timeout is 150 ms
