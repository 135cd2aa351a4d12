"""A shared libcomba shows its interface and nothing else, needs the C++ runtime and nothing else, and serves a stranger."""

import os
import re
import shlex

import pytest

from rules import consumer, readme, tree

RUNTIME = re.compile(r"(?:libc|libm|libstdc\+\+|libgcc_s|libpthread|ld-linux[\w-]*)\.so\.\d+")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Installed by the README's commands."""
    folder = tmp_path_factory.mktemp("shared")
    places = {".": tree.ROOT, "build/library": folder / "build", "dir": folder / "installed"}
    commands = [shlex.split(c) for c in readme.commands() if c.startswith("cmake ")]
    assert len(commands) == 3
    for number, (_, *words) in enumerate(commands):
        flags = consumer.QUICK if number == 0 else []
        env = {**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
        consumer.run(consumer.CMAKE, *(places.get(word, word) for word in words), *flags, env=env)
    return folder / "installed"


@pytest.fixture(scope="module")
def library(prefix):
    return prefix / "lib" / "libcomba.so"


def dynamic_entries(library, kind: str) -> list[str]:
    return re.findall(rf"\({kind}\).*\[(.*)\]", consumer.run("readelf", "-d", library))


def exported(library) -> set[str]:
    """Names of the symbols, without their arguments."""
    lines = consumer.run("nm", "-D", "--defined-only", "-C", library).splitlines()
    return {re.sub(r"\[abi:\w+\]|\(.*", "", line.split(maxsplit=2)[2]) for line in lines}


def declared(header: str, text: str) -> set[str]:
    """Functions a public header marks for export, and what of a class with a table of virtual functions is shown."""
    namespace = "" if header.endswith("_c.h") else "comba::"
    text = tree.without_comments_and_strings(text)
    functions = {namespace + name for name in re.findall(r"^COMBA_API\s[^;(]*?(\w+)\(", text, re.MULTILINE)}
    classes = re.findall(r"^class COMBA_API (\w+)", text, re.MULTILINE)
    return functions | {f"{table} for comba::{name}" for name in classes for table in ("typeinfo", "typeinfo name", "vtable")}


def test_what_the_headers_mark_is_exported_and_nothing_else(library):
    headers = [f for f in tree.files() if f.startswith("include/comba/")]
    assert exported(library) == set().union(*(declared(h, tree.read(h)) for h in headers))


def test_the_name_holds_the_version_that_keeps_its_promises(library):
    major, minor, _ = re.search(r"project\(comba VERSION (\d+)\.(\d+)\.(\d+)", tree.read("CMakeLists.txt")).groups()
    assert dynamic_entries(library, "SONAME") == [f"libcomba.so.{major}.{minor}"]
    assert (library.parent / f"libcomba.so.{major}.{minor}").exists()


def test_it_needs_the_runtime_of_its_compiler_alone(library):
    needed = dynamic_entries(library, "NEEDED")
    assert needed and [name for name in needed if not RUNTIME.fullmatch(name)] == []
    assert dynamic_entries(library, "RUNPATH") == dynamic_entries(library, "RPATH") == []


def test_find_package_in_cpp(prefix, tmp_path):
    consumer.check_cpp(consumer.find_package_in_cpp(prefix, tmp_path))


def test_find_package_in_c(prefix, tmp_path):
    consumer.check_c(consumer.find_package_in_c(prefix, tmp_path))


def test_pkg_config_in_cpp(prefix, tmp_path):
    consumer.check_cpp(consumer.pkg_config(prefix, tmp_path, "c++"))


@pytest.mark.parametrize("header, line", [("comba/x.h", "COMBA_API int f(int x);"), ("comba/x_c.h", "COMBA_API const char* f(void);")])
def test_a_marked_function_is_seen(header, line):
    assert {name.removeprefix("comba::") for name in declared(header, line)} == {"f"}
