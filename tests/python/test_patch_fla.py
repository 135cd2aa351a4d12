"""comba.patch_fla: flash-linear-attention's Comba and Gated DeltaNet on our operators."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fla warns of a machine without a GPU
    pytest.importorskip("fla.layers", reason="flash-linear-attention is not installed")
    from fla import layers, models

import torch.nn.functional as F

import comba

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")
SIZES = dict(hidden_size=64, num_heads=2, head_dim=16, expand_v=1)
LAYERS = {
    "comba": (layers.Comba, {}),
    "comba, more value heads": (layers.Comba, {"num_v_heads": 4}),
    "comba, bias": (layers.Comba, {"conv_bias": True, "use_output_gate": False}),
    "gated_deltanet": (layers.GatedDeltaNet, {}),
    "gated_deltanet, negative": (layers.GatedDeltaNet, {"allow_neg_eigval": True, "num_v_heads": 4}),
}
MODELS = {
    "comba": (models.CombaConfig, models.CombaForCausalLM),
    "gated_deltanet": (models.GatedDeltaNetConfig, models.GatedDeltaNetForCausalLM),
}
every_layer = pytest.mark.parametrize("name", list(LAYERS))
every_model = pytest.mark.parametrize("name", list(MODELS))


def layer_of(name: str) -> torch.nn.Module:
    layer_type, options = LAYERS[name]
    torch.manual_seed(1)
    layer = layer_type(**SIZES, **options, layer_idx=0)
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            if "A_log" not in key and "dt_bias" not in key:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 1))
    return layer


def definition(layer, x):
    """fla's layer from its definition, token by token (README of src/operators/delta_rule)."""

    def convolved(part):
        conv, y = getattr(layer, f"{part}_conv1d"), getattr(layer, f"{part}_proj")(x)
        z = F.conv1d(F.pad(y.transpose(1, 2), (3, 0)), conv.weight, conv.bias, groups=conv.weight.size(0))
        return F.silu(z).transpose(1, 2)

    def normal(y):
        return y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    q, k, v = (convolved(part).unflatten(2, (-1, 16)) for part in "qkv")
    group = v.size(2) // q.size(2)
    is_comba = isinstance(layer, layers.Comba)
    p = k * layer.decay[:, None].sigmoid() if is_comba else k
    q = q - layer.D[:, None] * p if is_comba else q
    q, k, p = (normal(y).repeat_interleave(group, dim=2) for y in (q, k, p))
    beta = layer.b_proj(x).sigmoid() * (2 if getattr(layer, "allow_neg_eigval", False) else 1)
    decay = (-layer.A_log.exp() * F.softplus(layer.a_proj(x) + layer.dt_bias)).exp()
    state, outputs = x.new_zeros(x.size(0), v.size(2), 16, 16), []
    for t in range(x.size(1)):
        kept = decay[:, t, :, None, None] * state
        read = torch.einsum("bhkv,bhk->bhv", state if is_comba else kept, p[:, t])
        state = kept + k[:, t, :, :, None] * (beta[:, t, :, None] * (v[:, t] - read))[:, :, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t] * 16**-0.5))
    o = torch.stack(outputs, 1)
    o = o / (o.square().mean(-1, keepdim=True) + layer.o_norm.eps).sqrt() * layer.o_norm.weight
    if hasattr(layer, "g_proj"):
        gate = layer.g_proj(x).unflatten(2, (-1, 16))
        o = o * (gate.sigmoid() if is_comba else F.silu(gate))
    return layer.o_proj(o.flatten(2))


