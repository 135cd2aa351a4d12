"""The layers of Comba models as torch.nn modules: mixers with a state, and what stands around them."""

from comba.nn.attention import Attention
from comba.nn.delta_rule import Comba, DeltaRuleMixer, GatedDeltaNet
from comba.nn.layers import RMSNorm, ShortConvolution, SwiGLU
from comba.nn.state import LayerState

__all__ = ["Attention", "Comba", "DeltaRuleMixer", "GatedDeltaNet", "LayerState", "RMSNorm", "ShortConvolution", "SwiGLU"]
