import pytest

from apps.program import Program
from apps.training_run import RUN_FILE


@pytest.fixture
def comba(comba_program, tmp_path) -> Program:
    """The program, run in a folder of its own."""
    return Program(comba_program, tmp_path)


@pytest.fixture
def text_folder(tmp_path):
    """A few files to pack, one of them held out."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):  # c.txt is held out
        (folder / name).write_text(f"The text of {name}. " * 20)
    return folder


@pytest.fixture
def packed(comba, text_folder):
    """The program in a folder with a data set and a run file."""
    comba.succeed("data", "pack", text_folder, "--out", "data")
    (comba.folder / "run.toml").write_text(RUN_FILE)
    return comba