def error(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """Ratio of root mean squares."""
    actual, reference = actual.cpu().double(), reference.cpu().double()
    assert actual.isfinite().all()
    return ((actual - reference).square().mean() / reference.square().mean()).sqrt().item()


@every_layer
def test_layers_are_what_they_are_defined_to_be(name):
    layer, x = layer_of(name), torch.randn(2, 100, 64, generator=torch.Generator().manual_seed(2))
    wide = copy.deepcopy(layer).double()
    expected = definition(wide, x.double())
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).double()
    expected.backward(cotangent)
    with comba.patch_fla():
        y, _, _ = layer(x)
        y.backward(cotangent.float())
        with torch.no_grad():  # token by token
            assert error(layer.eval()(x[:, :40])[0], expected[:, :40]) < 2e-5
    assert error(y.detach(), expected.detach()) < 2e-5
    for (key, parameter), reference in zip(layer.named_parameters(), wide.parameters(), strict=True):
        assert error(parameter.grad, reference.grad) < 1e-3, key


def model_of(name: str, **options):
    config, model = MODELS[name]
    torch.manual_seed(1)
    config = config(**SIZES, num_hidden_layers=2, vocab_size=64, fuse_cross_entropy=False, initializer_range=0.2, **options)
    return model(config).eval()


@every_model
@pytest.mark.parametrize("fused", [False, True])
def test_models_on_the_cpu(name, fused):
    model = model_of(name, fuse_norm=fused, fuse_swiglu=fused)
    ids = torch.randint(1, 64, (2, 80), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[0, :15] = 0
    options = dict(max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=None)
    with comba.patch_fla():
        loss = model.train()(ids, labels=ids).loss
        loss.backward()
        text = model.eval().generate(ids, **options)
        padded = model.generate(ids * mask, attention_mask=mask, **options)
        alone = model.generate(ids[:1, 15:], **options)
        with torch.no_grad():
            whole = model(text).logits.argmax(-1)
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters())
    assert torch.equal(text[:, 80:], whole[:, 79:-1]), "with a cache as without"
    assert torch.equal(padded[1], text[1]) and torch.equal(padded[0, 80:], alone[0, 65:]), "padding changes nothing"


@needs_gpu
@every_layer
def test_layers_on_a_gpu_are_what_they_are_defined_to_be(name):
    layer = layer_of(name).bfloat16()
    x, cotangent = (torch.randn(2, 100, 64, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in (2, 3))
    wide = copy.deepcopy(layer).double()
    expected = definition(wide, x.double())
    expected.backward(cotangent.double())
    layer.cuda()
    with comba.patch_fla():
        y = layer(x.cuda())[0]
        y.backward(cotangent.cuda())
    assert error(y.detach(), expected.detach()) < 0.02
    for (key, parameter), reference in zip(layer.named_parameters(), wide.parameters(), strict=True):
        assert error(parameter.grad, reference.grad) < 0.05, key


# fla's Comba has no backward pass on every GPU (on Hopper it wants TileLang), and its kernels compile for minutes.
@needs_gpu
@pytest.mark.long
@pytest.mark.parametrize("name", ["comba", "gated_deltanet"])
def test_layers_on_a_gpu_agree_with_fla(name):
    layer = layer_of(name).cuda().bfloat16()
    x = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(2)).cuda().bfloat16()
    with torch.no_grad():
        theirs = layer(x)[0]
        with comba.patch_fla():
            assert error(layer(x)[0], theirs) < 0.03


def test_what_is_replaced_and_undone():
    import fla.ops
    from fla.layers import comba as module
    from fla.ops.comba import chunk_comba

    with comba.patch_fla() as patch:
        assert comba.patch_fla() is patch
        assert module.chunk_comba is not chunk_comba
        for what in ("fla.layers.comba: chunk_comba, fused_recurrent_comba", "fla.ops.gated_delta_rule", "ShortConvolution.forward"):
            assert what in str(patch)
        with pytest.raises(ValueError, match="cp_context"):
            x = torch.zeros(1, 1, 1, 16)
            fla.ops.chunk_gated_delta_rule(x, x, x, x[..., 0], x[..., 0], cp_context=object())
    assert module.chunk_comba is chunk_comba and not patch.is_active


def test_another_layout_is_refused(monkeypatch):
    import fla.layers.comba

    monkeypatch.delattr(fla.layers.comba, "chunk_comba")
    with pytest.raises(ImportError, match=r"release 0.6; got one without fla.layers.comba.chunk_comba"):
        comba.patch_fla()
