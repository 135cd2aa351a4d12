"""comba.patch_transformers: the Gated DeltaNet layers of transformers on our operators.

Their modeling files call four functions by names of the module, looked up at every call, and a gated norm by its
class: what takes their place there serves the models that exist and those built later.
"""

import functools
import importlib

import torch
from torch.compiler import is_exporting

from comba import ops
from comba._patch import Patch

MODELS = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "olmo_hybrid", "qwen4_exp")
FUNCTIONS = ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule", "causal_conv1d_fn", "causal_conv1d_update")
OLDEST = "5.17"
NOTE = "On GPUs the convolution and the gated norm stay as they were: there are no kernels for them here."

_active = Patch("transformers")


def patch_transformers() -> Patch:
    """The Gated DeltaNet layers of Qwen3-Next, Qwen3.5 (dense and mixture of experts), OLMo-Hybrid and Qwen4-Exp in
    transformers >= 5.17 run on our operators: the delta rule on CPU and GPU; causal convolution and gated norm on the
    CPU. Models built before are changed as well as those built after.

    What our operators do not take runs as before: head dims above 256, other dtypes than fp32, bf16 and fp16, other
    devices, torch.export. Packed sequences (`cu_seq_lens_q`, or `seq_idx`), which transformers alone
    refuses or mixes, work.

    Returns the patch: its text tells what was replaced, `undo()` or the end of a `with` statement puts it back. A
    second call while one is active returns that one.

    ImportError when transformers is missing, or has none of these models.
    """
    global _active
    if not _active.is_active:
        _active = _patch(_modeling_modules())
    return _active


def _modeling_modules() -> list:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"[patch_transformers] transformers must be installed (>= {OLDEST}): pip install transformers") from error
    modules = []
    for model in MODELS:
        name = f"transformers.models.{model}.modeling_{model}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or ""):
                raise
            continue
        if all(hasattr(module, function) for function in FUNCTIONS):
            modules.append(module)
    if not modules:
        raise ImportError(f"[patch_transformers] transformers must have one of {', '.join(MODELS)} as its release {OLDEST} has "
                          f"them; got transformers {transformers.__version__} without: pip install -U transformers")
    return modules


def _patch(modules: list) -> Patch:
    patch = Patch("transformers", NOTE)
    for module in modules:
        patch.replace(module, "torch_chunk_gated_delta_rule", _chunk_rule)
        patch.replace(module, "torch_recurrent_gated_delta_rule", _recurrent_rule)
        patch.replace(module, "causal_conv1d_fn", _convolution)
        patch.replace(module, "causal_conv1d_update", _convolution_update)
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == module.__name__ and name.endswith("RMSNormGated"):
                patch.replace(value, "forward", _gated_norm)
    return patch


def _can_run(x: torch.Tensor) -> bool:
    right_dtype = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.device.type in ("cpu", "cuda") and right_dtype and not is_exporting()


def _can_run_rule(query: torch.Tensor, value: torch.Tensor) -> bool:
    return _can_run(query) and max(query.shape[-1], value.shape[-1]) <= 256


def _chunk_rule(original):
    @functools.wraps(original)
    def chunk_gated_delta_rule(query, key, value, g, beta, chunk_size=64, initial_state=None, output_final_state=False,
                               use_qk_l2norm_in_kernel=False, cu_seqlens=None, **kwargs):
        options = dict(initial_state=initial_state, output_final_state=output_final_state,
                       use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens)
        if not _can_run_rule(query, value):
            return original(query, key, value, g, beta, chunk_size=chunk_size, **options, **kwargs)
        return ops.chunk_gated_delta_rule(query, key, value, g, beta, **options)

    return chunk_gated_delta_rule


def _recurrent_rule(original):
    @functools.wraps(original)
    def recurrent_gated_delta_rule(query, key, value, g, beta, initial_state=None, output_final_state=False,
                                   use_qk_l2norm_in_kernel=False, cu_seqlens=None, **kwargs):
        options = dict(initial_state=initial_state, output_final_state=output_final_state,
                       use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens)
        if not _can_run_rule(query, value):
            return original(query, key, value, g, beta, **options, **kwargs)
        return ops.fused_recurrent_gated_delta_rule(query, key, value, g, beta=beta, **options)

    return recurrent_gated_delta_rule


def _convolution(original):
    @functools.wraps(original)
    def causal_conv1d_fn(hidden_states, weight, bias=None, activation=None, **kwargs):  # [B, C, T], [C, W]
        borders = _borders(kwargs, hidden_states.shape[-1])
        ours = bias is None and activation in ("silu", "swish")
        if not ours or not _can_run(hidden_states):
            return original(hidden_states, weight, bias, activation=activation, **kwargs)
        y = torch.ops.comba.short_convolution(hidden_states.transpose(1, 2), weight.unsqueeze(1), None, borders)
        return y.transpose(1, 2)

    return causal_conv1d_fn


def _borders(kwargs: dict, num_tokens: int) -> torch.Tensor | None:
    """Of packed sequences, cu_seqlens [N + 1], from what the layer is told of them."""
    if (cu_seqlens := kwargs.get("cu_seq_lens_q")) is not None:
        return cu_seqlens
    if (seq_idx := kwargs.get("seq_idx")) is None:
        return None
    if seq_idx.shape != (1, num_tokens):
        raise ValueError(f"[causal_conv1d_fn] seq_idx must have shape [1, T] = [1, {num_tokens}]; got {list(seq_idx.shape)}")
    starts = seq_idx[0].diff().nonzero().flatten() + 1
    return torch.cat([starts.new_zeros(1), starts, starts.new_full((1,), num_tokens)])


def _convolution_update(original):
    @functools.wraps(original)
    def causal_conv1d_update(hidden_states, conv_state, weight, bias=None, activation=None):  # [B, C, T], [B, C, S]
        tokens, state_tokens, history = hidden_states.shape[-1], conv_state.shape[-1], weight.shape[-1] - 1
        ours = bias is None and activation in ("silu", "swish") and state_tokens >= history
        if not ours or not _can_run(hidden_states):
            return original(hidden_states, conv_state, weight, bias, activation)
        tail = conv_state[..., state_tokens - history :].to(hidden_states.dtype).transpose(1, 2)
        y = torch.ops.comba.short_convolution(hidden_states.transpose(1, 2), weight.unsqueeze(1), tail)
        conv_state.copy_(torch.cat([conv_state[..., tokens:], hidden_states[..., -state_tokens:]], dim=-1))
        return y.transpose(1, 2)

    return causal_conv1d_update


def _gated_norm(original):
    @functools.wraps(original)
    def forward(self, hidden_states, gate):
        if self.activation != "silu" or not _can_run(hidden_states):
            return original(self, hidden_states, gate)
        return torch.ops.comba.rms_norm(hidden_states, self.weight, gate, eps=self.variance_epsilon)

    return forward
