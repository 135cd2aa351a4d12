"""comba train in several processes: the result of one, and one end for all."""

import json
import math
import shutil
import signal
import socket
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from apps.together import BATCH, clean_environment, ends_of, errors_in, start_together, torchrun, train_together
from apps.training_run import LAST, RUN_FILE, TRAIN, steps_logged, weights

ENDLESS = ("--set", "train.steps=100000")


@pytest.fixture(autouse=True)
def gloo(comba):
    if "no Gloo" in comba.succeed("--version"):
        pytest.skip("this build has no Gloo")


@pytest.fixture
def alone(packed):
    """The run that one process makes."""
    packed.succeed(*TRAIN, "alone", *BATCH, env=clean_environment())
    return packed


def expect_same_model(program, run: str, expected: str) -> None:
    """60 steps amplify roundings; a mistake in one step is larger than all of that."""
    for file, tolerance in (("model", 1e-3), ("optimizer", 1e-2)):
        a, b = (load_file(program.folder / name / LAST / f"{file}.safetensors") for name in (run, expected))
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].shape == b[name].shape
            assert abs(a[name] - b[name]).max() <= tolerance * abs(b[name]).max(), name


def losses(program, run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (program.folder / run / "metrics.jsonl").read_text().splitlines()]


def wait_for_steps(program, run: str, processes, enough: int = 10) -> None:
    metrics = program.folder / run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() or metrics.read_text().count("\n") < enough:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), "no steps made"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [2, 4])
def test_torchrun_gives_what_one_process_gives(alone, size):
    process = torchrun(alone, size, "run", "--set", "train.evaluation_interval=20", "--set", "train.sample_interval=30", "--diagnostics", "60")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"{size} processes, each with 1 thread\n" in errors
    assert errors.count("saved run/checkpoint-000060") == 1
    expect_same_model(alone, "run", "alone")
    lines = (alone.folder / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 61))
    assert len(lines) == 60 + 3 + 2 + 2
    assert all(math.isclose(a["loss"], b, rel_tol=1e-4) for a, b in zip(steps, losses(alone, "alone"), strict=True))
    # Once more, and as Slurm starts processes: the same bits.
    train_together(alone, size, "again", names=("SLURM_PROCID", "SLURM_NTASKS"))
    assert weights(alone, "again") == weights(alone, "run")


