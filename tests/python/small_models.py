"""Small models and reference checkpoints for the tests of comba.models."""

import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from comba import models

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "fla"
VOCAB = 64
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_heads": 2,
    "vocab_size": VOCAB,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
WINDOW = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 6}
CONFIGS = {
    "comba": lambda: models.CombaConfig(**SIZES, head_dim=16),
    "iplr without mlp": lambda: models.CombaConfig(**{**SIZES, "intermediate_size": 0}, head_dim=16, comba_rule="iplr"),
    "hybrid": lambda: models.CombaConfig(**SIZES, head_dim=16, attn={"layers": [1], "num_heads": 4}),
    "window hybrid": lambda: models.CombaConfig(**SIZES, head_dim=16, tie_word_embeddings=False, attn=WINDOW),
    "gated deltanet": lambda: models.GatedDeltaNetConfig(**SIZES, head_dim=16, expand_v=2, allow_neg_eigval=True),
    "transformer": lambda: models.TransformerConfig(**SIZES, qkv_bias=True),
}


def make(name: str):
    """A new model in eval mode, the same each time."""
    torch.manual_seed(11)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def random_ids(batch: int, length: int, seed: int = 7) -> torch.Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def relative_error(x: torch.Tensor, reference: torch.Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()
