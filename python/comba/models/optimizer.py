"""Which parameters the paper's recipe lets decay."""

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float = 0.01) -> list[dict]:
    """For torch.optim.AdamW: matrices and convolutions decay; norms, biases, A_log, dt_bias, D and decay do not."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.dim() >= 2], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
    ]
