"""The exceptions the command line turns into a single line and exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: it names the culprit and says what to do."""


class RejectedSetError(InputError):
    """One frame set cannot be used. Whoever reads on may go on: the tracker's memory is as it was."""


class DeviceError(InputError):
    """The device (GPU) failed, and failed again after its memory was released."""
