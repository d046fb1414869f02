"""A bar for long work; where nobody would see it, as in a log file, a line a minute."""

import io
import sys
import time

from tqdm import tqdm

SAY_EVERY = 60.0  # seconds between two lines
_LAYOUT, _ENDLESS = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left", "{desc}: {n_fmt} in {elapsed}"


def progress_bar(*args, **options) -> tqdm:
    """As tqdm(*args, **options) on stderr."""
    return tqdm(*args, **options) if sys.stderr.isatty() else _Lines(*args, **options)


class _Lines(tqdm):
    """Says how far it is in whole lines, the first after a minute."""

    def __init__(self, *args, **options):
        self._said_s = time.monotonic()
        super().__init__(*args, **options | {"file": io.StringIO()})  # nothing but what display says

    def display(self, msg=None, pos=None) -> bool:
        """What tqdm calls to draw the bar; once more when it ends, which is no news."""
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_EVERY and not self.disable:
            self._said_s = now_s
            layout = self.bar_format or (_LAYOUT if self.total else _ENDLESS)
            print(self.format_meter(**self.format_dict | {"bar_format": layout}), file=sys.stderr)
        return True
