"""Set-up as a list of steps that remember what they did.

A step's stamp is a file holding a hash of everything the step depends on. A step whose stamp fits is skipped; the
stamp is written last, so an interrupted step runs again. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAST_LINES = 12


class StepFailed(Exception):
    """A step could not be done. The message is one line."""


@dataclass(frozen=True)
class Step:
    """One unit of set-up."""

    name: str  # also the name of its stamp and its log
    title: str  # shown while it runs
    inputs: tuple[str | Path, ...]  # a change of these texts, or of these files' contents, redoes the step
    run: Callable[[Log], None]
    advice: str  # what to do when it fails
    needs: tuple[str, ...] = ()  # steps whose redoing redoes this one


class Log:
    """Runs commands with their output in a file."""

    def __init__(self, path: Path, environment: Mapping[str, str]):
        self.path = path
        self.environment = dict(environment)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def call(self, command: Sequence[str | Path]) -> None:
        """Raises StepFailed when the command does not end well."""
        words = [str(word) for word in command]
        with self.path.open("ab") as output:
            output.write(f"$ {' '.join(words)}\n".encode())
            output.flush()
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            code = subprocess.run(words, env=self.environment, check=False, **streams).returncode
        if code:
            raise StepFailed(f"{Path(words[0]).name} ended with code {code}")

    def tail(self) -> list[str]:
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]


class Stamps:
    """Which steps are done, kept in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def is_done(self, step: Step) -> bool:
        path = self.folder / step.name
        return path.is_file() and path.read_text() == self._digest(step)

    def begin(self, step: Step) -> None:
        (self.folder / step.name).unlink(missing_ok=True)

    def finish(self, step: Step) -> None:
        path = self.folder / step.name
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(self._digest(step))
        os.replace(temporary, path)

    def _digest(self, step: Step) -> str:
        digest = hashlib.sha256()
        for item in step.inputs:
            content = item.read_bytes() if isinstance(item, Path) else item.encode()
            digest.update(b"%d:" % len(content) + content)
        for name in step.needs:
            needed = self.folder / name
            digest.update(f"{needed.stat().st_mtime_ns if needed.exists() else 0}".encode())
        return digest.hexdigest()


def run_steps(steps: Sequence[Step], stamps: Stamps, logs: Path, environment: Mapping[str, str]) -> None:
    """Do what is not done yet, one printed line per step. Raises StepFailed with the lines to show."""
    for number, step in enumerate(steps, 1):
        if stamps.is_done(step):
            continue
        print(f"[{number}/{len(steps)}] {step.title} ...", end="", flush=True)
        start = time.monotonic()
        stamps.begin(step)
        log = Log(logs / f"{step.name}.log", environment)
        try:
            step.run(log)
        except (StepFailed, OSError) as error:
            print(" failed", flush=True)
            lines = [f"set-up: step {step.name!r} failed: {error}", *(f"    {line}" for line in log.tail())]
            raise StepFailed("\n".join([*lines, f"whole log: {log.path}", f"what to do: {step.advice}"])) from None
        stamps.finish(step)
        print(f" {time.monotonic() - start:.0f} s", flush=True)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Let one set-up at a time work in a folder: a second one waits, then finds everything done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up is at work in this folder; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
