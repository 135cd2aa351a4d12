"""Finds libcomba_torch.so, the operators for PyTorch, and loads it once.

The first that exists: the file that the environment variable COMBA_TORCH_LIBRARY names, the one inside the installed
package, and build/release/lib of a source tree.
"""

import json
import os
import pathlib

import torch

NAME = "libcomba_torch.so"
PACKAGE = pathlib.Path(__file__).resolve().parent


def find() -> pathlib.Path:
    """The library's file. ImportError when there is none."""
    named = os.environ.get("COMBA_TORCH_LIBRARY")
    if named:
        path = pathlib.Path(named)
        if not path.is_file():
            raise ImportError(f"[comba] COMBA_TORCH_LIBRARY must name {NAME}; got {named}, which is no file")
        return path
    installed, built = PACKAGE / NAME, PACKAGE.parents[1] / "build" / "release" / "lib" / NAME
    for path in (installed, built):
        if path.is_file():
            return path
    raise ImportError(f"[comba] {NAME} is not there: neither {installed} nor {built}. In a source tree run `make build`; "
                      "elsewhere install the package, or name the file in COMBA_TORCH_LIBRARY")


def built_with(library: pathlib.Path) -> dict:
    """What the build noted beside the library: torch, cuda, version. Empty for a library that came alone."""
    note = library.with_suffix(".json")
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}


def check_torch(library: pathlib.Path, wanted: str | None, found: str) -> None:
    """ImportError unless `found` is the release of torch that the library was built with; +cpu and +cu130 are one."""
    if wanted and wanted.split("+")[0] != found.split("+")[0]:
        raise ImportError(f"[comba] torch must be {wanted.split('+')[0]}, which {library} was built with; got {found}. "
                          f"Install torch=={wanted.split('+')[0]}, or build comba again with this torch: "
                          "pip install --no-build-isolation .")


def register(library: pathlib.Path) -> None:
    """Makes its operators torch.ops.comba. ImportError when it was built with another torch, or is no such library."""
    check_torch(library, built_with(library).get("torch"), torch.__version__)
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise ImportError(f"[comba] {library} does not load into torch {torch.__version__}: {error}") from error


def load() -> None:
    """Finds and registers the operators, once a process."""
    if not hasattr(torch.ops.comba, "delta_rule"):
        register(find())
