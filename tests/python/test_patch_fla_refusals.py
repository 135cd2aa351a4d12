"""comba.patch_fla without flash-linear-attention."""

import sys

import pytest

pytest.importorskip("torch")

import comba


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fla", None)
    monkeypatch.setitem(sys.modules, "fla.layers", None)
    monkeypatch.setitem(sys.modules, "fla.layers.comba", None)
    with pytest.raises(ImportError, match="flash-linear-attention 0.6 must be installed"):
        comba.patch_fla()
