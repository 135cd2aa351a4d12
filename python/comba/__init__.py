"""Comba for PyTorch: closed-loop bilinear recurrences on CPUs and NVIDIA GPUs (arXiv 2506.02475).

`comba.ops` has the operators, `comba.nn` the layers and `comba.models` the language models for transformers.
`patch_transformers` puts the Gated DeltaNet layers of transformers on the operators, `patch_fla` the layers of
flash-linear-attention. Importing `comba` alone imports neither torch nor transformers, so that its tools start at once.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comba import models as models
    from comba import nn as nn
    from comba import ops as ops
    from comba._fla_layers import patch_fla as patch_fla
    from comba._transformers import patch_transformers as patch_transformers

_FUNCTIONS = {"patch_fla": "comba._fla_layers", "patch_transformers": "comba._transformers"}
__all__ = ["models", "nn", "ops", *_FUNCTIONS]


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"comba.{name}")
    raise AttributeError(f"module 'comba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
