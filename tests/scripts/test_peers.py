"""benchmarks/peers.py without a GPU: what it checks, counts, says and writes. Its times are faked, its arithmetic is
not: a row runs on the CPU, against the recurrence in float64."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import types

import pytest

from rules import tree
from test_bench import bench_script

sys.path.insert(0, str(tree.ROOT / "benchmarks"))

import peers  # noqa: E402
import torch  # noqa: E402
from gpu import contestants, inputs, race, timing  # noqa: E402
from gpu.cases import CASES, ROWS, Case, DecodeCase, Row, uneven_lengths  # noqa: E402
from gpu.recurrence import recurrence, rms_ratio  # noqa: E402

TINY = (Case(2, 70, 2, 2, 64, 64), Case(1, 70, 2, 4, 32, 64), Case(1, 90, 2, 2, 32, 32, sequences=4))
TINY_ROWS = [Row("forward", rule, case) for case in TINY for rule in ("comba", "gated_delta")]
TINY_ROWS += [Row("forward_backward", rule, dataclasses.replace(TINY[1], trains=True)) for rule in ("comba", "gated_delta")]
TINY_ROWS += [Row("decode_step", "comba", DecodeCase(2, T, "f32", 2, 4, 32, 64)) for T in (1, 4)]
CEILINGS = {"copy_bytes_per_second": 4e12, "gemm_flop_per_second": 8e14}


def run(*words):
    command = [sys.executable, tree.ROOT / "benchmarks/peers.py", *words]
    return subprocess.run(command, capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"})


@pytest.fixture
def on_the_cpu(monkeypatch, build_dir):
    """Rows run on the CPU; a call takes as many microseconds as faked."""
    contestants.load_ours(build_dir / "lib/libcomba_torch.so")
    monkeypatch.setattr(race, "DEVICE", "cpu")
    monkeypatch.setattr(timing, "num_buffers", lambda footprint: 2)

    def time_calls(calls, repetitions):
        results = [call() for call in calls]
        assert len(calls) == 2
        for result in results:
            assert all(torch.isfinite(tensor).all() for tensor in (result if isinstance(result, list) else [result]))
        return timing.Timing("graph", [(10 + i) * 1e-6 for i in range(repetitions)])

    monkeypatch.setattr(timing, "time_calls", time_calls)
    monkeypatch.setattr(timing, "copy_seconds", lambda num_bytes, repetitions: timing.Timing("graph", [5e-6] * repetitions))
    monkeypatch.setattr(timing, "ceilings", lambda: CEILINGS)


def test_help_and_wrong_usage():
    told = run("--help")
    assert told.returncode == 0 and "scripts/requirements-peers.txt" in told.stdout and "--quick" in told.stdout
    assert run("--list").stdout.splitlines() == [row.name for row in ROWS]
    for words, message in (
        (["--only", "nothing like this"], "matches no row"),
        (["--only", "("], "must be a regular expression"),
        (["--peers", "fla_comba,flashattention"], "got 'flashattention'"),
        (["--json", "no/such/folder/file"], "there is no folder no/such/folder"),
        (["--jobs", "-1"], "--jobs must be at least 0"),
        (["--resume"], "--resume needs --json FILE"),
    ):
        told = run(*words)
        assert told.returncode == 2 and message in told.stderr


def test_what_is_missing_is_said_in_one_line(build_dir):
    told = run("--library", "nowhere.so")
    assert told.returncode == 1 and told.stderr.count("\n") == 1 and "nowhere.so is not built" in told.stderr
    told = run("--library", build_dir / "lib/libcomba_torch.so")
    assert told.returncode == 1 and told.stderr == "peers.py: no GPU is visible to torch\n"


@pytest.mark.parametrize("row", TINY_ROWS, ids=lambda row: row.name)
def test_our_operator_agrees_with_the_recurrence(row, on_the_cpu):
    errors = race.our_errors(row)
    assert race.passes(errors) and 0 < errors["o"] and ("state" in errors) == (row.operator == "decode_step")
    assert ("dbeta_logit" in errors) == (row.operator == "forward_backward")


@pytest.mark.parametrize("row", TINY_ROWS, ids=lambda row: row.name)
def test_a_wrong_operator_does_not_pass(row, on_the_cpu, monkeypatch):
    right = contestants.ours

    def wrong(row, x, state=None):  # a tenth of a step size more
        return right(row, {**x, "beta_logit": x["beta_logit"] + 0.4}, state)

    monkeypatch.setattr(contestants, "ours", wrong)
    assert not race.passes(race.our_errors(row))
    assert not race.passes({"o": float("nan")})


def test_the_recurrence_by_hand():
    """One key dim and two tokens, both of them 1 after the norm: h = e^g h + k u, u = beta (v - b h)."""
    one = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    v, beta, g = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1), 0.5 * one[..., 0], torch.log(0.25 * one[..., 0])
    expected = {"comba": (1.0, 0.25 + 0.5 * (3 - 0.8)), "gated_delta": (1.0, 0.25 + 0.5 * (3 - 0.8 * 0.25))}
    for rule, values in expected.items():
        o, state = recurrence(rule, 1e4 * one, 1e4 * one, v, beta, g, b=torch.tensor([0.8], dtype=torch.float64))
        assert o.flatten().tolist() == pytest.approx(values) and state.item() == pytest.approx(values[1])


def test_bytes_flop_and_floor():
    case = Case(1, 8192, 16, 16, 128, 128)
    assert case.flop == 163840 * 8192 * 16 and case.bytes == 1024 * 8192 * 16
    assert case.floor_seconds(1e20, 1e20) == pytest.approx(128 * 0.35e-6)
    assert case.floor_seconds(1.0, 1e20) == case.bytes and case.floor_seconds(1e20, 1.0) == case.flop
    trains = dataclasses.replace(case, trains=True)
    assert trains.flop == (20 * 128 * 128 + 14 * 64 * 256) * 8192 * 16 and trains.bytes == 11 * 256 * 8192 * 16
    assert trains.chain_seconds == 2 * case.chain_seconds
    packed = next(case for case in CASES if case.sequences == 24)
    assert sum(packed.lengths) == 32768 and len(set(packed.lengths)) > 12
    assert packed.chain_seconds == pytest.approx(-(-max(packed.lengths) // 64) * 0.35e-6)
    for count in (4, 24):
        assert sum(uneven_lengths(count, count)) == count and min(uneven_lengths(count, 256)) >= 1
    assert DecodeCase(32).bytes == 2 * DecodeCase(32, 1, "bf16").bytes == 2 * 32 * 16 * 128 * 128 * 4


def test_gates_are_those_of_initialisation():
    gates = inputs.gates(10000, torch.Generator().manual_seed(1))
    A, dt = gates["A_log"].exp(), torch.nn.functional.softplus(gates["dt_bias"])
    assert A.max() < 16 and A.mean() == pytest.approx(8, rel=0.05)
    assert dt.min() >= 0.99e-3 and dt.max() <= 0.101 and dt.log().mean().exp() == pytest.approx(1e-2, rel=0.05)


def test_missing_peers_are_named_and_take_no_part():
    absent = dataclasses.replace(contestants.PEERS[0], module="no_such_module")
    assert absent.status() == "missing: ModuleNotFoundError: No module named 'no_such_module'"
    assert torch.__version__.startswith(contestants.PEERS[-1].status())


def test_peers_say_which_rows_are_theirs():
    takes = {peer.name: [row.name for row in ROWS if not peer.refusal(row)] for peer in contestants.PEERS}
    assert tuple(takes) == peers.PEER_NAMES
    assert all(re.match("forward(_backward)? comba|decode_step comba .*f32", name) for name in takes["fla_comba"])
    assert len(takes["fla_gdn"]) == 2 * len(CASES) and all("gated_delta" in name for name in takes["fla_gdn"])
    assert takes["flashinfer"] == [name for name in takes["flash_qla"] if not name.startswith("forward_backward")]
    assert not any("256" in name.split()[-1] for name in takes["flashinfer"])
    assert not any("sequences" in name or "decode" in name for name in takes["sdpa"])


@pytest.fixture
def results(on_the_cpu, monkeypatch, tmp_path):
    """What a whole run writes, with one peer that is right, one that is attention, one that fails and one missing."""

    def like_ours(row, x, state=None):
        return lambda: contestants.expected_of_peers(row, x, state)[0].bfloat16()

    def failing(row, x, state=None):
        raise ValueError("not on this machine")

    def no_refusal(row):
        return ""

    attention = contestants.PEERS[-1]
    made = [
        contestants.Peer("fla_comba", "torch", "torch", no_refusal, like_ours),
        contestants.Peer("flash_qla", "torch", "torch", no_refusal, failing),
        contestants.Peer("flashinfer", "flashinfer-python", "no_such_module", no_refusal, failing),
        attention,
    ]
    monkeypatch.setattr(contestants, "PEERS", made)
    monkeypatch.setattr(peers, "context", lambda options: {"device": "H200", "program": "torch", "commit": "abc", "command": "x", "date": "today"})
    monkeypatch.setattr(peers, "in_a_process_of_its_own", lambda options, row: {"first_seconds": 0.25, "second_seconds": 0.001})
    options = peers.parse(["--json", str(tmp_path / "gpu.json")])
    options.library = tree.ROOT / "build/release/lib/libcomba_torch.so"
    monkeypatch.setattr(contestants, "load_ours", lambda library: None)
    options.rows = TINY_ROWS
    assert peers.measure(options) == json.loads((tmp_path / "gpu.json").read_text())
    return tmp_path / "gpu.json"


def test_a_run_writes_times_rates_and_peers(results):
    told = json.loads(results.read_text())
    assert [row["name"] for row in told["rows"]] == [row.name for row in TINY_ROWS]
    assert told["peers"]["flashinfer"].startswith("missing: ")
    row, case = told["rows"][0], TINY[0]
    assert row["us"] == pytest.approx(21.5) and row["p10_us"] < row["us"] < row["p90_us"] and len(row["samples_us"]) == 24
    assert row["bytes_per_second"] == pytest.approx(case.bytes / 21.5e-6)
    assert row["of_copy"] == pytest.approx(row["bytes_per_second"] / 4e12)
    assert row["times_floor"] == pytest.approx(21.5e-6 / (2 * 0.35e-6))
    assert 0 < row["peers"]["fla_comba"]["errors"]["o"] < 0.005 and row["peers"]["fla_comba"]["ratio"] == pytest.approx(1)
    assert row["peers"]["flash_qla"] == {"refusal": "ValueError: not on this machine"}
    assert row["peers"]["sdpa"]["errors"] == {} and "flashinfer" not in row["peers"]
    assert told["rows"][-1]["of_copy_of_same_bytes"] == pytest.approx(5 / 21.5)


def test_a_run_goes_on_from_the_rows_there_are():
    new = {"context": {"device": "H200"}, "rows": [], "peers": {"fla_gdn": "missing: it", "flashinfer": "0.7.2"}}
    old = {"context": {"device": "H200"}, "rows": [{"name": "a", "us": 1.0}, {"name": "b", "errors": {"o": 1}}], "peers": {"fla_gdn": "0.6.0"}, "cold_starts": [{"name": "a"}]}
    going_on = peers.resumed(new, old)
    assert going_on["rows"] == [{"name": "a", "us": 1.0}] and going_on["peers"] == {"fla_gdn": "0.6.0", "flashinfer": "0.7.2"}
    assert going_on["cold_starts"] == [{"name": "a"}]
    with pytest.raises(SystemExit, match="needs results of this GPU, H200; got those of H100"):
        peers.resumed(new, {**old, "context": {"device": "H100"}})


@pytest.mark.parametrize("capturable", [True, False])
def test_a_time_is_that_of_one_call(capturable, monkeypatch):
    """With a clock instead of a GPU: a call takes 3 ms, or 2 ms when a graph replays it; a hold takes 100."""
    clock, calls = [0.0], [0]

    def advance(milliseconds):
        clock[0] += milliseconds

    def call():
        calls[0] += 1
        advance(3)

    class Event:
        def record(self):
            self.at = clock[0]

        def elapsed_time(self, end):
            return end.at - self.at

    @contextlib.contextmanager
    def capture(graph):
        if not capturable:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield

    fakes = {
        "CUDAGraph": lambda: types.SimpleNamespace(replay=lambda: advance(2 * 5)),
        "graph": capture,
        "stream": contextlib.nullcontext,
        "current_stream": lambda: None,
        "Event": lambda enable_timing: Event(),
        "_sleep": lambda cycles: advance(100),
        "synchronize": lambda: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    timed = timing.time_calls([call] * 5, repetitions=20)
    assert timed.method == ("graph" if capturable else "events")
    assert timed.samples == pytest.approx([2e-3 if capturable else 3e-3] * 20)
    assert calls[0] == (5 + 5 if capturable else 5 + 5 + 20 * 5)  # warm, then captured; or warm twice, then timed


def test_a_row_that_is_wrong_has_no_time(on_the_cpu, monkeypatch):
    monkeypatch.setattr(race, "TOLERANCE", 1e-9)
    result = race.our_result(TINY_ROWS[0], CEILINGS, 64, 24)
    assert "us" not in result and result["checked_as"] == "forward comba 2x64 2/2 64"
    assert peers.line_of(result).startswith("forward comba 2x70 2/2 64: FAILED: errors o 0.0")


def test_the_page_shows_a_file_of_results(results, monkeypatch, tmp_path):
    bench = bench_script()
    assert bench.gpu_section(json.loads(results.read_text()))
    told = json.loads(results.read_text())
    told["rows"][1] = {"name": "forward gated_delta wrong", "operator": "forward", "rule": "gated_delta", "errors": {"o": 0.5}}
    results.write_text(json.dumps(told))
    page, before = tmp_path / "benchmarks.md", bench.PAGE.read_text().split("\n## GPU\n")[0]
    for name in ("PAGE", "GPU", "ROOT"):
        monkeypatch.setattr(bench, name, {"PAGE": page, "GPU": tmp_path / "kept/operator-gpu.json", "ROOT": tmp_path}[name])
    monkeypatch.setattr(sys, "argv", ["bench.py", "--gpu", str(results)])
    bench.main()
    text = page.read_text()
    assert text.startswith(before.rstrip("\n")) and json.loads(bench.GPU.read_text()) == told
    assert "| forward comba 2x70 2/2 64 | 21.5 (12.3 .. 30.7) |" in text
    assert "copy moved 4.00 TB/s" in text and "flashinfer missing" in text and "| refused |" in text
    assert "Not timed, because not right: forward gated_delta wrong." in text
    assert "forward comba 2x70 2/2 64 250 ms" in text
    assert bench.page_of_the_results() == text


def test_a_file_of_something_else_changes_nothing(monkeypatch, tmp_path):
    bench = bench_script()
    kept = {name: tmp_path / name for name in ("operator", "training", "train-peers", "decode", "scaling")}
    monkeypatch.setattr(bench, "GPU", kept["operator"])
    monkeypatch.setattr(bench, "MODELS_ON_GPUS", {path: None for name, path in kept.items() if name != "operator"})
    for flag, source in (("--gpu", "benchmarks/peers.py"), ("--gpu-training", "comba bench train"), ("--train-peers", "benchmarks/train_peers.py"),
                         ("--gpu-decode", "comba bench decode"), ("--scaling", "benchmarks/scaling.py")):
        for content in ("{}", "not JSON", "[]"):
            (tmp_path / "other.json").write_text(content)
            monkeypatch.setattr(sys, "argv", ["bench.py", flag, str(tmp_path / "other.json")])
            with pytest.raises(SystemExit, match=f"{flag} needs results of {source}"):
                bench.main()
    assert not any(path.exists() for path in kept.values())
