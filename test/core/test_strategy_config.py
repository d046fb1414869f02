"""The keys under `syncl:`: what they refuse, and that every row of the paper's tables can be asked for."""

import dataclasses
import typing

import pytest
import yaml

from syncl_core.config import config_from_dict, config_to_dict, load_config
from syncl_core.errors import InputError
from syncl_core.losses.ablations import ABLATIONS, OPEN_CHOICES
from syncl_core.strategy_config import _CHOICES, _NUMBERS, StrategyConfig, check_strategy


def test_defaults_are_the_baseline_and_pass():
    check_strategy(StrategyConfig())
    assert not StrategyConfig().enabled and not StrategyConfig().needs_parallel


def _nested(key: str, value) -> dict:
    group, name = key.split(".")
    return {group: {name: value}}


@pytest.mark.parametrize("key", [*_CHOICES, *_NUMBERS])
def test_every_wrong_value_names_its_key(key):
    wrong = ["elsewhere"] if key in _CHOICES else [_NUMBERS[key][1] * 2 + 1, _NUMBERS[key][0] - 1]
    for value in wrong if key in _CHOICES else [*wrong, float("nan")]:
        if key.endswith(("candidates", "iterations", "_dim")):
            value = 10**9 if value != value else int(value)
        with pytest.raises(InputError) as error:
            check_strategy(config_from_dict(StrategyConfig, _nested(key, value)))
        assert f"syncl.{key}: " in str(error.value) and "\n" not in str(error.value)


def test_every_key_is_checked():
    """A new key needs a bound or a list of choices."""
    groups = {f.name: f.default_factory for f in dataclasses.fields(StrategyConfig) if f.name != "enabled"}
    keys = {
        f"{group}.{name}"
        for group, cls in groups.items()
        for name, hint in typing.get_type_hints(cls).items()
        if hint is not bool
    }
    assert keys == {*_CHOICES, *_NUMBERS, "loss.code_weights"}


@pytest.mark.parametrize(
    "values, says",
    [
        ({"loss": {"code_weights": [1.0] * 9}}, "syncl.loss.code_weights"),
        ({"loss": {"code_weights": [1.0] * 9 + [-1.0]}}, "syncl.loss.code_weights"),
        ({"matching": {"decoder": "serial"}}, "syncl.matching.objects"),
    ],
)
def test_what_does_not_fit_together(values, says):
    with pytest.raises(InputError, match=says):
        check_strategy(config_from_dict(StrategyConfig, values))


def test_every_row_of_the_tables_is_there_once():
    rows = {"table4a": "1 2 3 4 5", "table4b": "atss sim_ota deta gmm", "table5": "1 2 3 4 5", "table6": "4 5 6"}
    assert set(ABLATIONS) == {f"{table}/{row}" for table, names in rows.items() for row in names.split()}
    configs = {}
    for name, ablation in ABLATIONS.items():
        assert set(ablation.values) == {"syncl"} and ablation.description
        configs[name] = config_from_dict(StrategyConfig, ablation.values["syncl"])
        check_strategy(configs[name])
    full = config_from_dict(StrategyConfig, {"enabled": True})
    assert all(configs[n] == full for n in ("table4a/5", "table4b/gmm", "table5/5", "table6/5"))
    same = {"table4a/1": "table5/1"}
    distinct = [c for n, c in configs.items() if c != full and n not in same.values()]
    assert len({repr(c) for c in distinct}) == len(distinct)


def test_open_choices_are_syncl_with_one_other_key_or_several_of_them():
    full = config_to_dict(config_from_dict(StrategyConfig, {"enabled": True}))
    changes = {}
    for name, choice in OPEN_CHOICES.items():
        config = config_from_dict(StrategyConfig, choice.values["syncl"])
        check_strategy(config)
        values = config_to_dict(config)
        changes[name] = {
            (group, key, str(value[key]))
            for group, value in values.items()
            if isinstance(value, dict)
            for key in value
            if value[key] != full[group][key]
        }
        assert name.startswith("open/") and config.enabled, name
        assert {choice.amota, choice.amotp, choice.nds, choice.map} == {None}
    together = {
        "no_false_background": ("force_best", "new_born_ignored", "rejected_ignored"),
        "stronger_parallel": ("serial_normalizer", "contrast_everywhere"),
    }
    for name, parts in together.items():
        assert changes.pop(f"open/{name}") == set().union(*(changes[f"open/{part}"] for part in parts)), name
    assert all(len(change) == 1 for change in changes.values())
    assert len(set().union(*changes.values())) == len(changes)


def test_every_answer_is_a_row():
    """All words and switches of `syncl:`, except those of the baseline's own losses and one that DETR3D cannot have."""
    rows = [row.values["syncl"] for row in (ABLATIONS | OPEN_CHOICES).values()]
    reached = {answer for values in rows for answer in _answers(config_from_dict(StrategyConfig, values))}
    words = {(key, option) for key, options in _CHOICES.items() for option in options if not key.startswith("loss.")}
    switches = [key for key, value in _answers(StrategyConfig()) if isinstance(value, bool)]
    assert len(switches) == 5
    answers = words | {(key, value) for key in switches for value in (True, False)}
    assert answers - reached == {("contrastive.features", "raw")} and reached < answers


def _answers(strategy: StrategyConfig) -> set[tuple[str, str | bool]]:
    groups = {name: group for name, group in config_to_dict(strategy).items() if isinstance(group, dict)}
    values = {f"{name}.{key}": value for name in groups.keys() - {"loss"} for key, value in groups[name].items()}
    return {(key, value) for key, value in values.items() if isinstance(value, (str, bool))}


def test_figures_of_equal_strategies_agree():
    """A slip of the pen in one of the tables would show."""
    figures = {}
    for ablation in ABLATIONS.values():
        key = repr(config_from_dict(StrategyConfig, ablation.values["syncl"]))
        figures.setdefault(key, set()).add((ablation.amota, ablation.amotp, ablation.nds, ablation.map))
    assert all(len(values) == 1 for values in figures.values())


def test_a_file_reaches_the_keys_and_comes_back(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(ABLATIONS["table4b/deta"].values))
    config = load_config(path)
    assert config.syncl.enabled and config.syncl.filter.threshold == 0.6 and config.syncl.filter.candidates == 4
    path.write_text(yaml.safe_dump(config_to_dict(config)))
    assert load_config(path) == config
    path.write_text("syncl: {filter: {method: otsu}}")
    with pytest.raises(InputError, match=r"c\.yaml: syncl\.filter\.method: expected gmm or .*'otsu'"):
        load_config(path)
