"""Several processes of the program that train together, started as a launcher would."""

import os
import pathlib
import socket
import subprocess
import sys

from apps.training_run import TRAIN

TORCHRUN = pathlib.Path(sys.executable).parent / "torchrun"
# A batch that 1, 2 and 4 processes can share.
BATCH = ("--set", "train.batch_size=4")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """Without what a launcher around the tests may have said."""
    told = ("SLURM_", "MASTER_", "TORCHELASTIC_")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(told) and name not in names}
    return {**kept, "OMP_NUM_THREADS": "1"}


def meeting_place() -> dict[str, str]:
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def start_together(program, size: int, run: str, *arguments, of_rank=lambda rank: (), names=("RANK", "WORLD_SIZE")):
    """One process for each rank, with arguments of its own."""
    common = {**clean_environment(), **meeting_place()}
    return [
        subprocess.Popen(
            [program.path, *TRAIN, run, *BATCH, *arguments, *of_rank(rank)],
            cwd=program.folder,
            env={**common, names[0]: str(rank), names[1]: str(size)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ends_of(processes) -> tuple[list[int], str]:
    """Exit codes, and what all of them have written."""
    outputs = [process.communicate(timeout=60) for process in processes]
    return [process.returncode for process in processes], "".join(out + errors for out, errors in outputs)


def train_together(program, size: int, run: str, *arguments, **options) -> str:
    codes, text = ends_of(start_together(program, size, run, *arguments, **options))
    assert codes == [0] * size, text
    return text


def torchrun(program, size: int, run: str, *arguments) -> subprocess.Popen:
    command = [TORCHRUN, "--no-python", "--nproc-per-node", str(size), "--master-port", str(free_port())]
    return subprocess.Popen([*command, program.path, *TRAIN, run, *BATCH, *arguments], cwd=program.folder,
                            env=clean_environment(), stderr=subprocess.PIPE, text=True)


def errors_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("comba: error: ")]
