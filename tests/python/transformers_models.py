"""Tiny random models of transformers with Gated DeltaNet layers, for the tests of comba.patch_transformers."""

import torch
import transformers

COMMON = dict(
    vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=24,
    layer_types=["linear_attention", "full_attention", "linear_attention"], pad_token_id=0, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32)
CONFIGS = {
    "qwen3_next": ("Qwen3NextConfig", "Qwen3NextForCausalLM", {"head_dim": 16, **EXPERTS}),
    "qwen3_5": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM", {"head_dim": 16}),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", "Qwen3_5MoeForCausalLM", {"head_dim": 16, **EXPERTS}),
    "olmo_hybrid": ("OlmoHybridConfig", "OlmoHybridForCausalLM", {}),
}


def tiny(name: str, **changes) -> torch.nn.Module:
    """The same weights for the same name, in fp32 and evaluation mode."""
    config, model, own = CONFIGS[name]
    torch.manual_seed(1)
    model = getattr(transformers, model)(getattr(transformers, config)(**{**COMMON, **own, **changes}))
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def padded_batch(tokens: int = 150) -> dict:
    """Two rows of random ids, the first padded on the left."""
    ids = torch.randint(1, COMMON["vocab_size"], (2, tokens), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, :20] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}
