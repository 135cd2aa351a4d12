"""python -m comba.tensorboard: every number of a run, and one line of error without the package or the run."""

import sys

import pytest

from comba import tensorboard

METRICS = """\
{"step": 1, "loss": 2.5, "tokens": 64}
{"step": 1, "heldout_bits_per_byte": 3.5}
{"step": 1, "sample": "Once"}
{"step": 2, "loss": null}
{"step": 2, "lo"""
SCALARS = [("loss", 1, 2.5), ("tokens", 1, 64.0), ("heldout_bits_per_byte", 1, 3.5)]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(METRICS)
    return folder


def test_numbers_are_scalars_and_texts_are_not(run):
    assert list(tensorboard.scalars(run)) == SCALARS


def test_event_files_hold_the_numbers_once(run, tmp_path, capsys):
    pytest.importorskip("tensorboard.summary", reason="the package tensorboard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        assert tensorboard.main([str(run), "--out", str(tmp_path / "logs")]) == 0
    assert str(tmp_path / "logs" / "run") in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    found = []
    for name in events.Tags()["tensors"]:
        for event in events.Tensors(name):
            found.append((name, event.step, event.tensor_proto.float_val[0]))
    assert sorted(found) == sorted(SCALARS)


def test_what_is_missing_is_told_in_one_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    assert tensorboard.main([str(run), "--out", str(tmp_path / "logs")]) == 1
    error = capsys.readouterr().err
    assert "pip install tensorboard" in error and error.count("\n") == 1


def test_a_run_without_metrics_is_told_in_one_line(tmp_path, capsys):
    assert tensorboard.main([str(tmp_path), "--out", str(tmp_path / "logs")]) == 1
    error = capsys.readouterr().err
    assert "metrics.jsonl" in error and error.count("\n") == 1
