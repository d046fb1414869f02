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


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """(process, watcher, rig): a node that tracks six live cameras, for all tests of a file."""
    import live_node

    folder, domain = tmp_path_factory.mktemp("live"), live_node.DOMAIN
    with live_node.watching(domain) as watcher, live_node.node_process(folder, domain) as process:
        rig = live_node.make_rig(watcher)
        rig.start()
        try:
            watcher.wait(lambda: watcher.ready, 60)
            watcher.wait(lambda: any(len(objects) for objects in watcher.tracks))
            yield process, watcher, rig
        finally:
            rig.stop()


@pytest.fixture
def watcher(stage):
    """Who hears the node of `stage`; afterwards all faults of the rig end."""
    process, watcher, rig = stage
    assert process.process.poll() is None, process.output()
    yield watcher
    rig.silent.clear()
    rig.corrupt.clear()
    rig.late_s.clear()
    rig.pose_silent = False
    rig.info = dict.fromkeys(rig.info, small_drive.MODEL)


@pytest.fixture
def rig(stage):
    return stage[2]
