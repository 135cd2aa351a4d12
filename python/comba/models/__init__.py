"""Comba, Gated DeltaNet and transformer language models for Hugging Face transformers.

Importing this registers them: AutoConfig and AutoModelForCausalLM then read checkpoints of these families, those of the
program `comba` and of flash-linear-attention too.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from comba.models.cache import LayerStateCache
from comba.models.causal_lm import CombaForCausalLM, CombaModel, GatedDeltaNetForCausalLM, TransformerForCausalLM
from comba.models.config import CombaConfig, GatedDeltaNetConfig, TransformerConfig
from comba.models.optimizer import parameter_groups

for _config, _model in (
    (CombaConfig, CombaForCausalLM),
    (GatedDeltaNetConfig, GatedDeltaNetForCausalLM),
    (TransformerConfig, TransformerForCausalLM),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)

__all__ = [
    "CombaConfig",
    "CombaForCausalLM",
    "CombaModel",
    "GatedDeltaNetConfig",
    "GatedDeltaNetForCausalLM",
    "LayerStateCache",
    "TransformerConfig",
    "TransformerForCausalLM",
    "parameter_groups",
]
