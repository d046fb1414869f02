"""A partial YAML file over typed defaults; every mistake names the file and the key."""

import dataclasses

import pytest
import yaml

from syncl_core.config import SynclConfig, check_config, config_from_dict, config_to_dict, load_config
from syncl_core.errors import InputError


def written(tmp_path, text):
    path = tmp_path / "tracker.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_file_gives_the_defaults(tmp_path):
    assert load_config(written(tmp_path, "")) == SynclConfig()


def test_partial_file_changes_only_its_keys(tmp_path):
    config = load_config(written(tmp_path, "name: mine\nsync:\n  max_spread: 1\nrig:\n  cameras: [A, B, C, D, E, F]\n"))
    default = SynclConfig()
    assert config == dataclasses.replace(
        default,
        name="mine",
        sync=dataclasses.replace(default.sync, max_spread=1.0),
        rig=dataclasses.replace(default.rig, cameras=tuple("ABCDEF")),
    )
    assert isinstance(config.sync.max_spread, float)


@pytest.mark.parametrize("text", ["4e-4", "4.0e-4", "4E-4", "+4.e-4", "0.0004"])
def test_numbers_are_read_as_people_write_them(tmp_path, text):
    assert load_config(written(tmp_path, f"train: {{learning_rate: {text}}}")).train.learning_rate == 4e-4


def test_merge_keys_are_no_repetition(tmp_path):
    text = "track: &a {slots: 3}\nsync: &b {timeout: 0.2}\nrig: {}\nmodel: {<<: &c {num_heads: 4}, num_queries: 7}\n"
    config = load_config(written(tmp_path, text + "train: {<<: {seed: 5}, iterations: 2}"))
    assert (config.model.num_heads, config.model.num_queries, config.train.seed) == (4, 7, 5)


def test_round_trip_through_yaml():
    text = yaml.safe_dump(config_to_dict(SynclConfig()))
    assert config_from_dict(SynclConfig, yaml.safe_load(text)) == SynclConfig()


@pytest.mark.parametrize(
    "text, message",
    [
        ("modle: {}", r"modle: unknown key; did you mean model\? known here: .*model"),
        ("model: {width: 3}", "model.width: unknown key"),
        ("- 1", r"the file: expected keys and values, got \[1\]"),
        ("sync: 3", "sync: expected keys and values, got 3"),
        ("track: {slots: 1.5}", "track.slots: expected int, got 1.5"),
        ("track: {slots: true}", "track.slots: expected int, got True"),
        ("track: {slots: '3'}", "track.slots: expected int, got '3'"),
        ("sync: {max_spread: false}", "sync.max_spread: expected float, got False"),
        ("sync: {max_spread: e-4}", "sync.max_spread: expected float, got 'e-4'"),
        ("rig: {cameras: CAM_FRONT}", "rig.cameras: expected a list of str"),
        ("rig: {cameras: [CAM_FRONT, 2]}", r"rig.cameras\[1\]: expected str, got 2"),
        ("rig: {cameras: [A, A, B, C, D, E]}", "rig.cameras: expected distinct"),
        ("model: {num_heads: 0}", "model.num_heads: must be positive, got 0"),
        ("model: {depth_bins: -1}", "model.depth_bins: must be positive, got -1"),
        ("model: {class_prior: 1.0}", "model.dropout, model.class_prior: probabilities"),
        ("model: {pc_range: [1, 1, 1, 0, 2, 2]}", "model.pc_range: expected six numbers"),
        ("sync: {timeout: 1.0e+300}", "sync.timeout: must be zero or more seconds, got 1e"),
        ("track: {slots: 1000000000000}", "track.slots: must be positive, got 1000000000000; at most 1000000"),
        ("track: {score_threshold: .nan}", "track.score_threshold: must be within 0 and 1, got nan"),
        ("rig: {base_from_model_rotation: [0, 0, 0, 0]}", "rig.base_from_model_rotation: expected a quaternion"),
        ("rig: {base_from_model_translation: [1.0]}", "rig.base_from_model_translation: expected three numbers"),
        ("image: {mean: [.nan, 1, 1]}", "image.mean, image.std: expected three numbers"),
        ("track: {slots: 0}", "track.slots: must be positive, got 0"),
        ("sync: {max_spread: .nan}", "sync.max_spread: must be positive, got nan"),
        ("sync: {timeout: -0.1}", "sync.timeout: must be zero or more seconds, got -0.1"),
        ("sync: {process_period: .inf}", "sync.process_period: must be zero or more seconds, got inf"),
        ("track: {ego_update: wrong}", "track.ego_update: expected exact or as_released"),
        ("sync: {anchor: CAM_ROOF}", "sync.anchor: 'CAM_ROOF' is not one of rig.cameras"),
        ("sync: {min_cameras: 7}", "sync.min_cameras: 7 of 6 cameras"),
        ("model: {embed_dim: 250}", "model.embed_dim: 250 is not divisible"),
        ("model: {pc_range: [1, 2]}", "model.pc_range.*expected six numbers"),
        (
            "model: {framework: none, detector: stream_petr, num_queries: 300}\ntrack: {slots: 900}",
            "track.slots: this detector says 556 boxes a frame, got 900",
        ),
        ("num_tracking_classes: 11", "num_tracking_classes: expected 1 to 10, got 11: classes has 10"),
        ("a: [", "not valid YAML"),
        ("track: {slots: 3}\ntrack: {slots: 4}", "not valid YAML: track stands there twice in .*, line 2, column 1"),
        ("classes: []", r"classes: expected one or more, each once, got \[\]"),
        ("classes: [car, car]\nnum_tracking_classes: 1", "classes: expected one or more, each once"),
        ("train: {seed: 99999999999999999999}", r"train.seed: must be below 2\^63"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: cannot read the configuration: No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_defaults_are_possible():
    check_config(SynclConfig())
