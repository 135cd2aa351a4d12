"""A small Qwen3-Next of transformers, its Gated DeltaNet layers first on transformers' own code, then on Comba's
operators: the same text, in less time. Needs transformers >= 5.17; nothing is downloaded."""

import argparse
import time

import torch
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

import comba


def small_model(hidden: int) -> Qwen3NextForCausalLM:
    """Random weights, four layers, three of them Gated DeltaNet."""
    torch.manual_seed(1)
    return Qwen3NextForCausalLM(
        Qwen3NextConfig(
            vocab_size=256,
            hidden_size=hidden,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            linear_num_key_heads=4,
            linear_num_value_heads=8,
            linear_key_head_dim=64,
            linear_value_head_dim=64,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=hidden,
            shared_expert_intermediate_size=hidden,
        )
    )


def training_step(model: Qwen3NextForCausalLM, ids: torch.Tensor) -> tuple[float, float]:
    """The loss, and the seconds of forward and backward."""
    start = time.perf_counter()
    loss = model(ids, labels=ids).loss
    loss.backward()
    model.zero_grad()
    return loss.item(), time.perf_counter() - start


def try_out(title: str, model: Qwen3NextForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    training_step(model, ids)
    loss, seconds = training_step(model, ids)
    print(f"{title}: loss {loss:.4f}, {seconds * 1e3:.0f} ms a training step of {ids.numel()} tokens")
    return model.generate(ids[:1, :32], max_new_tokens=16, do_sample=False, pad_token_id=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256, help="model width")
    parser.add_argument("--tokens", type=int, default=512, help="tokens a sequence")
    options = parser.parse_args()

    model = small_model(options.hidden)
    ids = torch.randint(0, 256, (2, options.tokens))
    before = try_out("transformers", model, ids)
    with comba.patch_transformers() as patch:
        print(patch)
        after = try_out("patched", model, ids)
    print("the same text" if torch.equal(before, after) else "another text: a tie fell to the other side by rounding")


if __name__ == "__main__":
    main()
