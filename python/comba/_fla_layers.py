"""comba.patch_fla: the Comba and GatedDeltaNet layers of flash-linear-attention on our operators.

Its layers call their operators by names of their own module, looked up at every call, and convolutions and norms by
their classes. On CPUs, where fla's kernels do not run, convolution and norms of these layers become ours too; models
run there with fuse_norm, fuse_swiglu and fuse_cross_entropy off.
"""

import functools
import importlib

import torch
import torch.nn.functional as F

from comba import ops
from comba._patch import Patch

OPERATORS = {
    "comba": ("chunk_comba", "fused_recurrent_comba"),
    "gated_delta_rule": ("chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"),
}
LAYERS = {"comba": "comba", "gated_deltanet": "gated_delta_rule"}
CLASSES = ("ShortConvolution", "FusedRMSNormGated", "RMSNorm", "GatedMLP")
OLDEST = "0.6"
NOTE = "Convolution, norms and MLP are replaced for CPUs alone; on GPUs fla's own run."

_active = Patch("fla")


def patch_fla() -> Patch:
    """fla's layers Comba and GatedDeltaNet, its models of them, and their operators in fla.ops run on ours, with the
    same arguments and results: on GPUs, and also on CPUs, where fla has no kernels. Layers and models built before are
    changed as well as those built after. Needs fla-core and flash-linear-attention 0.6.

    Returns the patch: its text tells what was replaced, `undo()` or the end of a `with` statement puts it back. A
    second call while one is active returns that one.

    ImportError when flash-linear-attention is missing or laid out differently.
    """
    global _active
    if not _active.is_active:
        _active = _patch()
    return _active


def _import(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"[patch_fla] flash-linear-attention {OLDEST} must be installed, with fla-core and Triton; "
                          f"importing {name} failed: {error}") from error


def _patch() -> Patch:
    layers = {layer: _import(f"fla.layers.{layer}") for layer in LAYERS}
    modules = [(_import("fla.ops"), name) for names in OPERATORS.values() for name in names]
    modules += [(_import(f"fla.ops.{folder}"), name) for folder, names in OPERATORS.items() for name in names]
    modules += [(layers[layer], name) for layer, folder in LAYERS.items() for name in OPERATORS[folder]]
    modules += [(layers["gated_deltanet"], "causal_conv1d")]
    classes = [getattr(_import("fla.modules"), name, None) for name in CLASSES]
    missing = [f"{module.__name__}.{name}" for module, name in modules if name not in vars(module)]
    if missing or None in classes:
        raise ImportError(f"[patch_fla] flash-linear-attention must be laid out as its release {OLDEST}; got one without "
                          f"{', '.join(missing) or 'the classes of fla.modules'}")
    patch = Patch("fla", NOTE)
    for module, name in modules[:-1]:
        patch.replace(module, name, functools.partial(_ours, getattr(ops, name)))
    patch.replace(*modules[-1], _causal_conv1d)
    for owner, make in zip(classes, (_short_convolution, _gated_norm, _norm, _mlp), strict=True):
        patch.replace(owner, "forward", make)
    return patch


def _ours(operator, original):
    """fla adds arguments from release to release; what we do not know must be what fla takes when it is not given."""
    known = operator.__code__.co_varnames[: operator.__code__.co_argcount + operator.__code__.co_kwonlyargcount]

    @functools.wraps(original)
    def call(*args, **kwargs):
        if unknown := [name for name, value in kwargs.items() if name not in known and value not in (None, False)]:
            raise ValueError(f"[{operator.__name__}] {unknown[0]} is not known to comba; got {kwargs[unknown[0]]!r}. "
                             "Undo patch_fla() to use it")
        return operator(*args, **{name: value for name, value in kwargs.items() if name in known})

    return call


