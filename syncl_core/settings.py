"""`--set KEY=VALUE`: keys of a configuration from the command line."""

from collections.abc import Sequence

import yaml

from syncl_core.config import SynclConfig, with_values
from syncl_core.errors import InputError


def with_settings(config: SynclConfig, settings: Sequence[str]) -> SynclConfig:
    """The configuration with every KEY=VALUE of --set over it. Raises InputError naming the setting or the key."""
    files = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError(f"--set {setting}: expected KEY=VALUE, as train.epochs=6")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {setting}: the value is not valid YAML") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        files.append(value)
    changed = with_values(config, *files)
    keys = {setting.partition("=")[0] for setting in settings}
    if "train.epochs" in keys and changed.train.iterations:
        raise InputError(
            f"--set train.epochs: this training counts in train.iterations ({changed.train.iterations}), which go "
            "first; set that, or train.iterations=0, too"
        )
    return changed
