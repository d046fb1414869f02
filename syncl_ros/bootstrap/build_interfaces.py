"""Build ROS 2 interface packages into the running virtual environment, from the ROS wheels and a C++ compiler.

usage: python build_interfaces.py FOLDER PACKAGE [PACKAGE ...]      sources are FOLDER/PACKAGE/{msg,srv,action}/*

Makes what the official build makes for C and Python: lib<package>__rosidl_<part>.so in the environment's lib/, found
through LD_LIBRARY_PATH, which the wheels set, and <package>_s__rosidl_typesupport_c.so beside the Python classes.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PREFIX = Path(sys.prefix)
SHARE, LIB, SITE = PREFIX / "share", PREFIX / "lib", Path(sysconfig.get_paths()["purelib"])
# Fast DDS publishes with typesupport_fastrtps_c; Jazzy's publishers also refuse a type without introspection.
PARTS = ("generator_c", "generator_py", "typesupport_c", "typesupport_fastrtps_c", "typesupport_introspection_c")
IMPLICIT = ("service_msgs", "builtin_interfaces", "action_msgs", "unique_identifier_msgs")  # of services, actions
RUNTIME = (
    "rosidl_runtime_c", "rosidl_typesupport_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_fastrtps_cpp",
    "rosidl_typesupport_introspection_c", "rcutils", "rmw", "fastcdr",
)  # fmt: skip


def build(source: Path, jobs: int) -> None:
    """Generate, compile and install the package whose definitions lie in `source`."""
    package = source.name
    found = [file for kind in ("msg", "srv", "action") for file in sorted((source / kind).glob(f"*.{kind}"))]
    files = [str(file.relative_to(source)) for file in found]
    with tempfile.TemporaryDirectory(prefix="interfaces_") as temporary:
        out = Path(temporary)
        os.chdir(source)
        folders, idl = generate(source, files, out)
        objects, entries = compile_sources(package, folders, out, jobs)
        link_libraries(source, files, objects, entries, folders["generator_py"])
        install_definitions(source, files, idl, folders["generator_c"])
    print(f"{package}: {len(files)} interfaces, {sum(map(len, objects.values()))} sources compiled")


def generate(source: Path, files: Sequence[str], out: Path) -> tuple[dict[str, Path], list[str]]:
    """Run the rosidl generators. Returns the folder of every part's sources, and the .idl files as "folder:name"."""
    from rosidl_cli.command.translate.api import translate
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    names = {"package_name": source.name, "include_paths": [str(SHARE)]}
    idl = translate(**names, interface_files=list(files), output_format="idl", output_path=out / "idl")
    idl = [str(file) for file in idl]
    shutil.copytree(source, out / "idl", dirs_exist_ok=True)  # the C generator embeds what lies beside the .idl
    folders = {part: out / part / source.name for part in PARTS}
    common = {**names, "interface_files": idl}
    describe = HashTypeDescription("type_description")
    hashes = describe.generate_type_hashes(**common, output_path=folders["generator_c"])
    GenerateC("c").generate(**common, output_path=folders["generator_c"], type_description_files=hashes)
    fastrtps = GenerateFastRTPSCTypesupport("fastrtps_c")
    fastrtps.generate(**common, output_path=folders["typesupport_fastrtps_c"])
    introspection = GenerateIntrospectionCTypesupport("introspection_c")
    introspection.generate(**common, output_path=folders["typesupport_introspection_c"])
    generate_with_templates(common, folders)
    return folders, idl


def generate_with_templates(common: dict, folders: dict[str, Path]) -> None:
    """The two generators that have no command-line class yet."""
    from rosidl_cli.command.helpers import legacy_generator_arguments_file
    from rosidl_generator_py import generate_py
    from rosidl_typesupport_c import generate_c

    fastrtps, introspection = "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"
    for run, template, part, typesupports in (
        (generate_py, "rosidl_generator_py", "generator_py", ["rosidl_typesupport_c"]),
        (generate_c, "rosidl_typesupport_c", "typesupport_c", [fastrtps, introspection]),
    ):
        paths = {"templates_path": SHARE / template / "resource", "output_path": folders[part]}
        with legacy_generator_arguments_file(**common, **paths) as arguments:
            run(arguments, typesupports)


