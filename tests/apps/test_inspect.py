"""comba inspect: models and implementations."""

import json
import os
import re

from rules.tree import ROOT


def test_the_340m_model_has_366_8_million_parameters(comba):
    table = comba.succeed("inspect", "model", ROOT / "configs" / "comba-340m.json")
    rows = re.findall(r"^(\S+) +\[([\d, ]+)\] +(?:x (\d+) +)?([\d,]+)$", table, re.MULTILINE)
    total = 0
    for name, shape, layers, count in rows:
        elements = int(layers or 1)
        for size in shape.split(", "):
            elements *= int(size)
        assert int(count.replace(",", "")) == elements, name
        total += elements
    assert table.splitlines()[-1] == f"{total:,} parameters (366.8 M) in 24 layers, 1.5 GB in fp32"


def test_layers_that_differ_have_rows_of_their_own(comba):
    config = json.loads((ROOT / "configs" / "comba-tiny.json").read_text())
    config["attn"] = {"layers": [1], "num_heads": 2}
    (comba.folder / "config.json").write_text(json.dumps(config))
    table = comba.succeed("inspect", "model", comba.folder)
    q_proj = [line for line in table.splitlines() if ".attn.q_proj.weight" in line]
    assert [re.sub(" +", " ", line) for line in q_proj] == ["model.layers.*.attn.q_proj.weight [64, 64] x 2 8,192"]
    o_proj = [line for line in table.splitlines() if ".attn.o_proj.weight" in line]
    assert len(o_proj) == 2, "value heads make the two mixers' o_proj differ"


def test_a_model_that_is_not_there(comba):
    assert "cannot open 'nowhere': No such file" in comba.fail(1, "inspect", "model", "nowhere")
    assert "config.json': No such file" in comba.fail(1, "inspect", "model", comba.folder)


def test_implementations_end_with_the_definition(comba):
    table = comba.succeed("inspect", "implementations")
    assert comba.succeed("inspect", "--implementations") == table
    lines = table.splitlines()[1:]
    assert all(line.startswith("delta_rule ") for line in lines)
    assert sum(line.endswith("yes, the first choice") for line in lines) == 1
    assert lines[-1].split()[1:] == ["cpu.reference", "yes"]


def test_implementations_name_the_one_that_is_forced(comba):
    forced = comba.succeed("inspect", "implementations", env={**os.environ, "COMBA_IMPL": "cpu.reference"})
    assert forced.rstrip().endswith("cpu.reference   yes, chosen by COMBA_IMPL")
    assert "first choice" not in forced
    complaint = comba.fail(2, "inspect", "implementations", env={**os.environ, "COMBA_IMPL": "cpu.refrence"})
    assert "COMBA_IMPL must name an implementation, as cpu.reference; got cpu.refrence" in complaint
