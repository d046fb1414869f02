"""The package is what its files say: metadata, pins, interfaces, and who may import whom."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from setuptools.dist import Distribution

from syncl_core.errors import InputError
from syncl_core.shipped import shipped_weights
from syncl_ros import environment

ROOT = Path(__file__).resolve().parents[2]
INTERFACES = ROOT / "syncl_core" / "io" / "interfaces"
BOOTSTRAP = ROOT / "syncl_ros" / "bootstrap"
ROS_PACKAGES = "ament_index_python cv_bridge launch launch_ros message_filters rclpy rosidl_runtime_py tf2_ros".split()


@pytest.fixture(scope="module")
def distribution() -> Distribution:
    from distutils.core import run_setup  # setuptools brings it where Python no longer does

    before = os.getcwd()
    os.chdir(ROOT)
    try:
        return run_setup("setup.py", stop_after="init")
    finally:
        os.chdir(before)


@cache
def _package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@cache
def _imports(path: Path) -> frozenset[str]:
    """Absolute module names imported anywhere in a file."""
    return _imported_by(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), path)


@cache
def _imports_at_start(path: Path) -> frozenset[str]:
    """Absolute module names without which a file cannot be imported."""
    return _imported_by(_run_at_start(ast.parse(path.read_text(encoding="utf-8"))), path)


def _run_at_start(node: ast.AST) -> Iterator[ast.AST]:
    """What lies outside functions, and outside `try` and `with`, which may forgive an ImportError."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try | ast.With):
            yield child
            yield from _run_at_start(child)


