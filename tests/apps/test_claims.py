"""python -m comba.plot_claims, and comba bench claims on a CPU, which it reads."""

import json
import xml.etree.ElementTree as xml

import pytest

from comba import plot_claims


def row(contestant: str, part: str, T: int, us: float | None) -> dict:
    time = {"us": us, "p10_us": us, "p90_us": us, "method": "graph"} if us else {"refusal": "nothing computes it"}
    return {"contestant": contestant, "pass": part, "B": 8, "T": T, "H": 16, "D": 128, **time}


CLAIMS = {
    "kind": "claims",
    "context": {"device": "NVIDIA H200", "dtype": "bf16", "program": "comba 0.1.0", "commit": "0123456789abcdef", "repetitions": 12},
    "rows": [row("comba", "forward", 1024, 1000.0), row("gated_delta", "forward", 1024, 1400.0), row("attention", "forward", 1024, None),
             row("comba", "backward", 1024, 2000.0), row("gated_delta", "backward", 1024, 1600.0), row("attention", "backward", 1024, 500.0)],
}
PEERS = {"rows": [{"name": "forward comba 8x1024 16/16 128", "operator": "forward", "peers": {"fla_comba": {"us": 3000.0}, "sdpa": {"us": 1.0}}}]}


def test_the_table_has_ratios_and_the_papers_numbers():
    times = plot_claims.times_of(CLAIMS)
    assert times[128, 1024]["both"] == {"comba": 3.0, "gated_delta": 3.0}
    plot_claims.add_peers(times, CLAIMS, PEERS)
    lines = plot_claims.table(CLAIMS, times).splitlines()
    assert lines[2] == "| 16 x 128 | 8 x 1024 | forward | 1.000 | 1.400 |  | 3.000 | 1.40 |  | 3.00 |"
    assert lines[4] == "| 16 x 128 | 8 x 1024 | both | 3.000 | 3.000 |  |  | 1.00 |  |  |"
    assert lines[5] == "| the paper | 16384 | forward | 13.4 | 19.3 |  |  | 1.44 |  |  |"
    assert "NVIDIA H200, bf16; comba 0.1.0, commit 0123456789" in lines[-1]


def test_times_that_do_not_fit_are_marked():
    lengths = (1024, 2048, 4096, 8192)
    rows = [row(who, part, T, T * (2.0 if (who, part, T) == ("comba", "forward", 2048) else 1.0)) for T in lengths for part in ("forward", "backward")
            for who in ("comba", "gated_delta")]
    times = plot_claims.times_of(CLAIMS | {"rows": rows})
    assert plot_claims.doubtful(times) == {(128, 2048, "forward", "comba"), (128, 2048, "both", "comba")}
    text = plot_claims.table(CLAIMS | {"rows": rows}, times)
    assert "| 8 x 2048 | forward | 4.096? | 2.048 |  |" in text and "| 8 x 4096 | forward | 4.096 | 4.096 | 1.00 |" in text and " ?: more than" in text


def test_measures_and_draws_on_a_cpu(comba, tmp_path):
    shapes = ["--lengths", "64,130", "--head-dims", "16,32", "--batch-size", 1, "--width", 32, "--repetitions", 2, "--threads", 1]
    told = comba.succeed("bench", "claims", "--device", "cpu", *shapes, "--json", tmp_path / "claims.json")
    assert told.count("forward") == 4 and "gated_delta" in told and "of it)" in told
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert claims["context"]["commit"] == json.loads(comba.succeed("--version", "--json"))["commit"]
    assert len(claims["rows"]) == 2 * 2 * 2 * 3 and all(found["us"] > 0 for found in claims["rows"])
    for name in ("a.svg", "b.svg"):
        assert plot_claims.main([str(tmp_path / "claims.json"), "--out", str(tmp_path / name)]) == 0
    first = (tmp_path / "a.svg").read_text()
    assert xml.fromstring(first).tag.endswith("svg") and first == (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize("content", [None, "", "{}", '{"rows": []}', '{"rows": [{"T": 1}]}'])
def test_results_that_are_none_are_one_line_of_error(tmp_path, capsys, content):
    file = tmp_path / "claims.json"
    if content is not None:
        file.write_text(content)
    assert plot_claims.main([str(file)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m comba.plot_claims: ") and error.count("\n") == 1
