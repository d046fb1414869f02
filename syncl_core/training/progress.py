"""What a run says about itself: a progress bar, and rows of numbers as JSON lines and for TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from syncl_core.errors import InputError
from syncl_core.io.files import make_folder, write_text
from syncl_core.progress_bar import SAY_EVERY
from syncl_core.training.event_file import EventFile

LOG = "log.jsonl"


class Progress:
    """Of the leading process; `quiet` ones say nothing. Rows after iteration `first` that an earlier run wrote are
    removed, with `unscored` its scores of that iteration, too."""

    def __init__(self, folder: Path, first: int, iterations: int, quiet: bool = False, unscored: bool = False):
        self._quiet = quiet
        if quiet:
            return
        make_folder(folder)
        _keep_rows_until(folder / LOG, first, unscored)
        self._log = (folder / LOG).open("a", encoding="utf-8")
        self._events = EventFile(folder, purge_step=first + 1)
        self._first = self._done = first
        self._iterations = iterations
        self._began_s = self._said_s = time.monotonic()
        self._figures: dict[str, str] = {}
        self._bar = tqdm(total=iterations, initial=first, desc="train", unit="it", disable=None, dynamic_ncols=True)

    def step(self, seconds_waiting: float, seconds: float, shown: Mapping[str, float] | None) -> None:
        """One more iteration; `shown` are its numbers, if it is one of those that are logged."""
        if self._quiet:
            return
        if shown is not None:
            share = seconds_waiting / seconds if seconds else 0.0
            self._figures = {name: f"{value:.3g}" for name, value in _most_telling(shown).items()}
            self._bar.set_postfix(self._figures | {"data": f"{share:.0%}"}, refresh=False)
        self._bar.update()
        self._done += 1
        if self._bar.disable:
            self._say_now_and_then()

    def _say_now_and_then(self) -> None:
        """Where a file or a pipe takes what is said: a bar would fill it."""
        now_s = time.monotonic()
        if now_s - self._said_s < SAY_EVERY:
            return
        self._said_s = now_s
        left_s = (now_s - self._began_s) / (self._done - self._first) * (self._iterations - self._done)
        figures = "".join(f", {name} {value}" for name, value in self._figures.items())
        left = tqdm.format_interval(left_s)
        self.say(f"iteration {self._done} of {self._iterations}{figures}, {left} left; more in {self._log.name}")

    def record(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """A row of the log: `iteration` counts finished ones, numbers are exact, NaN is left out."""
        if self._quiet:
            return
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        try:
            self._log.write(json.dumps({"iteration": iteration, **numbers}) + "\n")
            self._log.flush()
            self._events.add(iteration, numbers)
        except OSError as error:
            raise InputError(f"{self._log.name}: cannot write it: {error.strerror}; --resume goes on later") from None

    def say(self, line: str) -> None:
        if not self._quiet:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if not self._quiet:
            self._bar.close()
            self._log.close()
            self._events.close()


def read_log(folder: Path) -> list[dict]:
    """The rows of a run's log. A last row cut short by a crash is left out."""
    rows = []
    for line in (folder / LOG).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _keep_rows_until(path: Path, first: int, unscored: bool) -> None:
    if path.is_file():
        kept = [row for row in read_log(path.parent) if row["iteration"] <= first]
        if unscored:
            kept = [row for row in kept if row["iteration"] < first or not any(key.startswith("eval/") for key in row)]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _most_telling(numbers: Mapping[str, float]) -> dict[str, float]:
    """For the bar: the whole loss, the filter's threshold, kept pairs per object, whatever else is short enough."""
    wanted = ("loss", "stats/delta", "stats/kept", "gradient_norm")
    return {name.split("/")[-1]: numbers[name] for name in wanted if name in numbers}
