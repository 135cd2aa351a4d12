"""Comba for PyTorch: closed-loop bilinear recurrences on CPUs and NVIDIA GPUs (arXiv 2506.02475).

`comba.ops` has the operators. Importing `comba` alone imports no torch, so that its tools start at once.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comba import ops as ops

__all__ = ["ops"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"comba.{name}")
    raise AttributeError(f"module 'comba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
