"""comba.patch_transformers: what transformers computes with its own PyTorch code, on our operators."""

import contextlib
import copy
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="transformers is not installed")

from torch.utils._python_dispatch import TorchDispatchMode

import comba
from comba import _transformers
from python import transformers_models as models

every_model = pytest.mark.parametrize("name", list(models.CONFIGS))
OURS = {"delta_rule", "delta_rule_decode_step", "short_convolution_fused", "rms_norm_fused"}


class Called(TorchDispatchMode):
    """The names of our operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "comba":
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def error(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """Ratio of root mean squares."""
    actual, reference = actual.double(), reference.double()
    assert actual.isfinite().all()
    return ((actual - reference).square().mean() / reference.square().mean()).sqrt().item()


def gated_delta_net(model) -> torch.nn.Module:
    """The first such layer."""
    return next(module for module in model.modules() if type(module).__name__.endswith("GatedDeltaNet"))


def logits(model, batch) -> torch.Tensor:
    """Of the tokens that are no padding."""
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    with torch.no_grad():
        return model(**batch).logits[batch["attention_mask"].bool()]


def greedy(model, batch, **options) -> torch.Tensor:
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    return model.generate(**batch, max_new_tokens=20, do_sample=False, pad_token_id=0, **options)


def gradients(model, batch) -> dict:
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    model.zero_grad()
    model.train()(**batch, labels=labels).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@every_model
def test_logits_text_and_undoing(name, device):
    model, batch = models.tiny(name).to(device), models.padded_batch()
    before, text = logits(model, batch), greedy(model, batch)
    with comba.patch_transformers() as patch, Called() as called:
        assert f"modeling_{name}" in str(patch) and "causal_conv1d_update" in str(patch)
        patched, patched_text = logits(model, batch), greedy(model, batch)
        later = logits(models.tiny(name).to(device), batch)
    assert 0 < error(patched, before) < 1e-4
    assert torch.equal(later, patched), "a model built later"
    assert torch.equal(patched_text, text)
    assert called.names == OURS
    assert not patch.is_active and "nothing" in str(patch)
    with Called() as called:
        assert torch.equal(logits(model, batch), before), "undo restores the bits"
    assert not called.names


@every_model
def test_the_cache_holds_the_same(name, device):
    model, ids = models.tiny(name).to(device), models.padded_batch()["input_ids"][1:].to(device)

    def states() -> list:
        with torch.no_grad():
            cache = model(ids[:, :100], use_cache=True).past_key_values
            model(ids[:, 100:130], past_key_values=cache, use_cache=True)  # on from a state
            model(ids[:, 130:131], past_key_values=cache, use_cache=True)  # one token
        linear = [layer for layer in cache.layers if hasattr(layer, "recurrent_states")]
        return [s for layer in linear for s in (layer.conv_states[0], layer.recurrent_states[0])]

    expected = states()
    with comba.patch_transformers():
        actual = states()
    assert len(actual) == 4
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) and error(ours, theirs) < 1e-4


@every_model
def test_gradients_and_checkpointing(name, device):
    model, batch = models.tiny(name).to(device), models.padded_batch(100)
    expected = gradients(model, batch)
    with comba.patch_transformers():
        actual = gradients(model, batch)
        model.gradient_checkpointing_enable()
        again = gradients(model, batch)
    assert actual.keys() == expected.keys() and any("A_log" in key for key in actual)
    for key in expected:
        assert error(actual[key], expected[key]) < (1e-3 if "A_log" in key or "dt_bias" in key else 2e-4), key
        assert error(again[key], actual[key]) < 1e-6, f"{key} with gradient checkpointing"


@every_model
def test_bf16_is_no_further_from_fp32(name, device):
    model, batch = models.tiny(name).to(device).bfloat16(), models.padded_batch()
    layer = gated_delta_net(model)
    exact = copy.deepcopy(layer).float()
    x = torch.randn(2, 150, 64, generator=torch.Generator().manual_seed(4)).to(device, torch.bfloat16)
    with torch.no_grad():
        reference, theirs = exact(x.float()), layer(x)
        with comba.patch_transformers():
            ours = layer(x)
    assert ours.dtype == torch.bfloat16
    assert error(ours, reference) < 1.2 * error(theirs, reference)
    with comba.patch_transformers():  # as a whole: experts may be chosen otherwise after another rounding
        assert error(logits(model, batch), logits(model.float(), batch)) < 0.3
        assert all(gradient.isfinite().all() for gradient in gradients(model.bfloat16(), batch).values())
        assert greedy(model.eval(), batch).shape == (2, 170)


def test_packed_sequences_stay_apart(device):
    model, ids = models.tiny("qwen3_5").to(device), models.padded_batch(90)["input_ids"][1:].to(device)
    ends = [0, 15, 50, 90]
    pieces = [ids[:, a:b] for a, b in zip(ends, ends[1:])]
    cu_seqlens = torch.tensor(ends, dtype=torch.int32, device=device)
    numbers = torch.cat([torch.full((p.size(1),), n, dtype=torch.int32, device=device) for n, p in enumerate(pieces)])
    layer = gated_delta_net(model)
    x = model.get_input_embeddings()(ids).detach()
    with torch.no_grad(), comba.patch_transformers() as patch:
        expected = torch.cat([layer(x[:, a:b]) for a, b in zip(ends, ends[1:])], 1)
        for told in ({}, {"seq_idx": numbers[None]}):
            assert error(layer(x, cu_seq_lens_q=cu_seqlens, **told), expected) < 1e-5
        patch.undo()
        with contextlib.suppress(ValueError):  # transformers alone refuses, in 5.17 it looks across the borders
            assert error(layer(x, cu_seq_lens_q=cu_seqlens), expected) > 1e-3


@pytest.mark.parametrize("module", _transformers._modeling_modules(), ids=lambda module: module.__name__.split(".")[2])
def test_a_layer_of_each_model_that_is_named(module):
    from transformers import AutoConfig

    name = module.__name__.split(".")[2]
    known = [key for key in (f"{name}_text", name) if key in transformers_model_types()]
    config = AutoConfig.for_model(known[0], **{**models.COMMON, "hidden_act": "silu"})
    (layer_type,) = [value for key, value in vars(module).items() if key.endswith("GatedDeltaNet")]
    torch.manual_seed(3)
    layer, x = layer_type(config, 0), torch.randn(2, 70, 64)
    with torch.no_grad():
        expected = layer(x)
        with comba.patch_transformers():
            assert 0 < error(layer(x), expected) < 1e-5


def transformers_model_types():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def test_what_we_do_not_take_runs_as_before():
    layer = gated_delta_net(models.tiny("qwen3_next", linear_key_head_dim=320))
    x = torch.randn(1, 30, 64)
    with torch.no_grad():
        wide, double = layer(x), layer.double()(x.double())
        with comba.patch_transformers(), Called() as called:
            assert torch.equal(layer(x.double()), double) and not called.names
            # The operators beside the rule are ours at any head dim.
            assert error(layer.float()(x), wide) < 1e-5 and "delta_rule" not in called.names


def test_patching_twice_is_patching_once():
    first = comba.patch_transformers()
    assert comba.patch_transformers() is first
    first.undo()
    first.undo()
    with comba.patch_transformers() as again:
        assert again is not first and again.is_active


def test_what_others_replaced_since_stays():
    from transformers.models.olmo_hybrid import modeling_olmo_hybrid as module

    patch, original = comba.patch_transformers(), module.causal_conv1d_fn.__wrapped__
    theirs = module.causal_conv1d_fn = lambda *arguments: None
    try:
        with pytest.warns(UserWarning, match="causal_conv1d_fn of transformers was replaced again"):
            patch.undo()
        assert module.causal_conv1d_fn is theirs
    finally:
        module.causal_conv1d_fn = original


def test_refusals_say_what_to_do(monkeypatch):
    monkeypatch.setattr(_transformers, "MODELS", ("no_such_model",))
    with pytest.raises(ImportError, match=r"must have one of no_such_model .* got transformers 5\S* without"):
        comba.patch_transformers()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="transformers must be installed"):
        comba.patch_transformers()
