"""What every call checks before torch's dispatcher sees it, which takes anything for anything."""

import torch

NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def require_tensors(where: str, **arguments: object) -> None:
    """Dense tensors on one kind of device that has kernels."""
    for name, value in arguments.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"[{where}] {name} must be a tensor; got {describe(value)}")
        if value.layout != torch.strided:
            raise ValueError(f"[{where}] {name} must be dense; got layout {value.layout}")
        if value.device.type not in ("cpu", "cuda", "meta"):
            raise ValueError(f"[{where}] {name} must be on the CPU or an NVIDIA GPU; got {value.device}")


def require_optional_tensors(where: str, **arguments: object) -> None:
    require_tensors(where, **{name: value for name, value in arguments.items() if value is not None})


def require_number(where: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise ValueError(f"[{where}] {name} must be a number; got {describe(value)}")


def require_flags(where: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"[{where}] {name} must be True or False; got {describe(value)}")


def require_absent(where: str, why: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"[{where}] {name} must be None: {why}; got {describe(value)}")


def require_word(where: str, name: str, value: object, words: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"[{where}] {name} must be {' or '.join(words)}; got {value!r}")


def to_fp32(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """What the operators take in fp32 alone may come in any floating dtype."""
    return tensor.float() if tensor is not None and tensor.is_floating_point() else tensor


def wants_gradient(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
