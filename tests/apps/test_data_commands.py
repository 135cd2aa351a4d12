"""comba data: what it writes, what it says, and that it never leaves half a data set."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

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
