"""Runs the program as a shell would."""

import pathlib
import re
import subprocess


class Program:
    def __init__(self, path: pathlib.Path, folder: pathlib.Path):
        self.path = path
        self.folder = folder

    def __call__(self, *arguments, **options) -> subprocess.CompletedProcess:
        command = [self.path, *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, **options)

    def succeed(self, *arguments, **options) -> str:
        result = self(*arguments, **options)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        return result.stdout

    def fail(self, exit_code: int, *arguments, **options) -> str:
        """The error message, which must be one line and all that is printed."""
        result = self(*arguments, **options)
        assert result.returncode == exit_code, f"{arguments}: {result.returncode}, {result.stdout}{result.stderr}"
        assert result.stdout == ""
        assert re.fullmatch(r"comba: error: [^\n]+\n", result.stderr), result.stderr
        return result.stderr
