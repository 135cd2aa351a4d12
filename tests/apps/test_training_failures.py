"""comba train when something goes wrong: one clear message each, and nothing that was saved is lost."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from apps.together import errors_in, free_port
from apps.training_run import LAST, TRAIN, start_run, steps_logged, weights


def last_line(result: subprocess.CompletedProcess) -> str:
    return result.stderr.splitlines()[-1]


def namespace_flags() -> list[str] | None:
    """How to get a mount namespace of one's own here; None when it cannot be had."""
    for flags in (["-m"], ["-Urm"]):
        probe = ["unshare", *flags, "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            return flags
    return None


@pytest.fixture
def in_small_disk(packed):
    """Runs a shell script in the folder, with disk/ a file system of its own."""
    flags = namespace_flags()
    if flags is None:
        pytest.skip("no mount namespace: neither root nor user namespaces")
    (packed.folder / "disk").mkdir()

    def run(mount_options: str, script: str) -> subprocess.CompletedProcess:
        script = f"mount -t tmpfs -o {mount_options} none disk && {script}"
        return subprocess.run(["unshare", *flags, "sh", "-c", script, "sh", packed.path, *TRAIN],
                              cwd=packed.folder, capture_output=True, text=True, timeout=60)

    return run


def test_a_full_disk_costs_nothing_that_was_saved(packed, in_small_disk):
    result = in_small_disk("size=500k", '"$@" disk/run; code=$?; cp -r disk/run saved; exit $code')
    assert result.returncode == 1, result.stderr
    assert last_line(result).startswith("comba: error: ")
    assert "disk/run/" in last_line(result) and "No space left on device" in last_line(result)
    names = sorted(path.name for path in (packed.folder / "saved").iterdir())
    assert "checkpoint-000007" in names and not any(name.startswith(".") for name in names)
    packed.succeed(*TRAIN, "whole")
    packed.succeed(*TRAIN, "saved", "--resume")
    assert weights(packed, "saved") == weights(packed, "whole")
    assert steps_logged(packed, "saved") == list(range(1, 61))


def test_a_full_disk_ends_all_processes_of_a_run(packed, in_small_disk):
    script = """
        export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=%d
        RANK=1 "$@" disk/run & RANK=0 "$@" disk/run
        code=$?; wait $!; other=$?; cp -r disk/run saved; echo $other; exit $code
    """ % free_port()
    if "no Gloo" in packed.succeed("--version"):
        pytest.skip("this build has no Gloo")
    result = in_small_disk("size=500k", script)
    assert (result.returncode, result.stdout) == (1, "1\n"), result.stderr
    assert len(errors_in(result.stderr)) == 1 and "No space left on device" in errors_in(result.stderr)[0]
    packed.succeed(*TRAIN, "saved", "--resume")
    assert steps_logged(packed, "saved") == list(range(1, 61))


def test_numbers_that_find_no_room_are_told_too(in_small_disk):
    result = in_small_disk("size=4k", 'mkdir disk/run && "$@" disk/run --set train.checkpoint_interval=0')
    assert result.returncode == 1
    assert "disk/run/metrics.jsonl" in last_line(result) and "disk full" in last_line(result)


def test_a_directory_that_cannot_be_written(in_small_disk):
    result = in_small_disk("ro", '"$@" disk/run')
    assert result.returncode == 1
    assert last_line(result) == "comba: error: [run directory] cannot make disk/run: Read-only file system"
    result = in_small_disk("size=500k", 'mkdir disk/run && mount -o remount,ro disk && "$@" disk/run')
    assert result.returncode == 1
    assert last_line(result).startswith("comba: error: ") and "disk/run/metrics.jsonl" in last_line(result)


def test_a_loss_that_diverges_ends_the_run_and_keeps_its_checkpoint(packed):
    wild = ("--set", "train.learning_rate=1e30", "--set", "train.checkpoint_interval=1")
    result = packed(*TRAIN, "run", *wild)
    assert result.returncode == 1
    assert "[Trainer] loss and gradient must be finite; got loss" in last_line(result)
    assert last_line(result).endswith("newest checkpoint: run/checkpoint-000001")
    assert steps_logged(packed, "run") == [1]
    assert json.loads((packed.folder / "run/checkpoint-000001/training.json").read_text())["step"] == 1


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "training.json", "config.json"])
def test_a_truncated_checkpoint_is_named_and_left_alone(packed, file):
    packed.succeed(*TRAIN, "run")
    path = packed.folder / "run" / LAST / file
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    assert file in packed.fail(1, *TRAIN, "run", "--resume")
    assert path.read_bytes() == half
    # The checkpoint before it still is there to go on from.
    shutil.rmtree(path.parent)
    packed.succeed(*TRAIN, "run", "--resume")


def test_a_foreign_checkpoint_is_named(packed):
    packed.succeed(*TRAIN, "run")
    foreign = packed.folder / "run" / LAST
    (foreign / "training.json").unlink()
    assert f"{LAST}/training.json" in packed.fail(1, *TRAIN, "run", "--resume")
    (foreign / "training.json").write_text('{"step": 60}')
    assert "must be a training record of this program" in packed.fail(1, *TRAIN, "run", "--resume")
    (foreign / "config.json").write_text('{"model_type": "falcon"}')
    init = ("train", "--init", f"run/{LAST}", "--data", "data", "--out", "tuned")
    assert "model_type must be one of comba" in packed.fail(1, *init)
    assert not (packed.folder / "tuned").exists()


def test_a_second_signal_ends_the_run_at_once(packed):
    packed.succeed(*TRAIN, "run", "--set", "train.steps=1")
    endless = ("--set", "train.batch_size=200000", "--set", "train.micro_batch_size=1")
    process = subprocess.Popen([packed.path, *TRAIN, "endless", *endless], cwd=packed.folder, stderr=subprocess.PIPE, text=True)
    while not (packed.folder / "endless" / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    while "a second signal ends it at once" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert "saved" not in errors


@pytest.mark.long
def test_twenty_kills_while_checkpoints_are_written(packed):
    steps = ("--set", "train.steps=1500", "--set", "train.checkpoint_interval=1")
    random.seed(1)
    for _ in range(20):
        resume = ("--resume",) if (packed.folder / "killed").exists() else ()
        process = start_run(packed, "killed", *steps, *resume)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        for checkpoint in (packed.folder / "killed").glob("checkpoint-*"):
            packed.succeed("eval", "--model", checkpoint, "--data", "data")
            assert json.loads((checkpoint / "training.json").read_text())["step"] == int(checkpoint.name[-6:])
    done = max(steps_logged(packed, "killed"))
    assert 20 <= done < 1500
    rest = ("--set", "train.steps=1500", "--set", "train.checkpoint_interval=0")
    packed.succeed(*TRAIN, "killed", *rest, "--resume")
    packed.succeed(*TRAIN, "whole", *rest)
    assert weights(packed, "killed", "checkpoint-001500") == weights(packed, "whole", "checkpoint-001500")
    assert steps_logged(packed, "killed") == list(range(1, 1501))
