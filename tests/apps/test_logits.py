"""`comba logits` on a reference model of another library."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from apps.program import Program
from rules import tree

MODEL = tree.ROOT / "tests" / "fixtures" / "fla" / "model_comba_tied"


def test_written_logits_are_the_references(comba: Program):
    reference = load_file(MODEL / "io.safetensors")
    comba.succeed("logits", "--model", MODEL, "--input", MODEL / "io.safetensors", "--out", "logits.safetensors")
    logits = load_file(comba.folder / "logits.safetensors")["logits"]
    error = np.linalg.norm(logits - reference["logits"]) / np.linalg.norm(reference["logits"])
    assert error < 1e-4


def test_printed_logits_name_the_likeliest_token(comba: Program):
    reference = load_file(MODEL / "io.safetensors")
    ids = reference["input_ids"][0]
    lines = comba.succeed("logits", "--model", MODEL, "--ids", ",".join(map(str, ids)), "--top", 2).splitlines()
    assert len(lines) == len(ids)
    for line, token, expected in zip(lines, ids, reference["logits"][0]):
        shown, best, logit, *_ = line.replace("->", "").split()
        assert int(shown) == token
        assert int(best) == expected.argmax()
        assert float(logit) == pytest.approx(expected.max(), abs=1e-2)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--ids", "1,256"], "token ids must be from 0 to 255; got ids from 1 to 256"),
        (["--input", MODEL / "model.safetensors"], "must hold the tensor input_ids"),
        (["--ids", "1", "--input", "x"], "--ids excludes --input"),
        ([], "[logits] needs tokens: --ids or --input"),
    ],
)
def test_wrong_usage_is_named(comba: Program, arguments, complaint):
    assert complaint in comba.fail(2, "logits", "--model", MODEL, *arguments)
