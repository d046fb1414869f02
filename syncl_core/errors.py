"""The one exception the command line turns into a single line and exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: it names the culprit and says what to do."""
