"""The user's YAML files: configurations, vehicles, calibrations."""

from pathlib import Path

import yaml

from syncl_core.errors import InputError, one_line


def read_yaml(path: str | Path, what: str) -> object:
    """The content of a file, None if it is empty. `what` it is, such as "vehicle", is for messages. Raises InputError
    naming the file."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _OnceLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {one_line(error)}") from None


class _OnceLoader(yaml.SafeLoader):
    """YAML in which no key is written twice: the first would be lost without a word."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            seen.add(key.value)
        return node
