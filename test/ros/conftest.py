import os
from pathlib import Path

import pytest
import small_drive


@pytest.fixture(scope="session")
def drive(tmp_path_factory) -> Path:
    """A recorded drive without faults."""
    return small_drive.write_drive(tmp_path_factory.mktemp("drive") / "drive")


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / "tracker.yaml"
    path.write_text(small_drive.CONFIG)
    return path


@pytest.fixture
def domain(request) -> int:
    """A DDS domain that neither another test nor another run on this machine is likely to use."""
    return 101 + (os.getpid() + 7 * len(request.node.name)) % 39
