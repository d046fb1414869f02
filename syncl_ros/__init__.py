"""The ROS 2 side of SynCL-ROS."""

import os
import signal
import sys
from pathlib import Path

if sys.argv[:1] == ["-m"] or Path(sys.argv[0] if sys.argv else "").parent.name == __name__:
    # A program of this package starts. Until it takes over, after seconds of imports, Ctrl-C just ends it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP; environment.py says why
