"""Where the tree is and where it was built, for every Python test."""

import os
import pathlib

import pytest

# The programs' threads wait by spinning; beside another busy program that makes every loop a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def build_dir() -> pathlib.Path:
    """The build to test: build/release, or the one COMBA_BUILD_DIR names."""
    path = ROOT / os.environ.get("COMBA_BUILD_DIR", "build/release")
    if not (path / "CMakeCache.txt").exists():
        pytest.fail(f"nothing is built in {path}: run make build")
    return path


@pytest.fixture(scope="session")
def comba_program(build_dir) -> pathlib.Path:
    program = build_dir / "bin" / "comba"
    if not program.exists():
        pytest.fail(f"the program is not built: {program}")
    return program
