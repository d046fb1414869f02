"""Child processes: their output in a file, their end in order; and the folder that the demo's write to."""

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from syncl_core.errors import InputError
from syncl_core.io.files import make_folder


@contextlib.contextmanager
def folder_taken(output: Path) -> Iterator[None]:
    """A demo replaces what an earlier demo left, and nothing else; one at a time."""
    marker = output / ".made-by-demo"
    if output.is_dir() and any(output.iterdir()) and not marker.exists():
        raise InputError(f"{output}: holds other files; choose another folder (-o) for the demo")
    make_folder(output / "log")
    with open(marker, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{output}: another demo is at work here; wait, or choose another folder (-o)") from None
        yield


@contextlib.contextmanager
def child_process(
    module: str, arguments: Sequence[str], environment: dict[str, str], log: Path, own_session: bool = False
) -> Iterator[subprocess.Popen]:
    """`python -m <module> <arguments>`, until the block ends; with `own_session` no Ctrl-C reaches it."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
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


def wait_for_recorder(running: dict[str, subprocess.Popen], log: Path, timeout_s: float = 600.0) -> None:
    """Until the recorder has everything; a process that fails before ends the wait."""
    started = time.monotonic()
    bar = tqdm(bar_format="{desc}: {elapsed}", desc="replaying in real time", disable=None)
    while running["recorder"].poll() is None:
        for name, process in running.items():
            if process.poll() not in (None, 0):
                raise InputError(f"{name} failed: {_last_line(log / f'{name}.log')}")
        if time.monotonic() - started > timeout_s:
            raise InputError(f"no end after {timeout_s:.0f} s; see {log}")
        bar.update(time.monotonic() - started - bar.n)
        time.sleep(0.1)
    bar.close()
    if running["recorder"].returncode:
        raise InputError(f"recorder failed: {_last_line(log / 'recorder.log')}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it said nothing'} (see {log})"
