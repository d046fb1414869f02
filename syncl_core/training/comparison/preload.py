"""What every process of the crew needs, imported once. Nothing here may start threads or touch a GPU."""

import contextlib
import unittest

import syncl_core.training.comparison.cost
import syncl_core.training.comparison.tasks  # noqa: F401

with contextlib.suppress(ImportError, unittest.SkipTest):  # who needs it says so
    import nuscenes.eval.detection.evaluate
    import nuscenes.eval.tracking.evaluate  # noqa: F401
