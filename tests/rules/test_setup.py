"""scripts/setup: nothing to do takes no time; something to do is done by apt-get, or refused in one clear message."""

import os
import subprocess
import time

import pytest

from rules import tree


def stub(folder, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_setup(**env: str) -> subprocess.CompletedProcess:
    command = [tree.ROOT / "scripts" / "setup"]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **env})


def test_a_second_run_changes_nothing_and_takes_no_time():
    stamp = tree.ROOT / ".venv" / "comba-requirements.txt"
    before = stamp.stat().st_mtime_ns
    start = time.monotonic()
    result = run_setup()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert time.monotonic() - start < 3
    assert stamp.stat().st_mtime_ns == before


def with_stubs(folder, user_id: int, sudo: str) -> str:
    """A PATH on which no Debian package seems to be installed, and apt-get only notes what it was asked."""
    stub(folder, "id", f"echo {user_id}")
    stub(folder, "sudo", sudo)
    stub(folder, "dpkg-query", "exit 1")
    stub(folder, "apt-get", f'echo "$@" >> {folder}/asked')
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("user_id, sudo", [(0, "exit 1"), (1000, 'if [ "$1" = -n ]; then shift; fi; exec "$@"')])
def test_missing_debian_packages_are_installed(tmp_path, user_id, sudo):
    result = run_setup(PATH=with_stubs(tmp_path, user_id, sudo))
    assert result.returncode == 0, result.stderr
    asked = (tmp_path / "asked").read_text()
    assert "update" in asked and "install" in asked and "libgtest-dev" in asked and "libgloo-dev" in asked


def test_without_the_right_to_install_it_says_what_to_ask_for(tmp_path):
    result = run_setup(PATH=with_stubs(tmp_path, 1000, "exit 1"))
    assert result.returncode == 1
    assert "apt-get install" in result.stderr and "libgtest-dev" in result.stderr
    assert not (tmp_path / "asked").exists()


def test_without_that_right_it_goes_on_when_only_an_optional_package_is_missing(tmp_path):
    path = with_stubs(tmp_path, 1000, "exit 1")
    stub(tmp_path, "dpkg-query", 'for name; do case $name in -*|libgloo-dev) ;; *) printf "installed:%s " $name;; esac; done')
    result = run_setup(PATH=path)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == (
        "setup: going on without libgloo-dev: training in one process only (for more: apt-get install libgloo-dev)\n")
    assert not (tmp_path / "asked").exists()
