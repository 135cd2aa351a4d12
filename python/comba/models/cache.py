"""What generate() carries from token to token: one LayerState a layer."""

import torch
from transformers.cache_utils import Cache

from comba.nn import LayerState


class LayerStateCache(Cache):
    """The states of all layers. Those of recurrent layers and of sliding windows keep their size at any length.

    It cannot go back: crop() refuses, and with it assisted decoding.
    """

    is_compileable = False  # attention's part grows

    def __init__(self, layers: list[LayerState]):
        super().__init__(layers=layers)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read so far."""
        return self.layers[0].position

    def get_max_length(self, layer_idx: int = 0) -> int:
        return -1

    def num_bytes(self) -> int:
        return sum(layer.num_bytes() for layer in self.layers)

    def copy(self) -> "LayerStateCache":
        """A fork: two continuations of one prompt."""
        return LayerStateCache([layer.copy() for layer in self.layers])

    def apply(self, function) -> None:
        """Replaces each tensor [B, ...] of each layer by function(tensor)."""
        for layer in self.layers:
            layer.apply(function)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.apply(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.apply(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.apply(lambda tensor: tensor[indices])

    def crop(self, *_) -> None:
        raise NotImplementedError("[comba] a recurrent state cannot go back to fewer tokens (crop); keep a copy() instead")

    @property
    def is_croppable(self) -> bool:
        return False

    @property
    def is_initialized(self) -> bool:
        return True
