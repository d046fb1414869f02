"""A child process: its output in a file, its end in order."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: dict[str, str], log: Path, own_session: bool = False
) -> Iterator[subprocess.Popen]:
    """The process, until the block ends. With `own_session` a Ctrl-C at the terminal does not reach it."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=own_session,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen, number: int = signal.SIGTERM, grace_s: float = 20.0) -> None:
    """Ask, wait, and only then kill: a killed one leaves the middleware's shared memory behind, 70 MB (docs/ros.md)."""
    process.send_signal(number)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
