"""comba train --device cuda, from the outside. Without a GPU each test is skipped; what such a machine is told is tested."""

import json
import shutil
import subprocess

import pytest

from apps.training_run import TRAIN

SHORT = ["--set", "train.steps=20", "--set", "train.checkpoint_interval=10"]


def has_gpu() -> bool:
    try:
        return "GPU 0" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return False


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU")


def losses(program, run: str) -> list[float]:
    lines = map(json.loads, (program.folder / run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.skipif(has_gpu(), reason="a GPU is there")
@pytest.mark.parametrize("command", [[*TRAIN, "run"], ["logits", "--model", "small", "--ids", "1"]])
def test_a_machine_without_gpu_says_so(packed, command):
    if command[0] == "logits":
        packed.succeed(*TRAIN, "small", *SHORT, "--set", "train.steps=1")
    error = packed(*command, "--device", "cuda")
    assert error.returncode in (1, 2)
    assert error.stderr.count("\n") == 1
    assert "none that LibTorch can use" in error.stderr or "needs a build with CUDA" in error.stderr


def test_another_device_is_refused(packed):
    assert "cpu, cuda or cuda:N; got 'gpu0'" in packed.fail(2, *TRAIN, "run", "--device", "gpu0")


def test_a_profile_is_a_chrome_trace(packed):
    packed.succeed(*TRAIN, "run", *SHORT, "--profile", "2")
    events = json.loads((packed.folder / "run" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("aten::_fused_adamw_") == 4  # two steps, decayed weights and others


def test_a_resumed_run_says_that_the_device_is_another(packed):
    packed.succeed(*TRAIN, "run", *SHORT)
    record = packed.folder / "run" / "checkpoint-000020" / "training.json"
    text = json.loads(record.read_text())
    assert text["device"] == "cpu"
    record.write_text(json.dumps(text | {"device": "cuda"}))
    result = packed(*TRAIN, "run", *SHORT, "--resume")
    assert result.returncode == 0
    assert "warning: the checkpoint was made on cuda, this run is on cpu" in result.stderr


def test_bench_train_measures_steps(comba):
    config = {
        "model_type": "comba", "comba_convention": "paper", "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2,
        "head_dim": 16, "intermediate_size": 48, "vocab_size": 100, "initializer_range": 0.02,
    }
    (comba.folder / "config.json").write_text(json.dumps(config))
    words = ["bench", "train", "--model", "config.json", "--batch-size", "2", "--context-length", "64"]
    comba.succeed(*words, "--steps", "3", "--warmup", "1", "--json", "out.json")
    measured = json.loads((comba.folder / "out.json").read_text())
    assert len(measured["step_seconds"]) == 3
    assert measured["tokens_per_second"] == pytest.approx(128 / measured["median_step_seconds"])
    weights_of_maps = 32 * (32 * 3 + 2 + 2 + 32) + 32 * 32 + 3 * 32 * 48 + 100 * 32
    assert measured["flop_per_token"] == 6 * weights_of_maps + 2 * (20 * 16 * 16 + 14 * 64 * 32)
    assert "--breakdown needs --device cuda" in comba.fail(2, *words, "--breakdown")


@needs_gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_losses_are_those_of_the_cpu(packed, dtype):
    packed.succeed(*TRAIN, "cpu", *SHORT)
    packed.succeed(*TRAIN, "gpu", *SHORT, "--device", "cuda", "--set", f"train.dtype={dtype}")
    assert losses(packed, "gpu") == pytest.approx(losses(packed, "cpu"), abs=1e-3 if dtype == "fp32" else 5e-2)


@needs_gpu
def test_a_resumed_run_has_the_same_bits(packed):
    packed.succeed(*TRAIN, "whole", *SHORT, "--device", "cuda", "--deterministic")
    shutil.copytree(packed.folder / "whole", packed.folder / "resumed")
    shutil.rmtree(packed.folder / "resumed" / "checkpoint-000020")
    packed.succeed(*TRAIN, "resumed", *SHORT, "--device", "cuda", "--deterministic", "--resume")
    last = "checkpoint-000020/model.safetensors"
    assert (packed.folder / "whole" / last).read_bytes() == (packed.folder / "resumed" / last).read_bytes()


@needs_gpu
def test_graphs_change_nothing(packed):
    packed.succeed(*TRAIN, "graph", *SHORT, "--device", "cuda", "--deterministic")
    packed.succeed(*TRAIN, "plain", *SHORT, "--device", "cuda", "--deterministic", "--no-graph")
    assert losses(packed, "graph") == losses(packed, "plain")


@needs_gpu
def test_a_model_from_the_gpu_is_used_on_the_cpu(packed):
    packed.succeed(*TRAIN, "run", *SHORT, "--device", "cuda")
    words = ["generate", "--model", "run", "--prompt", "The", "--max-tokens", "8", "--temperature", "0"]
    assert packed.succeed(*words) == packed.succeed(*words, "--device", "cuda")


@needs_gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_diagnostics_between_graphs_change_nothing_and_agree_with_the_cpu(packed, dtype):
    kind = ("--set", f"train.dtype={dtype}")
    packed.succeed(*TRAIN, "plain", *SHORT, *kind, "--device", "cuda", "--deterministic")
    packed.succeed(*TRAIN, "gpu", *SHORT, *kind, "--device", "cuda", "--deterministic", "--diagnostics", "5")
    packed.succeed(*TRAIN, "cpu", *SHORT, "--diagnostics", "5")
    assert losses(packed, "gpu") == losses(packed, "plain")
    lines = {run: map(json.loads, (packed.folder / run / "metrics.jsonl").read_text().splitlines()) for run in ("gpu", "cpu")}
    gpu, cpu = ([loop for line in lines[run] if "control_loops" in line for loop in line["control_loops"]] for run in ("gpu", "cpu"))
    assert len(gpu) == len(cpu) == 5
    close = 1e-3 if dtype == "fp32" else 5e-2
    for one, other in zip(gpu, cpu):
        for key in ("decay", "key_eigenvalue", "key_coherence", "state_norm"):
            assert one[key] == pytest.approx(other[key], rel=close, abs=close)
