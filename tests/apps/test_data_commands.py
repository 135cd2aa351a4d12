"""comba data: what it writes, what it says, and that it never leaves half a data set."""

import base64
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy
import pytest


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_pack_tells_what_it_did(comba, text_folder):
    (text_folder / "copy of a.txt").write_text((text_folder / "a.txt").read_text())
    (text_folder / "empty.txt").write_text("")
    text = comba.succeed("data", "pack", text_folder, "--out", "data")
    assert re.search(r"^train +3 +1,140 +1,143$", text, re.MULTILINE)
    assert re.search(r"^heldout +1 +380 +381$", text, re.MULTILINE)
    assert "left out: duplicates 1, empty 1\n" in text
    assert "wrote data in " in text
    assert names(comba.folder / "data") == {
        "index.json",
        *(f"{split}{part}" for split in ("train", "heldout") for part in ("-00000.tokens", ".documents", ".paths")),
    }


def test_info_shows_what_pack_wrote(comba, text_folder):
    packed = comba.succeed("data", "pack", text_folder, "--out", "data")
    info = comba.succeed("data", "info", "data")
    assert packed.split("wrote")[0] in info
    index = json.loads((comba.folder / "data" / "index.json").read_text())
    assert index["source_md5"] in info
    assert comba.succeed("data", "info", "data", "--documents", "heldout") == "380\tc.txt\n"
    assert comba.succeed("data", "info", "data", "--documents", "train") == "380\ta.txt\n380\tb.txt\n380\td.txt\n"
    assert comba.succeed("data", "info", "data", "data") == f"data:\n{info}\ndata:\n{info}"


def test_pack_says_when_nothing_is_held_out(comba, text_folder):
    (text_folder / "c.txt").unlink()
    assert "use --heldout tail" in comba.succeed("data", "pack", text_folder, "--out", "data")
    assert "use --heldout tail" not in comba.succeed("data", "pack", text_folder, "--out", "tails", "--heldout", "tail")


def test_globs_may_be_repeated_and_do_not_swallow_inputs(comba, text_folder):
    pack = ["data", "pack", "--include", "a.*", "--include", "[bd].txt", "--exclude", "d*", text_folder, "--out", "data"]
    comba.succeed(*pack)
    assert comba.succeed("data", "info", "data", "--documents", "train") == "380\ta.txt\n380\tb.txt\n"


def test_an_earlier_data_set_is_replaced_only_on_request(comba, text_folder):
    comba.succeed("data", "pack", text_folder, "--out", "data")
    assert "overwrite" in comba.fail(2, "data", "pack", text_folder, "--out", "data")
    comba.succeed("data", "pack", text_folder / "a.txt", "--out", "data", "--overwrite")
    assert comba.succeed("data", "info", "data", "--documents", "train") == "380\ta.txt\n"
    assert "only a data set is overwritten" in comba.fail(
        2, "data", "pack", text_folder / "a.txt", "--out", text_folder, "--overwrite"
    )
    assert names(text_folder) == {"a.txt", "b.txt", "c.txt", "d.txt"}


@pytest.mark.parametrize(
    "inputs, complaint",
    [
        (["missing.txt"], "cannot read 'missing.txt': No such file or directory"),
        (["/dev/null"], "must be a regular file or a directory; got '/dev/null'"),
    ],
)
def test_inputs_that_cannot_be_packed(comba, inputs, complaint):
    assert complaint in comba.fail(1, "data", "pack", *inputs, "--out", "data")
    assert names(comba.folder) == set()


def test_a_place_that_cannot_be_written(comba, text_folder):
    (comba.folder / "file").write_text("")
    for place, reason in (("file/data", "Not a directory"), ("/proc/data", "No such file or directory")):
        complaint = comba.fail(1, "data", "pack", text_folder, "--out", place)
        assert f"cannot create '{place}': {reason}" in complaint


def test_damaged_data_sets_are_named(comba, text_folder):
    comba.succeed("data", "pack", text_folder, "--out", "data")
    tokens = comba.folder / "data" / "train-00000.tokens"
    os.truncate(tokens, tokens.stat().st_size - 7)
    assert "'data/train-00000.tokens' must have 2286 bytes" in comba.fail(1, "data", "info", "data")
    (comba.folder / "data" / "index.json").write_text("{")
    assert "'data/index.json' must be JSON" in comba.fail(1, "data", "info", "data")
    assert "index.json': No such file or directory" in comba.fail(1, "data", "info", "elsewhere")
    assert "got none in '.' (`comba data pack` makes data sets)" in comba.fail(1, "data", "info", ".")


