"""What cannot be used at start-up is one line that names it, and exit code 2."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from processes import RosProcess, environment

# One process runs all cases: importing torch for each would take most of the time.
SCRIPT = """
import contextlib, importlib, io, json, os, sys
sys.modules["message_filters"] = None  # as if it were not installed, for "no synchronizer"
results, domain = [], os.environ["ROS_DOMAIN_ID"]
for module, arguments in json.load(sys.stdin):
    os.environ["ROS_DOMAIN_ID"] = domain  # soak and bench_node set their own
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = importlib.import_module("syncl_ros." + module).main(arguments)
    results.append((code, said.getvalue()))
print(json.dumps(results))
"""


def parameters(**values: object) -> list[str]:
    return ["--ros-args", *(text for name, value in values.items() for text in ("-p", f"{name}:={value}"))]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, tuple[str, list[str], str]]:
    """Name -> module, arguments, what its one line must say."""
    folder = tmp_path_factory.mktemp("errors")
    wrong = folder / "wrong.yaml"
    wrong.write_text("model: {num_querys: 3}")
    (folder / "notes.txt").write_text("not a bag")
    small = {"config": folder / "small.yaml"}
    small["config"].write_text("model: {num_layers: 1, num_queries: 8}")
    car, car2 = folder / "car.yaml", folder / "car2.yaml"
    car.write_text("cameras: {cam_front: {frame: front}}")
    car2.write_text("threads: two")
    made = {
        "unknown parameter": ("node", parameters(checkpont="x"), "checkpont: unknown; did you mean checkpoint?"),
        "wrong type": ("node", parameters(seed="many"), "seed: expected int, got 'many'"),
        "out of range": ("node", parameters(score_threshold=1.5), "score_threshold: 1.5 is not within 0.0 to 1.0"),
        "wrong choice": ("node", parameters(image_transport="theora"), "image_transport: 'theora' is not one of"),
        "no device": ("node", parameters(device="abacus"), "device 'abacus' cannot be used"),
        "no config": ("node", parameters(config=folder / "none.yaml"), "none.yaml: cannot read the configuration"),
        "bad config": ("node", parameters(config=wrong), "wrong.yaml: model.num_querys: unknown key"),
        "no checkpoint": ("node", parameters(checkpoint=folder / "no.safetensors"), "no.safetensors: no such"),
        "one topic": ("node", parameters(image_topic="/image"), "image_topic: '/image' is one topic for all cameras"),
        "no topic name": ("node", parameters(end_topic="/a-b"), "parameter end_topic: '/a-b': topic name must not"),
        "no camera's topic": (
            "node",
            parameters(camera_info_topic="/{camera}/1info"),
            "parameter camera_info_topic: '/camera/1info': topic name token must not start with a number",
        ),
        "no switch": ("node", parameters(use_sim_time="maybe"), "'use_sim_time' to 'maybe'"),
        "no vehicle": ("node", parameters(vehicle="no_car"), "vehicle no_car: no such file, and no vehicle"),
        "bad vehicle": ("node", parameters(vehicle=car), "car.yaml: cameras.cam_front.frame: no such parameter"),
        "wrong vehicle value": ("node", parameters(vehicle=car2), "parameter threads: the vehicle file says 'two'"),
        "unknown camera": (
            "node",
            parameters(**small, **{"cameras.cam_frnt.frame_id": "x"}),
            "cam_frnt here; did you mean cam_front?",
        ),
        "unknown class": (
            "node",
            parameters(**small, **{"score_thresholds.cat": 0.5}),
            "score_thresholds.cat: no cat here; did you mean car?",
        ),
        "no synchronizer": (
            "node",
            parameters(**small, **{"sync.policy": "approximate_time"}),
            "needs the ROS package message_filters",
        ),
        "half a calibration": ("node", parameters(**{"calibration.source": "file"}), "calibration.source: 'file'"),
        "no calibration": (
            "node",
            parameters(**small, **{"calibration.source": "file", "calibration.file": folder / "none.yaml"}),
            "none.yaml: cannot read the calibration",
        ),
        "no doctor vehicle": ("doctor", ["--ros-args", "-p", "vehicle:=no_car"], "vehicle no_car: no such file"),
        "endless doctor": ("doctor", ["--seconds", "nan"], "--seconds nan: expected 0.1 to 3600"),
        "no such domain": ("soak", ["--domain", "233"], "ROS_DOMAIN_ID 233: expected 0 to 232"),
        "bad topic": ("recorder", ["-o", str(folder / "bag"), "--topics", "b ad"], "'b ad'"),
        "long name": ("player", ["x" * 300], "File name too long"),
        "short soak": ("soak", ["--minutes", "0"], "--minutes 0: expected"),
        "bad bench": ("bench_node", ["--size", "big"], "--size big"),
        "bad sync": ("node", parameters(**small, **{"sync.min_cameras": 9}), "sync.min_cameras: 9 of 6 cameras"),
        "no parameter file": ("node", ["--ros-args", "--params-file", str(folder / "none.yaml")], "none.yaml"),
        "no bag": ("player", [str(folder / "none")], "none: no such bag"),
        "not a bag": ("player", [str(folder / "notes.txt")], "notes.txt: not a bag"),
        "no rate": ("player", [str(folder), "--rate", "0"], "--rate 0"),
        "exists": ("recorder", ["-o", str(folder), "--all"], f"{folder}: exists already"),
    }
    assert set(made) == set(NAMES)
    return made


@pytest.fixture(scope="module")
def outcomes(cases, tmp_path_factory) -> dict[str, tuple[int, str]]:
    env = environment(tmp_path_factory.mktemp("log"), 100)
    given = json.dumps([(module, list(map(str, arguments))) for module, arguments, _ in cases.values()])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, env=env, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(cases, json.loads(run.stdout.splitlines()[-1]), strict=True))


NAMES = (
    "unknown parameter,wrong type,out of range,wrong choice,no device,no config,bad config,no checkpoint,bad sync,"
    "one topic,no topic name,no camera's topic,no switch,"
    "no vehicle,bad vehicle,wrong vehicle value,unknown camera,unknown class,no synchronizer,"
    "half a calibration,no calibration,no doctor vehicle,endless doctor,no such domain,bad topic,long name,short soak,"
    "bad bench,no parameter file,no bag,not a bag,no rate,exists"
).split(",")


@pytest.mark.parametrize("name", NAMES)
def test_one_line_names_the_culprit(name, cases, outcomes):
    (code, said), (module, _, expected) = outcomes[name], cases[name]
    program = "tracker" if module == "node" else module
    assert code == 2
    assert said.startswith(f"{program}: error: ") and said.count("\n") == 1 and expected in said, said


def test_the_process_exits_with_that_code(tmp_path):
    with RosProcess("node", *parameters(checkpont=1), env=environment(tmp_path, 100), folder=tmp_path) as node:
        assert node.wait(60) == 2
        assert node.output().count("\n") == 1 and "checkpont" in node.output()
