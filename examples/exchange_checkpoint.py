"""Takes a model that the program `comba` trained to Python, rounds it to bf16, and gives it back at half the size.

python examples/exchange_checkpoint.py RUN OUT
comba eval --model OUT --data texts.data
"""

import sys

import torch
from transformers import AutoModelForCausalLM

import comba.models  # noqa: F401  AutoModelForCausalLM then knows Comba
from comba.checkpoints import model_directory
from comba.tokenizer import Tokenizer

run, out = sys.argv[1:]
checkpoint = model_directory(run)  # the newest of the run
model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
tokenizer = Tokenizer.from_pretrained(checkpoint)
prompt = torch.tensor([[tokenizer.bos, *tokenizer.encode("The text")]])
written = model.generate(prompt, max_new_tokens=40, do_sample=False)
print(tokenizer.decode(written[0].tolist()))

model.bfloat16().save_pretrained(out)
tokenizer.save_pretrained(out)  # the program writes and reads text with it
