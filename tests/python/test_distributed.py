"""Torch's own engines, DDP and FSDP2, train comba.models in two processes as one process does."""

import os
import pathlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """The weights after the same steps, by who trained them."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no Gloo")
    out = tmp_path_factory.mktemp("sharded")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [*torchrun, str(HERE / "train_sharded.py"), str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    return {name: load_file(out / f"{name}.safetensors") for name in ("start", "single", "ddp", "fsdp")}


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_processes_train_what_one_does(trained, engine):
    start, single, together = trained["start"], trained["single"], trained[engine]
    assert single.keys() == together.keys()
    for name, tensor in single.items():
        moved = (tensor - start[name]).norm()
        assert moved > 0, name
        assert (together[name] - tensor).norm() < 1e-3 * moved + 1e-6, name
