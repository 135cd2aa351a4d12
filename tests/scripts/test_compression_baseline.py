"""The compressors' figures are those of the programs xz and zstd on the held-out files."""

import json
import pathlib
import shutil
import struct
import subprocess
import sys

import pytest

from rules import tree

SCRIPT = tree.ROOT / "scripts" / "compression_baseline.py"


def write_split(data_set: pathlib.Path, split: str, texts: list[bytes]) -> None:
    tokens, records = b"", b""
    for text in texts:
        records += struct.pack("<3Q", len(tokens) // 2, len(text), 0)
        tokens += struct.pack("<H", 256) + b"".join(struct.pack("<H", byte) for byte in text)
    for shard in range(2):  # of odd sizes, so that a document is in both
        part = tokens[: len(tokens) // 4 * 2] if shard == 0 else tokens[len(tokens) // 4 * 2 :]
        (data_set / f"{split}-{shard:05}.tokens").write_bytes(part)
    (data_set / f"{split}.documents").write_bytes(records)


def program_size(command: list[str], folder: pathlib.Path, text: bytes) -> int:
    path = folder / "text"
    path.write_bytes(text)
    return len(subprocess.run([*command, "-c", path], capture_output=True, check=True).stdout)


def baseline(data_set: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, data_set], capture_output=True, text=True)


def test_sizes_are_those_of_the_programs(tmp_path):
    heldout = [f"for (int i = 0; i < {n}; ++i) total += weights[i];\n".encode() * n for n in (3, 40, 7)]
    training = [b"int total = 0;\n" * 30, bytes(range(256)) * 5]
    write_split(tmp_path, "heldout", heldout)
    write_split(tmp_path, "train", training)
    result = baseline(tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    num_bytes = sum(map(len, heldout))
    assert figures["heldout_bytes"] == num_bytes
    bits = 8 / num_bytes
    assert figures["zstd"] == pytest.approx(bits * sum(program_size(["zstd", "-19", "-q"], tmp_path, t) for t in heldout))
    if shutil.which("xz"):
        xz = ["xz", "-9e"]
        assert figures["xz"] == pytest.approx(bits * sum(program_size(xz, tmp_path, t) for t in heldout))
        with_training = program_size(xz, tmp_path, b"".join(training + heldout))
        assert figures["xz_primed"] == pytest.approx(bits * (with_training - program_size(xz, tmp_path, b"".join(training))))


def test_a_data_set_without_heldout_text_is_an_error(tmp_path):
    write_split(tmp_path, "heldout", [])
    write_split(tmp_path, "train", [b"x"])
    result = baseline(tmp_path)
    assert result.returncode == 1
    assert "no held-out text" in result.stderr
