"""A project may add this tree to its own: it gets the library, and nothing of its own changes."""

import re

import pytest

from rules import consumer, tree

# What project() and find_package() leave behind, whoever calls them.
USUAL = re.compile(r"CMAKE_PROJECT_VERSION\w*|CMAKE_HAVE_LIBC_PTHREAD|FIND_PACKAGE_MESSAGE_DETAILS_\w+|comba_(?:SOURCE_DIR|BINARY_DIR|IS_TOP_LEVEL)")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    (folder / "CMakeLists.txt").write_text((consumer.FOLDER / "parent" / "CMakeLists.txt").read_text())
    consumer.write_readme_example(folder)
    consumer.build_with_cmake(folder, folder / "build", f"-DCOMBA_TREE={tree.ROOT}", *consumer.QUICK)
    return folder / "build"


def variables(file) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Variables of the parent that are not as they were, and new ones that do not carry our name."""
    ours = {name for name in after.keys() - before.keys() if name.startswith("COMBA_") or USUAL.fullmatch(name)}
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - ours


def test_the_program_of_the_parent_runs(build):
    consumer.check_cpp(consumer.run(build / "example"))


def test_the_parent_keeps_its_variables(build):
    before, after = variables(build / "before.txt"), variables(build / "after.txt")
    assert len(before) > 100
    assert changed(before, after) == set()


def test_only_the_library_is_built_and_nothing_installed(build, tmp_path):
    after = variables(build / "after.txt")
    assert (after["COMBA_TORCH"], after["COMBA_TESTS"], after["COMBA_INSTALL"]) == ("OFF", "OFF", "OFF")
    consumer.run(consumer.CMAKE, "--install", build, "--prefix", tmp_path)
    assert list(tmp_path.rglob("*comba*")) == []


def test_changed_variables_are_seen():
    before = {"CMAKE_BUILD_TYPE": "", "A": "1"}
    after = {"CMAKE_BUILD_TYPE": "Release", "A": "1", "CMAKE_CXX_STANDARD": "20", "COMBA_TORCH": "OFF"}
    assert changed(before, after) == {"CMAKE_BUILD_TYPE", "CMAKE_CXX_STANDARD"}
