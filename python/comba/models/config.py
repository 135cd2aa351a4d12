"""Model configurations: the keys, meaning and defaults of config.json that the program and flash-linear-attention use."""

import math

from transformers import PreTrainedConfig

LARGEST_HEAD_DIM = 256  # what the operator takes


class _LanguageModelConfig(PreTrainedConfig):
    """What all families share.

    Args:
        hidden_size: D.  num_hidden_layers: L.  vocab_size: rows of the embedding.
        intermediate_size: width of the MLP; 0: blocks without one; None: 256 ceil(int(2/3 hidden_ratio D) / 256).
        norm_eps: of every RMSNorm.
        initializer_range: standard deviation of linear, convolution and embedding weights of a new model.
        tie_word_embeddings: the output projection is the embedding.
    """

    keys_to_ignore_at_inference = ["past_key_values"]

    def _set_common(
        self, hidden_size, num_hidden_layers, intermediate_size, hidden_ratio, vocab_size, norm_eps, initializer_range, use_cache
    ) -> None:
        for name, value in (("hidden_size", hidden_size), ("num_hidden_layers", num_hidden_layers), ("vocab_size", vocab_size)):
            if value < 1:
                raise ValueError(f"[config] {name} must be at least 1; got {value}")
        if intermediate_size is None:
            intermediate_size = 256 * math.ceil(int(hidden_size * hidden_ratio * 2 / 3) / 256)
        if intermediate_size < 0:
            raise ValueError(f"[config] intermediate_size must not be negative; got {intermediate_size}")
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.intermediate_size = intermediate_size
        self.vocab_size = vocab_size
        self.norm_eps = norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache

    def attention_of_layer(self, layer: int) -> dict | None:
        """The arguments of comba.nn.Attention for a layer that has it, else None."""
        raise NotImplementedError


class _RecurrentConfig(_LanguageModelConfig):
    """What Comba and Gated DeltaNet share.

    Args:
        num_heads: H.  num_v_heads: HV, a multiple of H; None: H.  head_dim: K.  expand_v: V / K.
        conv_size: width of the short convolutions.  use_short_conv: False: SiLU alone.
        attn: the attention layers of a hybrid: {"layers": [7, 15], "num_heads": 16}, and if wanted num_kv_heads,
            qkv_bias, window_size (tokens seen; None: all) and rope_theta.
    """

    def _set_recurrent(self, num_heads, num_v_heads, head_dim, expand_v, conv_size, use_short_conv, attn) -> None:
        num_v_heads = num_heads if num_v_heads is None else num_v_heads
        if num_heads < 1 or num_v_heads < 1 or num_v_heads % num_heads:
            raise ValueError(f"[config] num_v_heads must be a multiple of num_heads; got {num_v_heads} and {num_heads}")
        if not 1 <= head_dim <= LARGEST_HEAD_DIM:
            raise ValueError(f"[config] head_dim must be from 1 to {LARGEST_HEAD_DIM}; got {head_dim}")
        if head_dim * expand_v != int(head_dim * expand_v) or not 1 <= head_dim * expand_v <= LARGEST_HEAD_DIM:
            raise ValueError(
                f"[config] head_dim * expand_v must be a whole number up to {LARGEST_HEAD_DIM}; got {head_dim} * {expand_v}"
            )
        for layer in (attn or {}).get("layers", []):
            if not 0 <= layer < self.num_hidden_layers:
                raise ValueError(f"[config] attn.layers must be from 0 to {self.num_hidden_layers - 1}; got {layer}")
        self.num_heads = num_heads
        self.num_v_heads = num_v_heads
        self.head_dim = head_dim
        self.expand_v = expand_v
        self.conv_size = conv_size
        self.use_short_conv = use_short_conv
        self.attn = attn

    def attention_of_layer(self, layer: int) -> dict | None:
        if not self.attn or layer not in self.attn["layers"]:
            return None
        known = ("num_heads", "num_kv_heads", "qkv_bias", "window_size", "rope_theta")
        return {key: self.attn[key] for key in known if self.attn.get(key) is not None}


