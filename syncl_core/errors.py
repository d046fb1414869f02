"""The exceptions the command line turns into a single line and exit code 2, and words for their messages."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: it names the culprit and says what to do."""


class RejectedSetError(InputError):
    """One frame set cannot be used. Whoever reads on may go on: the tracker's memory is as it was."""


class DeviceError(InputError):
    """The device (GPU) failed, and failed again after its memory was released."""


def list_names(names: Iterable[str], most: int = 8) -> str:
    """The first names in one line, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the known name that is most like this one; empty if none is."""
    like = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {like[0]}?" if like else ""


def one_line(error: Exception) -> str:
    """What an exception says, its line breaks and runs of blanks as single blanks."""
    return " ".join(str(error).split())
