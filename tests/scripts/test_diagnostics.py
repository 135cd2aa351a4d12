"""make diagnostics: what it writes for two small runs, and that docs/science says what its results file says."""

import importlib
import json
import sys

import pytest

from rules import tree


@pytest.fixture
def diagnostics(monkeypatch):
    monkeypatch.syspath_prepend(tree.ROOT / "scripts")
    yield importlib.import_module("diagnostics")
    sys.modules.pop("diagnostics")


def test_two_small_runs(diagnostics, comba_program, tmp_path, monkeypatch, capsys):
    for i in range(4):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{i}.txt").write_text("".join(f"{i}: line {n} of a small text\n" for n in range(150)))
    wanted = ["Comba, d = 1", "Comba, α = 1"]
    monkeypatch.setattr(diagnostics, "PROGRAM", comba_program)
    monkeypatch.setattr(diagnostics, "RUNS", {name: diagnostics.RUNS[name] for name in wanted})
    monkeypatch.setattr(diagnostics, "PICTURES", {"both": (wanted, ["decay", "memory"])})
    words = ["--text", tmp_path / "text", "--out", tmp_path / "science", "--work", tmp_path / "work", "--divisor", "200", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["diagnostics", *map(str, words)])
    (tmp_path / "science.md").write_text(f"before\n{''.join(diagnostics.MARKS)}behind\n")
    assert diagnostics.main() == 0, capsys.readouterr().err

    results = json.loads((tmp_path / "science" / "control-loop.json").read_text())
    assert [(run["name"], run["seed"]) for run in results["runs"]] == [(name, seed) for name in wanted for seed in diagnostics.SEEDS]
    for run in results["runs"]:
        last = [record for record in run["records"] if "control_loops" in record][-1]
        assert last["step"] == run["steps"] == 2 and 2 < run["heldout_bits"] < 9
        medians = [loop["decay"][3] for loop in last["control_loops"]]
        assert medians == [1, 1] if run["name"] == "Comba, α = 1" else max(medians) < 1
    assert (tmp_path / "science" / "control-loop-both.png").exists()
    page = (tmp_path / "science.md").read_text()
    assert page == f"before\n{diagnostics.MARKS[0]}{diagnostics.table(results['runs'])}{diagnostics.MARKS[1]}behind\n"


def test_the_page_says_what_the_results_say(diagnostics):
    results = json.loads((tree.ROOT / "docs/science/control-loop.json").read_text())
    page = diagnostics.PAGE.read_text()
    assert diagnostics.MARKS[0] + diagnostics.table(results["runs"]) + diagnostics.MARKS[1] in page
    for picture, (names, _) in diagnostics.PICTURES.items():
        assert (tree.ROOT / f"docs/science/control-loop-{picture}.png").exists() and f"control-loop-{picture}.png" in page
        assert set(names) <= {run["name"] for run in results["runs"]}