def _imported_by(nodes: Iterable[ast.AST], path: Path) -> frozenset[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _is_ros(module: str) -> bool:
    top = module.split(".")[0]
    return top in ROS_PACKAGES or top.endswith(("_msgs", "_srvs", "_interfaces"))


@pytest.mark.parametrize(
    "importer, forbidden",
    [
        ("syncl_core", "syncl_ros"),
        ("syncl_core/models", "syncl_core.losses|syncl_core.data|syncl_core.tracking"),
        # Losses read what an observation holds and how boxes and votes are coded; they know no network.
        (
            "syncl_core/losses",
            r"syncl_core.data|syncl_core.runtime|syncl_core.training|syncl_core.models.(?!box_code|heads|lift|votes)\w+"
            r"|syncl_core.tracking.(?!base)\w+",
        ),
        ("syncl_core/tracking", "syncl_core.losses|syncl_core.data|syncl_core.runtime|syncl_core.io"),
        ("syncl_core/runtime", "syncl_core.models|syncl_core.tracking|syncl_core.losses"),
    ],
)
def test_import_law(importer, forbidden):
    pattern = re.compile(rf"^({forbidden.replace('.', '[.]')})([.]|$)")
    for path in (ROOT / importer).rglob("*.py"):
        assert not [name for name in _imports(path) if pattern.match(name)], path


def test_the_core_knows_no_ros():
    files = list((ROOT / "syncl_core").rglob("*.py"))
    assert len(files) > 20
    for path in files:
        assert not [name for name in _imports(path) if _is_ros(name)], path


def test_package_xml_names_every_ros_package_in_use():
    depends = {d.text for kind in ("exec_depend", "depend") for d in _package_xml().iter(kind)}
    used = {
        name.split(".")[0]
        for folder in ("syncl_ros", "launch")
        for path in (ROOT / folder).rglob("*.py")
        for name in _imports(path)
        if _is_ros(name) and path.parent != BOOTSTRAP
    }
    assert {"rclpy", "sensor_msgs", "vision_msgs"} <= used
    assert {name.replace("tf2_ros", "tf2_ros_py") for name in used} <= depends


def test_package_xml_and_setup_py_agree(distribution):
    xml, meta = _package_xml(), distribution.metadata
    assert xml.get("format") == "3"
    assert (xml.findtext("name"), xml.findtext("version")) == (meta.name, meta.version)
    assert xml.find("license").text == meta.license == "Apache-2.0"
    assert xml.find("maintainer").get("email") == meta.maintainer_email
    assert xml.findtext("export/build_type") == "ament_python"


def test_licences_of_the_interfaces_are_shipped(distribution):
    readme = (INTERFACES / "README.md").read_text(encoding="utf-8")
    licences = dict(re.findall(r"^\| `(\w+)`.*\| ([\w.-]+) \|$", readme, re.MULTILINE))
    assert licences.keys() == {folder.name for folder in INTERFACES.iterdir() if folder.is_dir()}
    stated = {licence.text: licence.get("file") for licence in _package_xml().iter("license")}
    assert stated.keys() == set(licences.values())
    assert all((ROOT / file).is_file() for file in stated.values())
    installed = {file for p in distribution.package_data["syncl_core.io"] for file in INTERFACES.parent.glob(p)}
    for folder, licence in licences.items():
        if licence != "Apache-2.0":  # that is the project's own, which every wheel carries
            assert {INTERFACES / folder / "LICENSE", ROOT / stated[licence]} <= installed


def test_package_xml_is_valid():
    parse_package = pytest.importorskip("catkin_pkg.package").parse_package
    warnings: list[str] = []
    parse_package(str(ROOT / "package.xml"), warnings=warnings)  # raises on an invalid file
    assert warnings == []


def test_every_folder_with_python_is_a_listed_package(distribution):
    folders = {path.parent for room in ("syncl_core", "syncl_ros") for path in (ROOT / room).rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(distribution.packages)


def test_commands_exist_and_ros2_run_finds_them(distribution):
    for entry in distribution.entry_points["console_scripts"]:
        module, function = entry.split("=")[1].strip().split(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, entry
    assert distribution.get_option_dict("install")["install_scripts"][1] == "$base/lib/syncl_ros"
    assert distribution.get_option_dict("develop")["script_dir"][1] == "$base/lib/syncl_ros"


def test_shared_files_are_installed(distribution):
    files = {target: names for target, names in distribution.data_files}
    assert files["share/ament_index/resource_index/packages"] == ["syncl_ros/resource/syncl_ros"]
    assert "package.xml" in files["share/syncl_ros"]
    assert environment.PROFILE in files["share/syncl_ros/config"]
    assert f"config/weights/{shipped_weights().name}" in files["share/syncl_ros/config/weights"]
    assert all((ROOT / name).is_file() for names in files.values() for name in names)


def _pins(name: str) -> list[Requirement]:
    lines = (BOOTSTRAP / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("file", ["requirements.txt", "requirements-test.txt", "ros-jazzy.txt", "ros-kilted.txt"])
def test_pins_are_exact_and_unique(file, version):
    valid = [r for r in _pins(file) if not r.marker or r.marker.evaluate({"python_version": version})]
    assert all(re.fullmatch(r"==[0-9][0-9.]*", str(r.specifier)) for r in valid)
    names = [_canonical(r.name) for r in valid]
    assert len(names) == len(set(names)) > 2


def test_pins_are_complete():
    """pip installs the lists with --no-deps: what a listed package needs must be listed too."""
    lists = ("requirements.txt", "requirements-test.txt", "ros-jazzy.txt")
    pinned = {_canonical(r.name): r for name in lists for r in _pins(name)}
    known = pinned.keys() | {"torch", "pip", "setuptools", "wheel"}
    checked = 0
    cpu_torch = ["torch"] if metadata.version("torch").endswith("+cpu") else []  # a CUDA build brings its own needs
    for name in [*pinned, *cpu_torch]:
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another Python version's package, or a sourced ROS 2
        checked += 1
        needed = [r for r in map(Requirement, requires) if not r.marker or r.marker.evaluate({"extra": ""})]
        assert {_canonical(r.name) for r in needed} <= known, name
    assert checked > 30


def test_bags_and_metrics_start_without_torch():
    """torch takes seconds to import; a player, a recorder or an evaluation has no use for it."""
    modules = "syncl_core.io.scene_to_bag, syncl_core.io.track_bag, syncl_core.evaluation.tracking"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_third_party_imports_are_pinned():
    pinned = {_canonical(r.name) for name in ("requirements.txt", "requirements-test.txt") for r in _pins(name)}
    distributions = metadata.packages_distributions()
    for room in ("syncl_core", "test/core"):
        for path in (ROOT / room).rglob("*.py"):
            local = {p.stem for p in path.parent.iterdir()} | {"syncl_core", "syncl_ros"}
            for top in {name.split(".")[0] for name in _imports(path)} - sys.stdlib_module_names - local:
                known = pinned | {
                    "torch",
                    "setuptools",
                    "catkin-pkg",
                    "distutils",
                }  # the last is setuptools' from 3.12 on
                assert {_canonical(d) for d in distributions.get(top, [top])} & known, f"{path}: {top}"


# These take the devkit apart; functions of others import them, after they have looked whether it is there.
OF_THE_DEVKIT = {"syncl_core.evaluation.events", "syncl_core.evaluation.quick"}


def test_what_is_imported_at_start_is_installed(distribution):
    """torch, which the user chooses, and ROS besides: whatever else a module needs to start, pip must bring."""
    required = {_canonical(Requirement(line).name) for line in distribution.install_requires}
    distributions = metadata.packages_distributions()
    for path in (path for room in ("syncl_core", "syncl_ros") for path in (ROOT / room).rglob("*.py")):
        if path.parent == BOOTSTRAP or ".".join(path.relative_to(ROOT).with_suffix("").parts) in OF_THE_DEVKIT:
            continue
        names = _imports_at_start(path)
        assert not names & OF_THE_DEVKIT, path
        tops = {name.split(".")[0] for name in names if not _is_ros(name)}
        for top in tops - sys.stdlib_module_names - {"syncl_core", "syncl_ros", "torch"}:
            assert {_canonical(d) for d in distributions.get(top, [top])} & required, f"{path}: {top}"


ROS_PLUGINS = {  # what pytest 9 refuses of launch_testing and launch_testing_ros: a hook's argument, an undeclared hook
    "launch_testing": "def pytest_pycollect_makemodule(path, parent): pass",
    "launch_ros": "def pytest_launch_collect_makemodule(path, parent, entrypoint): pass",
}


def test_the_tests_run_where_a_ros_is_sourced(tmp_path):
    """Its PYTHONPATH brings plugins that pytest loads by itself."""
    for name, hook in ROS_PLUGINS.items():
        (tmp_path / f"the_{name}.py").write_text(hook)
        information = tmp_path / f"{name}-3.4.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.4.0\n")
        (information / "entry_points.txt").write_text(f"[pytest11]\n{name} = the_{name}\n")
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass")
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "--collect-only", "-q", tmp_path / "test_nothing.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0 and "1 test collected" in result.stdout, result.stdout + result.stderr


OFFICIAL_TYPE_HASHES = {
    "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
}


@pytest.mark.parametrize("name", OFFICIAL_TYPE_HASHES)
def test_interfaces_are_the_official_ones(name):
    store = get_typestore(Stores.EMPTY)
    jazzy = get_typestore(Stores.ROS2_JAZZY)
    types = {
        kind: jazzy.fielddefs[kind] for kind in jazzy.fielddefs if not kind.startswith(("vision_msgs", "tf2_msgs"))
    }
    for file in INTERFACES.rglob("*.msg"):
        types.update(get_types_from_msg(file.read_text(), f"{file.parts[-3]}/msg/{file.stem}"))
    store.register(types)
    assert store.hash_rihs01(name) == f"RIHS01_{OFFICIAL_TYPE_HASHES[name]}"


def test_the_profile_holds_whole_images():
    namespace = {"d": "http://www.eprosima.com"}
    root = ElementTree.parse(ROOT / environment.PROFILE).getroot()
    memory = root.find(".//d:transport_descriptor[d:type='SHM']", namespace)
    image = 1600 * 900 * 3
    assert int(memory.findtext("d:maxMessageSize", namespaces=namespace)) > image + 1024
    assert int(memory.findtext("d:segment_size", namespaces=namespace)) > 8 * image
    offered = {node.text for node in root.iterfind(".//d:transport_descriptor/d:transport_id", namespace)}
    assert offered == {node.text for node in root.iterfind(".//d:userTransports/d:transport_id", namespace)}


PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def test_a_machine_that_keeps_to_itself_has_the_same_profile_for_its_own_address_alone():
    texts = [(ROOT / name).read_text() for name in (environment.PROFILE, environment.LOCAL_PROFILE)]
    parts = [list(ElementTree.fromstring(text).iter()) for text in texts]
    values = [[(part.tag.split("}")[1], (part.text or "").strip()) for part in each] for each in parts]
    assert [value for value in values[1] if value not in values[0]] == [
        ("interfaceWhiteList", ""),
        ("address", "127.0.0.1"),
    ]
    assert [value for value in values[1] if value in values[0]] == values[0]


@pytest.mark.parametrize(("distro", "own"), [("humble", True), ("jazzy", False)])
def test_humble_keeps_to_itself_if_told(monkeypatch, distro, own):
    for name in (*PROFILES, "FASTDDS_BUILTIN_TRANSPORTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DISTRO", distro)
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    profile = environment.LOCAL_PROFILE if own else environment.PROFILE
    assert environment.missing_environment()[PROFILES[0]] == str(ROOT / profile)


def test_transports_of_the_users_stay(monkeypatch):
    """A profile would switch them off without a word, and what another machine sends would not be heard."""
    for name in PROFILES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    assert not set(PROFILES) & set(environment.ros_environment())


def test_environment_for_ros_processes(monkeypatch):
    for name in (*PROFILES, "FASTDDS_BUILTIN_TRANSPORTS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    ours = environment.ros_environment(domain_id=7)
    assert ours["ROS_DOMAIN_ID"] == "7" and ours["OMP_WAIT_POLICY"] == "PASSIVE"
    assert ours["FASTRTPS_DEFAULT_PROFILES_FILE"] == ours["FASTDDS_DEFAULT_PROFILES_FILE"]
    assert Path(ours["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    theirs = environment.ros_environment()
    assert theirs["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml" and "FASTDDS_DEFAULT_PROFILES_FILE" not in theirs


def test_a_missing_shared_file_is_named():
    with pytest.raises(InputError, match=r"^config/no_such.yaml: not in .*"):
        environment.share_file("config/no_such.yaml")
