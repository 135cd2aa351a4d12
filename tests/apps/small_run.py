"""A model of the program's own making, small enough to be trained in a second."""

from apps.program import Program
from apps.training_run import RUN_FILE, TRAIN


def pack_small_texts(program: Program, repeats: int) -> None:
    """Leaves texts and data in the program's folder."""
    texts = program.folder / "texts"
    texts.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):  # c.txt is held out
        (texts / name).write_text(f"The text of {name}. " * repeats)
    program.succeed("data", "pack", "texts", "--out", "data")


def train_small_run(program: Program) -> None:
    """Leaves texts, data and run in the program's folder."""
    (program.folder / "run.toml").write_text(RUN_FILE)
    pack_small_texts(program, repeats=20)
    program.succeed(*TRAIN, "run", "--set", "train.checkpoint_interval=60")