class CombaConfig(_RecurrentConfig):
    """A Comba model, or a hybrid of Comba and attention. The defaults are those of the paper's 340M model.

    Args beside those of its bases:
        comba_convention: "paper", or "fla": how flash-linear-attention normalises, and what a file without the key means.
        comba_rule: "splr" (correct, then decay) or "iplr" (decay, then correct, with beta up to 2).
        use_output_correction: q - d k.  correction_factor: d of a new model.  learn_correction_factor: False: d stays.
        A_init_max: exp(A_log) of a new model is uniform in (0, this].
        use_inner_decay: b = sigmoid(decay), else 1.  use_output_gate: the gate behind the norm of the heads.
    """

    model_type = "comba"

    def __init__(
        self,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        num_heads: int = 4,
        num_v_heads: int | None = None,
        head_dim: int = 256,
        expand_v: float = 1,
        intermediate_size: int | None = None,
        hidden_ratio: float = 4,
        vocab_size: int = 32000,
        conv_size: int = 4,
        norm_eps: float = 1e-6,
        initializer_range: float = 0.006,
        tie_word_embeddings: bool = True,
        use_output_correction: bool = True,
        use_inner_decay: bool = True,
        use_output_gate: bool = True,
        use_short_conv: bool = True,
        correction_factor: float = 0.02,
        learn_correction_factor: bool = True,
        A_init_max: float = 16,
        comba_convention: str = "paper",
        comba_rule: str = "splr",
        attn: dict | None = None,
        use_cache: bool = True,
        **kwargs,
    ):
        if comba_convention not in ("paper", "fla"):
            raise ValueError(f"[config] comba_convention must be paper or fla; got {comba_convention}")
        if comba_rule not in ("splr", "iplr"):
            raise ValueError(f"[config] comba_rule must be splr or iplr; got {comba_rule}")
        self._set_common(
            hidden_size, num_hidden_layers, intermediate_size, hidden_ratio, vocab_size, norm_eps, initializer_range, use_cache
        )
        self._set_recurrent(num_heads, num_v_heads, head_dim, expand_v, conv_size, use_short_conv, attn)
        self.use_output_correction = use_output_correction
        self.use_inner_decay = use_inner_decay
        self.use_output_gate = use_output_gate
        self.correction_factor = correction_factor
        self.learn_correction_factor = learn_correction_factor
        self.A_init_max = A_init_max
        self.comba_convention = comba_convention
        self.comba_rule = comba_rule
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        # A new model's defaults are ours; what a file leaves out means what its format says.
        meant = {**DEFAULTS_OF_FILES, "correction_factor": 1.0, "comba_convention": "fla"}
        return super().from_dict({**meant, **config_dict}, **kwargs)


class GatedDeltaNetConfig(_RecurrentConfig):
    """A Gated DeltaNet model, or its hybrid with attention.

    Args beside those of its bases: use_gate: the output gate.  allow_neg_eigval: beta up to 2.
        A_init_max: as in CombaConfig.
    """

    model_type = "gated_deltanet"

    def __init__(
        self,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        num_heads: int = 4,
        num_v_heads: int | None = None,
        head_dim: int = 256,
        expand_v: float = 1,
        intermediate_size: int | None = None,
        hidden_ratio: float = 4,
        vocab_size: int = 32000,
        conv_size: int = 4,
        norm_eps: float = 1e-6,
        initializer_range: float = 0.006,
        tie_word_embeddings: bool = True,
        use_gate: bool = True,
        use_short_conv: bool = True,
        allow_neg_eigval: bool = False,
        A_init_max: float = 16,
        attn: dict | None = None,
        use_cache: bool = True,
        **kwargs,
    ):
        self._set_common(
            hidden_size, num_hidden_layers, intermediate_size, hidden_ratio, vocab_size, norm_eps, initializer_range, use_cache
        )
        self._set_recurrent(num_heads, num_v_heads, head_dim, expand_v, conv_size, use_short_conv, attn)
        self.use_gate = use_gate
        self.allow_neg_eigval = allow_neg_eigval
        self.A_init_max = A_init_max
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        return super().from_dict({**DEFAULTS_OF_FILES, "expand_v": 2, **config_dict}, **kwargs)


class TransformerConfig(_LanguageModelConfig):
    """Softmax attention in every layer.  Args beside those of its base: those of comba.nn.Attention."""

    model_type = "transformer"

    def __init__(
        self,
        hidden_size: int = 1024,
        num_hidden_layers: int = 24,
        num_heads: int = 16,
        num_kv_heads: int | None = None,
        qkv_bias: bool = False,
        window_size: int | None = None,
        rope_theta: float = 10000.0,
        intermediate_size: int | None = None,
        hidden_ratio: float = 4,
        vocab_size: int = 32000,
        norm_eps: float = 1e-6,
        initializer_range: float = 0.006,
        tie_word_embeddings: bool = True,
        use_cache: bool = True,
        **kwargs,
    ):
        self._set_common(
            hidden_size, num_hidden_layers, intermediate_size, hidden_ratio, vocab_size, norm_eps, initializer_range, use_cache
        )
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.qkv_bias = qkv_bias
        self.window_size = window_size
        self.rope_theta = rope_theta
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        return super().from_dict({**DEFAULTS_OF_FILES, **config_dict}, **kwargs)

    def attention_of_layer(self, layer: int) -> dict:
        return {
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "qkv_bias": self.qkv_bias,
            "window_size": self.window_size,
            "rope_theta": self.rope_theta,
        }


# What a config.json means that leaves a key out, where this differs from the defaults of a new model.
DEFAULTS_OF_FILES = {"initializer_range": 0.02, "tie_word_embeddings": False}
