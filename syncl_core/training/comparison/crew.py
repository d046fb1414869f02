"""Tasks in processes of their own, some at a time. Who stops the crew gets runs that saved themselves.

Processes are forked from one that has torch loaded and nothing else done, so each starts at once and with memory of its
own. A process holds the end of a pipe: when this end closes, even because its owner was killed, it saves and stops.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from syncl_core.errors import InputError, one_line
from syncl_core.io.files import make_folder, write_text
from syncl_core.io.folder_lock import locked

ERROR, RUN_LOG = "error.txt", "run.log"
_STOPPED = 130
_LOOK_EVERY = 0.5  # seconds between two looks at the progress


class Task(Protocol):
    name: str
    folder: Path

    def run(self, device: str) -> bool:
        """Do it on a device; False if it was interrupted. Raises InputError."""


@dataclass(frozen=True, slots=True)
class _Member:
    task: Task
    slot: int
    process: multiprocessing.Process
    leash: Connection


def conduct(
    tasks: Sequence[Task],
    jobs: int,
    device_of: Callable[[int], str],  # by slot, 0 to jobs - 1
    on_look: Callable[[Sequence[Task]], None] = lambda working: None,  # twice a second and after every end
) -> dict[str, str]:
    """Run all tasks; returns why some of them broke, by name. An exception, as Ctrl-C, stops all, then goes on up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["syncl_core.training.comparison.preload"])
    waiting, working, broken = deque(tasks), [], {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                slot = min(set(range(jobs)) - {member.slot for member in working})
                working.append(_start(context, waiting.popleft(), slot, device_of(slot), jobs))
            on_look([member.task for member in working])
            ended = wait([member.process.sentinel for member in working], _LOOK_EVERY)
            for member in [m for m in working if m.process.sentinel in ended]:
                working.remove(member)
                if reason := _reason(member):
                    broken[member.task.name] = reason
        on_look([])
    except BaseException:
        _stop(working)
        raise
    return broken


def threads_each(jobs: int) -> int:
    """CPU threads of a process, so that together they have the machine once. OMP_NUM_THREADS goes first."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdigit() and int(given) else max(1, cores // jobs)


def _start(context, task: Task, slot: int, device: str, jobs: int) -> _Member:
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, device, threads_each(jobs), theirs))
    process.start()
    theirs.close()
    return _Member(task, slot, process, ours)


def _reason(member: _Member) -> str:
    """Why the process ended badly, which its folder then says, too; "" if it did not."""
    member.process.join()
    member.leash.close()
    code, path = member.process.exitcode, member.task.folder / ERROR
    if not code:
        return ""
    if code == _STOPPED:
        reason = "was stopped from outside; start again to go on"
    elif code < 0:
        reason = f"was ended by signal {-code}; did the memory run out?"
    elif path.is_file():
        return path.read_text(encoding="utf-8").strip()
    else:
        reason = f"ended with code {code}; see {member.task.folder / RUN_LOG}"
    write_text(path, reason + "\n")
    return reason


def _stop(working: list[_Member]) -> None:
    """Let all save and stop; a second Ctrl-C ends them at once."""
    for member in working:
        member.leash.close()
    try:
        for member in working:
            member.process.join()
    except KeyboardInterrupt:
        for member in working:
            member.process.kill()
        for member in working:
            member.process.join()


def _work(task: Task, device: str, threads: int, leash: Connection) -> None:
    """What a process of the crew does."""
    import torch

    os.setsid()  # Ctrl-C is for the one who has the leash
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_obey, args=(leash,), daemon=True).start()
    make_folder(task.folder)
    log = os.open(task.folder / RUN_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(threads)
    try:
        with locked(task.folder, patient=True):  # one that was orphaned may still be saving
            (task.folder / ERROR).unlink(missing_ok=True)
            code = 0 if task.run(device) else _STOPPED
    except KeyboardInterrupt:
        code = _STOPPED
    except InputError as error:
        code = _say(task, str(error))
    except BaseException as error:
        traceback.print_exc()
        said = one_line(error)[:300]
        code = _say(task, f"{type(error).__name__}: {said}; see {task.folder / RUN_LOG}")
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _say(task: Task, line: str) -> int:
    print(line, file=sys.stderr)
    write_text(task.folder / ERROR, line + "\n")
    return 1


def _obey(leash: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        leash.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
