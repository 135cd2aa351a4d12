"""A model of the program's own making, small enough to be trained in a second."""

from apps.program import Program

RUN_FILE = """
[model]
hidden_size = 32
num_hidden_layers = 1
num_heads = 2
num_v_heads = 2
head_dim = 16
intermediate_size = 48
vocab_size = 264
initializer_range = 0.02

[train]
steps = 60
batch_size = 2
context_length = 32
learning_rate = 1e-2
warmup_steps = 5
checkpoint_interval = 60
threads = 1
"""


def train_small_run(program: Program) -> None:
    """Leaves texts, data and run in the program's folder."""
    texts = program.folder / "texts"
    texts.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):  # c.txt is held out
        (texts / name).write_text(f"The text of {name}. " * 20)
    (program.folder / "run.toml").write_text(RUN_FILE)
    program.succeed("data", "pack", "texts", "--out", "data")
    program.succeed("train", "--config", "run.toml", "--data", "data", "--out", "run")
