"""Comba for PyTorch: closed-loop bilinear recurrences on CPUs and NVIDIA GPUs (arXiv 2506.02475).

`comba.ops` has the operators; `patch_transformers` puts the Gated DeltaNet layers of transformers on them, `patch_fla`
the layers of flash-linear-attention. Importing `comba` alone imports no torch, so that its tools start at once.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comba import ops as ops
    from comba._fla_layers import patch_fla as patch_fla
    from comba._transformers import patch_transformers as patch_transformers

_FUNCTIONS = {"patch_fla": "comba._fla_layers", "patch_transformers": "comba._transformers"}
__all__ = ["ops", *_FUNCTIONS]


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"comba.{name}")
    raise AttributeError(f"module 'comba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