def test_a_label_counts_alike_whichever_process_has_it(comba):
    """Records of which some are nearly all prompt: processes have different numbers of labels."""
    records = [{"prompt": "What is it? " * (1 + 3 * (i % 3)), "text": f"It is {i}. " * (1 + 3 * (i % 2))} for i in range(60)]
    (comba.folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    comba.succeed("data", "pack", "records.jsonl", "--prompt-field", "prompt", "--out", "data")
    (comba.folder / "run.toml").write_text(RUN_FILE)
    steps = ("--set", "train.steps=10")
    comba.succeed(*TRAIN, "alone", *BATCH, *steps, env=clean_environment())
    for size in (2, 4):
        train_together(comba, size, f"run{size}", *steps)
        pairs = zip(losses(comba, f"run{size}"), losses(comba, "alone"), strict=True)
        assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("before, after", [(2, 1), (1, 4), (4, 2), (2, 2)])
def test_any_number_of_processes_goes_on_from_a_checkpoint(alone, before, after):
    train_together(alone, before, "run", "--set", "train.keep_checkpoints=99")
    final = weights(alone, "run")
    for checkpoint in (alone.folder / "run").glob("checkpoint-*"):
        if int(checkpoint.name[-6:]) > 28:
            shutil.rmtree(checkpoint)
    text = train_together(alone, after, "run", "--resume")
    assert "going on after step 28" in text
    assert (f"made with {before} processes, this run has {after}" in text) == (before != after)
    assert steps_logged(alone, "run") == list(range(1, 61))
    expect_same_model(alone, "run", "alone")
    if before == after:
        assert weights(alone, "run") == final


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(packed, rank):
    processes = start_together(packed, 2, "run", *ENDLESS)
    wait_for_steps(packed, "run", processes)
    processes[rank].send_signal(signal.SIGTERM)
    codes, text = ends_of(processes)
    assert codes == [128 + signal.SIGTERM] * 2, text
    assert text.count("everything is saved in run (continue with --resume)") == 1
    assert errors_in(text) == []
    last = max(steps_logged(packed, "run"))
    assert f"stopped after step {last};" in text
    assert (packed.folder / f"run/checkpoint-{last:06}").exists()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_process_ends_all_and_loses_nothing(packed, rank):
    processes = start_together(packed, 3 if rank else 2, "run", *ENDLESS, *(("--set", "train.batch_size=3") if rank else ()))
    wait_for_steps(packed, "run", processes)
    start = time.monotonic()
    processes[rank].kill()
    codes, text = ends_of(processes)
    assert time.monotonic() - start < 20
    assert sorted(codes) == [-signal.SIGKILL] + [1] * (len(processes) - 1)
    assert len(errors_in(text)) == 1, text
    assert f"lost process {rank} of {len(processes)}" in text and "--resume" in text
    assert "frame #" not in text  # no stack of LibTorch's
    newest = max(int(path.name[-6:]) for path in (packed.folder / "run").glob("checkpoint-*"))
    packed.succeed("eval", "--model", f"run/checkpoint-{newest:06}", "--data", "data")


def test_torchrun_passes_a_signal_on_and_everything_is_saved(packed):
    process = torchrun(packed, 2, "run", *ENDLESS)
    wait_for_steps(packed, "run", [process])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("everything is saved in run (continue with --resume)") == 1
    assert errors_in(errors) == []
    assert (packed.folder / f"run/checkpoint-{max(steps_logged(packed, 'run')):06}").exists()


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 2])
def test_torchrun_ends_when_a_process_is_killed(packed, rank):
    process = torchrun(packed, 4, "run", *ENDLESS)
    wait_for_steps(packed, "run", [process])
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    subprocess.run(["kill", "-KILL", children.split()[rank]], check=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors_in(errors)) == 1, errors
    assert f"lost process {rank} of 4 (ranks count from 0)" in errors_in(errors)[0]


def one_error(program, size: int, *arguments, run: str = "run", **options) -> tuple[list[int], str]:
    codes, text = ends_of(start_together(program, size, run, *arguments, **options))
    assert len(errors_in(text)) == 1, text
    assert "frame #" not in text
    return codes, errors_in(text)[0]


def test_an_error_of_all_is_told_once(packed):
    codes, error = one_error(packed, 4, "--set", "train.batch_size=6")
    assert codes == [2] * 4
    assert "batch_size must be a multiple of the number of processes (4); got 6" in error
    codes, error = one_error(packed, 2, "--set", "train.batchsize=6")
    assert codes == [2] * 2
    assert "the nearest is train.batch_size" in error
    codes, error = one_error(packed, 2, "--set", "train.learning_rate=1e30", "--set", "train.checkpoint_interval=1")
    assert codes == [1] * 2
    assert "loss and gradient must be finite" in error and "newest checkpoint: run/checkpoint-000001" in error


def test_an_error_of_one_ends_all(packed):
    codes, error = one_error(packed, 2, of_rank=lambda rank: ("--init", "nowhere") if rank else ())
    assert codes == [1, 1]
    assert "got neither in nowhere" in error
    shutil.rmtree(packed.folder / "run", ignore_errors=True)
    packed.succeed(*TRAIN, "taken", env=clean_environment())
    codes, error = one_error(packed, 2, run="taken")
    assert codes == [2, 1]  # only the first looks at the directory
    assert "holds a run of 60 steps (continue it with --resume)" in error


@pytest.mark.parametrize(
    "told, error",
    [
        ({"RANK": "0"}, "variable WORLD_SIZE must be set where RANK is; got none"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "variable MASTER_ADDR must be set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK must be a number in [0, 1]; got '2'"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "variable MASTER_ADDR must be set where SLURM_NTASKS is"),
    ],
)
def test_a_launcher_that_says_half_is_told_so(packed, told, error):
    assert error in packed.fail(2, *TRAIN, "run", env={**clean_environment(), **told})
    assert not (packed.folder / "run").exists()


def test_a_place_where_nobody_can_meet_is_named(packed):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        error = packed.fail(1, *TRAIN, "run", env={**clean_environment(), **told})
    assert f"process 0 cannot listen at 127.0.0.1:{port}" in error