@pytest.fixture
def packing(comba):
    """A pack that would take seconds, caught while it writes."""
    with open(comba.folder / "large.txt", "wb") as large:
        large.truncate(2 << 30)  # a hole: it takes no room
    command = [comba.path, "data", "pack", "large.txt", "--binary", "--out", "data"]
    process = subprocess.Popen(command, cwd=comba.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 0 for path in comba.folder.glob(".data.*.partial/*.tokens")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()
    for left_by_kill in comba.folder.glob(".data.*.partial"):
        shutil.rmtree(left_by_kill)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pack_leaves_nothing(comba, packing, number):
    packing.send_signal(number)
    output, errors = packing.communicate(timeout=30)
    assert packing.returncode == 128 + number
    assert output == ""
    assert errors.splitlines()[-1] == "comba: [pack] interrupted"
    assert names(comba.folder) == {"large.txt"}


def test_a_second_signal_ends_it_at_once(comba, packing):
    packing.send_signal(signal.SIGSTOP)  # so that both are there before it can answer the first
    packing.send_signal(signal.SIGINT)
    packing.send_signal(signal.SIGTERM)
    packing.send_signal(signal.SIGCONT)
    _, errors = packing.communicate(timeout=30)
    assert packing.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "interrupted" not in errors, "it went the orderly way"


def test_records_with_prompts(comba):
    lines = [{"q": f"question {i}?", "a": f"answer {i}"} for i in range(30)]
    (comba.folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comba.succeed("data", "pack", "chats.jsonl", "--prompt-field", "q", "--text-field", "a", "--out", "data")
    assert "prompts are not learned" in comba.succeed("data", "info", "data")
    listed = comba.succeed("data", "info", "data", "--documents", "train").splitlines()
    assert listed[0] == "19\tchats.jsonl:1"
    complaint = comba.fail(1, "data", "pack", "chats.jsonl", "--out", "more")
    assert 'chats.jsonl:1 must have the field "text" (see --text-field)' in complaint


@pytest.fixture
def bare_python(comba) -> str:
    """A Python without packages."""
    script = comba.folder / "bare-python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_missing_packages_are_named(comba, text_folder, bare_python):
    (comba.folder / "t.json").write_text("{}")
    (comba.folder / "t.parquet").write_text("")
    out = ["--out", "data", "--python", bare_python]
    for package, command in {
        "sentencepiece": ["data", "tokenizer", text_folder],
        "tokenizers": ["data", "pack", text_folder, "--tokenizer", "t.json"],
        "pyarrow": ["data", "pack", "t.parquet"],
    }.items():
        assert f"the Python package {package} is missing: pip install {package}" in comba.fail(1, *command, *out)
        assert not (comba.folder / "data").exists()
    complaint = comba.fail(1, "data", "tokenizer", text_folder, "--out", "m", "--python", "no-such-python")
    assert "got no program 'no-such-python' (name one with --python)" in complaint


def test_a_tokenizer_that_is_none(comba, text_folder):
    complaint = comba.fail(1, "data", "pack", text_folder, "--tokenizer", text_folder / "a.txt", "--out", "data")
    assert "a.txt' must be a SentencePiece model" in complaint
    complaint = comba.fail(1, "data", "pack", text_folder, "--tokenizer", "missing.model", "--out", "data")
    assert "'missing.model': No such file or directory" in complaint
    assert names(comba.folder) == {"texts"}


def packed_ids(folder) -> list[int]:
    index = json.loads((folder / "index.json").read_text())
    return numpy.fromfile(folder / "train-00000.tokens", f"<u{index['token_bytes']}").tolist()


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_trained_tokenizer_packs_and_gives_the_librarys_ids(comba, kind):
    sentencepiece = pytest.importorskip("sentencepiece")
    text = "".join(f"Line {i * 7 % 1000}: the state décays,\t the query reads {'x' * (i % 5)}.  \n" for i in range(4000))
    (comba.folder / "a.txt").write_text(text)
    out = comba.succeed(
        "data", "tokenizer", "a.txt", "--vocab", "350", "--kind", kind, "--out", "a.model", "--python", sys.executable
    )
    assert "wrote a.model: sentencepiece, " in out
    comba.succeed("data", "pack", "a.txt", "--tokenizer", "a.model", "--out", "data")
    info = comba.succeed("data", "info", "data")
    assert "of 350 pieces, md5 " in info and "vocab      350\n" in info
    expected = sentencepiece.SentencePieceProcessor(model_file=str(comba.folder / "a.model")).encode(text)
    assert packed_ids(comba.folder / "data") == [1, *expected]


def test_a_hugging_face_tokenizer_packs(comba):
    tokenizers = pytest.importorskip("tokenizers")
    tool = tokenizers.ByteLevelBPETokenizer()
    texts = [f"Line {i}: the état of {'☃' * (i % 4)} things.\n" for i in range(300)]
    tool.train_from_iterator(texts, vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False)
    tool.save(str(comba.folder / "tokenizer.json"))
    (comba.folder / "a.txt").write_text("".join(texts))
    pack = ["data", "pack", "a.txt", "--tokenizer", "tokenizer.json", "--python", sys.executable]
    comba.succeed(*pack, "--out", "data")
    bos = tool.token_to_id("<|endoftext|>")
    assert packed_ids(comba.folder / "data") == [bos, *tool.encode("".join(texts)).ids]
    assert "from a tokenizer.json of md5" in comba.succeed("data", "info", "data")
    table = json.loads((comba.folder / "data" / "index.json").read_text())["tokenizer"]
    blob, pieces = base64.b64decode(table["pieces"]), []
    while blob:
        (size,) = struct.unpack("<I", blob[:4])
        pieces.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    assert b"".join(pieces[id] for id in packed_ids(comba.folder / "data")).decode() == "".join(texts)
    (comba.folder / "tokenizer.json").write_text("{")
    assert "the file must be a tokenizer.json" in comba.fail(1, *pack, "--out", "more")


def test_parquet_rows_are_records(comba):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = {"id": list(range(2500)), "content": [f"row {i} é\n" for i in range(2500)]}
    pyarrow.parquet.write_table(pyarrow.table(rows), comba.folder / "a.parquet")
    pack = ["data", "pack", "a.parquet", "--python", sys.executable]
    comba.succeed(*pack, "--text-field", "content", "--out", "data")
    listed = [comba.succeed("data", "info", "data", "--documents", split).splitlines() for split in ("train", "heldout")]
    assert len(listed[0]) + len(listed[1]) == 2500
    assert listed[0][0] == "9\ta.parquet:1"
    assert "there must be a column 'text'" in comba.fail(1, *pack, "--out", "more")
    (comba.folder / "a.parquet").write_text("no parquet")
    assert "a.parquet" in comba.fail(1, *pack, "--text-field", "content", "--out", "more")
    assert names(comba.folder) == {"a.parquet", "data"}
