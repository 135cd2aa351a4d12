"""The files of this tree and what the rules need to read of them."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE_SUFFIXES = {".h", ".cpp", ".cuh", ".cu"}


def files() -> list[str]:
    """Paths of all files git tracks or would track, relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / name).is_file()})


def code_files(*folders: str) -> list[str]:
    return [f for f in files() if pathlib.Path(f).suffix in CODE_SUFFIXES and f.startswith(folders or "")]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


_NOT_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(?P<d>[^(\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'""", re.DOTALL
)


def without_comments_and_strings(text: str) -> str:
    """The code alone, with line numbers kept."""
    return _NOT_CODE.sub(lambda match: "\n" * match.group().count("\n"), text)


def includes(text: str) -> list[tuple[int, str, str]]:
    """(line, '"' or '<', path) of each #include."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            found.append((number, match[1], match[2]))
    return found
