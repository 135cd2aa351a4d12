"""Trains a small Comba model on a text, byte by byte, lets it write, and saves it.

python examples/train.py TEXT OUT [STEPS]
"""

import math
import pathlib
import sys

import torch

from comba.models import CombaConfig, CombaForCausalLM, parameter_groups

text = torch.tensor(list(pathlib.Path(sys.argv[1]).read_bytes()))
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 300
device = "cuda" if torch.cuda.is_available() else "cpu"
sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_heads": 2, "head_dim": 64, "intermediate_size": 256}
model = CombaForCausalLM(CombaConfig(**sizes, vocab_size=257, initializer_range=0.02)).to(device)
optimizer = torch.optim.AdamW(parameter_groups(model), lr=3e-3, betas=(0.9, 0.95))
for step in range(1, steps + 1):
    starts = torch.randint(len(text) - 256, (8,))
    ids = torch.stack([text[start : start + 256] for start in starts]).to(device)  # [B, T]
    loss = model(ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 20 == 1 or step == steps:
        print(f"step {step}: {loss.item() / math.log(2):.3f} bits per byte")
model.save_pretrained(sys.argv[2])
prompt = text[:40][None].to(device)
written = model.eval().generate(prompt, max_new_tokens=200, do_sample=True, temperature=0.7, pad_token_id=256)
print(bytes(id for id in written[0].tolist() if id < 256).decode(errors="replace"))
