"""What a layer remembers between two calls on the same token streams."""

import torch


class LayerState:
    """The memory of one layer: named tensors with the batch in their first dimension, and how many tokens made them.

    A mixer makes its own with `initial_state(batch)` and advances it, the recurrent state in place: `copy()` forks.
    """

    def __init__(self, position: int = 0, **tensors: torch.Tensor):
        self.position = position
        self.tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        self.tensors[name] = tensor

    def apply(self, function) -> None:
        """Replaces each tensor [B, ...] by function(tensor)."""
        self.tensors = {name: function(tensor) for name, tensor in self.tensors.items()}

    def copy(self) -> "LayerState":
        return LayerState(self.position, **{name: tensor.clone() for name, tensor in self.tensors.items()})

    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())
