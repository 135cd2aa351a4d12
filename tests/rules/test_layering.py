"""An include goes only to an earlier layer, and LibTorch's headers stay above the line that may know them."""

import pytest

from rules import tree

# The layers of src/, from the bottom up. Folders that share a line do not see each other.
LAYERS = [["base"], ["runtime"], ["operators", "data"], ["libtorch", "distributed"], ["nn"], ["models"], ["generation", "evaluation"], ["training"], ["tasks"], ["ablation"]]
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}
TORCH_ROOTS = {"torch", "ATen", "c10"}


def violations(path: str, text: str) -> list[str]:
    layer = path.split("/")[1] if path.startswith("src/") else None
    found = []
    for line, kind, included in tree.includes(text):
        root = included.split("/")[0]
        if layer is None:  # a public header: other public headers and the standard library only
            if root in RANK or root in TORCH_ROOTS:
                found.append(f"{path}:{line}: a public header includes {included}")
        elif root in TORCH_ROOTS and RANK[layer] < RANK["libtorch"]:
            found.append(f"{path}:{line}: {layer} is below LibTorch and includes {included}")
        elif kind == '"' and root in RANK and root != layer and RANK[root] >= RANK[layer]:
            found.append(f"{path}:{line}: {layer} includes {included} of a layer that is not below it")
    return found


@pytest.mark.parametrize("path", tree.code_files("src/", "include/"))
def test_includes_go_down(path):
    if path.startswith("src/"):
        assert path.split("/")[1] in RANK, f"{path} is in no layer: add its folder to LAYERS and CMakeLists.txt"
    assert violations(path, tree.read(path)) == []


@pytest.mark.parametrize(
    "path, text",
    [
        ("src/base/file.cpp", '#include "runtime/parallel.h"'),
        ("src/operators/delta_rule/delta_rule.cpp", '#include "data/pack.h"'),
        ("src/generation/sampler.cpp", '#include "evaluation/evaluate.h"'),
        ("src/models/causal_lm.h", '#include "training/trainer.h"'),
        ("src/data/pack.cpp", "#include <torch/torch.h>"),
        ("src/operators/x.cpp", '#include "ATen/ATen.h"'),
        ("include/comba/view.h", '#include "base/message.h"'),
    ],
)
def test_the_rule_can_fail(path, text):
    assert violations(path, text)


def test_the_rule_lets_good_includes_pass():
    assert violations("src/nn/linear.cpp", '#include "base/file.h"\n#include "nn/linear.h"\n#include <torch/torch.h>') == []