def _convolve(x, weight, bias, activation, tail=None, borders=None):
    """x [B, T, D], weight [D, W], tail [B, W - 1, D] -> [B, T, D]; ours where there is neither bias nor another
    activation than SiLU."""
    if bias is None and activation in ("silu", "swish"):
        return torch.ops.comba.short_convolution(x, weight.unsqueeze(1), tail, borders)
    if borders is not None:
        ends = borders.tolist()
        return torch.cat([_convolve(x[:, a:b], weight, bias, activation) for a, b in zip(ends, ends[1:])], 1)
    history = x.new_zeros(x.size(0), weight.size(1) - 1, x.size(2)) if tail is None else tail
    z = F.conv1d(torch.cat([history, x], 1).transpose(1, 2), weight.unsqueeze(1).to(x.dtype),
                 None if bias is None else bias.to(x.dtype), groups=weight.size(0)).transpose(1, 2)
    return z if activation is None else F.silu(z)


def _causal_conv1d(original):
    @functools.wraps(original)
    def causal_conv1d(x, weight=None, bias=None, residual=None, initial_state=None, output_final_state=False,
                      activation=None, *args, **kwargs):
        plain = residual is None and initial_state is None and not output_final_state and not args
        if x.device.type != "cpu" or not plain or kwargs.get("cu_seqlens") is not None:
            return original(x, weight, bias, residual, initial_state, output_final_state, activation, *args, **kwargs)
        return _convolve(x, weight, bias, activation), None

    return causal_conv1d


def _short_convolution(original):
    @functools.wraps(original)
    def forward(self, x, residual=None, mask=None, cache=None, output_final_state=False, cu_seqlens=None, **kwargs):
        if x.device.type != "cpu":
            return original(self, x, residual, mask, cache, output_final_state, cu_seqlens, **kwargs)
        x = x if mask is None else x * mask.unsqueeze(-1)
        y, state = _with_state(self, x, cache, output_final_state, cu_seqlens)
        # As fla's: one token of each sequence without gradients advances the given cache in place.
        if cache is not None and state is not None and x.shape[:2].numel() == cache.size(0) and not torch.is_grad_enabled():
            state = cache.copy_(state)
        return y if residual is None else y + residual, state

    return forward


def _with_state(layer, x, cache, output_final_state, cu_seqlens):
    """The outputs [B, T, D], and the last W inputs of each sequence [N, D, W] if they are asked for, else None."""
    weight, bias, activation = layer.weight.squeeze(1), layer.bias, layer.activation
    if cu_seqlens is not None and cache is None and not output_final_state:
        return _convolve(x, weight, bias, activation, borders=cu_seqlens), None
    if cu_seqlens is not None:
        ends = cu_seqlens.tolist()
        parts = [_with_state(layer, x[:, a:b], None if cache is None else cache[n : n + 1], output_final_state, None)
                 for n, (a, b) in enumerate(zip(ends, ends[1:]))]
        states = torch.cat([state for _, state in parts]) if output_final_state else None
        return torch.cat([y for y, _ in parts], 1), states
    width = weight.size(1)
    past = x.new_zeros(x.size(0), width, x.size(2)) if cache is None else cache.transpose(1, 2).to(x.dtype)
    y = _convolve(x, weight, bias, activation, tail=past[:, 1:])
    state = torch.cat([past, x], 1)[:, -width:].transpose(1, 2).contiguous() if output_final_state else None
    return y, state


def _gated_norm(original):
    @functools.wraps(original)
    def forward(self, x, g, residual=None, prenorm=False, residual_in_fp32=False):
        if x.device.type != "cpu" or self.weight is None or residual is not None or prenorm:
            return original(self, x, g, residual, prenorm, residual_in_fp32)
        function = "sigmoid" if self.activation == "sigmoid" else "silu"
        return torch.ops.comba.rms_norm(x, self.weight, g, gate_function=function, eps=self.eps)

    return forward


def _norm(original):
    @functools.wraps(original)
    def forward(self, x, residual=None, prenorm=False, residual_in_fp32=False):
        if x.device.type != "cpu" or self.weight is None or self.bias is not None:
            return original(self, x, residual, prenorm, residual_in_fp32)
        if residual is not None:
            x = (x.float() + residual.float()) if residual_in_fp32 else x + residual
        y = torch.ops.comba.rms_norm(x, self.weight, eps=self.eps)
        return (y, x) if prenorm else y

    return forward


def _mlp(original):
    @functools.wraps(original)
    def forward(self, x, **kwargs):
        if x.device.type != "cpu" or self.hidden_act not in ("swish", "silu"):
            return original(self, x, **kwargs)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    return forward
