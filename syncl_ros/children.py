"""The demo's child processes, and the folder they write to."""

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from syncl_core.errors import InputError
from syncl_core.io.files import make_folder
from syncl_ros.processes import running


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


def child_process(
    name: str, arguments: list[str], environment: dict, log: Path
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    command = [sys.executable, "-m", f"syncl_ros.{'node' if name == 'tracker' else name}", *arguments]
    # Ctrl-C reaches this process alone, which then ends them in its order.
    return running(command, environment, log, own_session=True)


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