def compile_sources(
    package: str, folders: dict[str, Path], out: Path, jobs: int
) -> tuple[dict[str, list[str]], list[str]]:
    """Compile every generated source. Returns the objects of every part, and those of the Python extension's entry."""
    import numpy

    include = [folder.parent for folder in folders.values()]
    include += [PREFIX / "include", *(p for p in (PREFIX / "include").iterdir() if p.is_dir())]
    include += [sysconfig.get_paths()["include"], numpy.get_include()]
    flags = ["-O1", "-fPIC", "-w", f'-DROS_PACKAGE_NAME="{package}"', *(f"-I{folder}" for folder in include)]
    (out / "objects").mkdir()

    def compile_one(file: Path) -> str:
        target = out / "objects" / (str(file.relative_to(out)).replace("/", "_") + ".o")
        compiler = ["g++", "-std=c++17"] if file.suffix == ".cpp" else ["gcc", "-std=gnu11"]
        subprocess.run([*compiler, *flags, "-c", str(file), "-o", str(target)], check=True)
        return str(target)

    # One entry file per type support; only that of rosidl_typesupport_c is generated, and it is linked by itself.
    entries = sorted(folders["generator_py"].glob("_*_s.ep.*.c"))
    with ThreadPoolExecutor(jobs) as pool:
        objects = {
            part: list(pool.map(compile_one, sorted({*folder.rglob("*.c"), *folder.rglob("*.cpp")} - set(entries))))
            for part, folder in folders.items()
        }
        return objects, list(pool.map(compile_one, entries))


def link_libraries(
    source: Path, files: Sequence[str], objects: dict[str, list[str]], entries: list[str], classes: Path
) -> None:
    """Link lib/lib<package>__rosidl_<part>.so and the Python extension, and install the Python classes."""
    package = source.name
    others = {name for file in files for name in re.findall(r"^(\w+)/\w+", (source / file).read_text(), re.MULTILINE)}
    needed = sorted((others | set(IMPLICIT)) - {package})
    foreign = [f"{d}__rosidl_{part}" for d in needed for part in PARTS if (LIB / f"lib{d}__rosidl_{part}.so").exists()]

    def link(target: Path, inputs: Iterable[str], own: Sequence[str], rpath: str) -> None:
        libraries = [*(f"{package}__rosidl_{part}" for part in own), *foreign, *RUNTIME]
        command = ["g++", "-shared", "-o", target, *inputs, f"-L{LIB}", "-Wl,--as-needed", f"-Wl,-rpath,{rpath}"]
        # libpython is not linked: its symbols come from the interpreter that loads the extension.
        subprocess.run([*map(str, command), *(f"-l{library}" for library in libraries)], check=True)

    for part in ("generator_c", *(part for part in PARTS if part != "generator_c")):
        own = [] if part == "generator_c" else ["generator_c"]
        link(LIB / f"lib{package}__rosidl_{part}.so", objects[part], own, "$ORIGIN")
    target = SITE / package
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(classes, target, ignore=shutil.ignore_patterns("*.c"))
    (target / "__init__.py").touch()
    extension = target / f"{package}_s__rosidl_typesupport_c.so"
    link(extension, entries, ["generator_py", "typesupport_c", "generator_c"], "$ORIGIN/../../..")


def install_definitions(source: Path, files: Sequence[str], idl: Sequence[str], hashes: Path) -> None:
    """Put the definitions and the package's markers where ROS tools look for them."""
    share = SHARE / source.name
    for folder, name in [(source, file) for file in files] + [tuple(item.rsplit(":", 1)) for item in idl]:
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder, name), share / name)
    for file in hashes.rglob("*.json"):
        shutil.copy(file, share / file.relative_to(hashes))
    for kind, content in (("rosidl_interfaces", "\n".join(files) + "\n"), ("packages", "")):
        index = SHARE / "ament_index" / "resource_index" / kind
        index.mkdir(parents=True, exist_ok=True)
        (index / source.name).write_text(content)


def main() -> None:
    os.environ.setdefault("AMENT_PREFIX_PATH", str(PREFIX))
    folder = Path(sys.argv[1]).resolve()
    for package in sys.argv[2:]:
        build(folder / package, os.cpu_count() or 1)


if __name__ == "__main__":
    main()
