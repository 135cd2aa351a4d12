"""Language models for transformers: Comba, Gated DeltaNet, their hybrids with attention, and transformers.

Shapes: B batch, T tokens, D model width, L layers.
"""

import math

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from comba import nn as layers
from comba.models.cache import LayerStateCache
from comba.models.config import CombaConfig, GatedDeltaNetConfig, TransformerConfig
from comba.nn.delta_rule import draw_decay_rate, draw_time_step


def make_mixer(config, layer: int) -> nn.Module:
    """What moves information between tokens in a layer of a model."""
    attention = config.attention_of_layer(layer)
    if attention is not None:
        return layers.Attention(config.hidden_size, **attention)
    sizes = {
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_v_heads": config.num_v_heads,
        "head_dim": config.head_dim,
        "expand_v": config.expand_v,
        "conv_size": config.conv_size,
        "use_short_conv": config.use_short_conv,
        "norm_eps": config.norm_eps,
    }
    if config.model_type == "gated_deltanet":
        return layers.GatedDeltaNet(**sizes, use_output_gate=config.use_gate, allow_neg_eigval=config.allow_neg_eigval)
    return layers.Comba(
        **sizes,
        use_output_gate=config.use_output_gate,
        use_output_correction=config.use_output_correction,
        use_inner_decay=config.use_inner_decay,
        correction_factor=config.correction_factor,
        learn_correction_factor=config.learn_correction_factor,
        convention=config.comba_convention,
        rule=config.comba_rule,
    )


class CombaBlock(GradientCheckpointingLayer):
    """x += mixer(norm(x)), then x += mlp(norm(x)) where there is an MLP.  [B, T, D] -> [B, T, D]"""

    def __init__(self, config, layer: int):
        super().__init__()
        self.attn_norm = layers.RMSNorm(config.hidden_size, config.norm_eps)
        self.attn = make_mixer(config, layer)
        has_mlp = config.intermediate_size > 0
        self.mlp_norm = layers.RMSNorm(config.hidden_size, config.norm_eps) if has_mlp else None
        self.mlp = layers.SwiGLU(config.hidden_size, config.intermediate_size) if has_mlp else None

    def forward(
        self,
        x: torch.Tensor,
        layer_past: layers.LayerState | None = None,
        mask: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = x + self.attn(self.attn_norm(x), layer_past, mask, cu_seqlens)
        return x if self.mlp is None else x + self.mlp(self.mlp_norm(x))


class CombaPreTrainedModel(PreTrainedModel):
    config_class = CombaConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CombaBlock"]
    _is_stateful = True  # no assisted decoding: a state cannot go back
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the paper's released code: N(0, initializer_range), and output projections smaller with depth."""
        if isinstance(module, (nn.Linear, nn.Embedding, layers.ShortConvolution)):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, layers.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, layers.SwiGLU):
            self._init_residual_projection(module.down_proj)
        elif isinstance(module, (layers.DeltaRuleMixer, layers.Attention)):
            self._init_residual_projection(module.o_proj)
        if isinstance(module, layers.DeltaRuleMixer):
            init.copy_(module.A_log, draw_decay_rate(module.A_log, self.config.A_init_max).to(module.A_log.dtype))
            init.copy_(module.dt_bias, draw_time_step(module.dt_bias).to(module.dt_bias.dtype))
            if getattr(module, "D", None) is not None:
                init.constant_(module.D, module.correction_factor)
            if getattr(module, "decay", None) is not None:
                init.ones_(module.decay)

    def _init_residual_projection(self, projection: nn.Linear) -> None:
        # 2 L of them add up in the residual stream.
        bound = 1 / math.sqrt(projection.in_features) / math.sqrt(2 * self.config.num_hidden_layers)
        init.uniform_(projection.weight, -bound, bound)


class CombaModel(CombaPreTrainedModel):
    """Embedding, L residual blocks and the final norm. Parameters: embeddings, layers.N and norm."""

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([CombaBlock(config, layer) for layer in range(config.num_hidden_layers)])
        self.norm = layers.RMSNorm(config.hidden_size, config.norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    def initial_state(self, batch: int) -> LayerStateCache:
        """What the model remembers before the first token of `batch` streams."""
        return LayerStateCache([block.attn.initial_state(batch) for block in self.layers])

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: LayerStateCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cu_seqlens: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_,
    ) -> BaseModelOutputWithPast:
        """As of CombaForCausalLM, with the hidden states [B, T, D] behind the final norm in place of logits."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("[comba] one of input_ids and inputs_embeds must be given; got both or neither")
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        batch, num_tokens, _ = x.shape
        mask = check_mask(attention_mask, batch, num_tokens)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if cu_seqlens is not None or (self.gradient_checkpointing and self.training):
            use_cache = False
        state = past_key_values if past_key_values is not None else self.initial_state(batch) if use_cache else None
        hidden_states = [] if output_hidden_states else None
        for layer, block in enumerate(self.layers):
            if hidden_states is not None:
                hidden_states.append(x)
            x = block(x, layer_past=None if state is None else state.layers[layer], mask=mask, cu_seqlens=cu_seqlens)
        x = self.norm(x)
        if hidden_states is not None:
            hidden_states.append(x)
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=state if use_cache else None,
            hidden_states=tuple(hidden_states) if hidden_states is not None else None,
        )
        return output if return_dict is not False else output.to_tuple()


def check_mask(attention_mask: torch.Tensor | None, batch: int, num_tokens: int) -> torch.Tensor | None:
    """The part of a mask that is of the tokens of this call, as bool [B, T]."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or len(attention_mask) != batch or attention_mask.shape[1] < num_tokens:
        raise ValueError(
            f"[comba] attention_mask must be [B, at least T] with B = {batch} and T = {num_tokens}; "
            f"got {list(attention_mask.shape)}"
        )
    return attention_mask[:, -num_tokens:].bool()


class CombaForCausalLM(CombaPreTrainedModel, GenerationMixin):
    """A Comba language model, or a hybrid of Comba and attention."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = CombaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the model makes its own

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.embeddings = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: LayerStateCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cu_seqlens: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits of each next token, and the loss where labels are given.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T], with the tokens of earlier calls before these if you like; 0 for padding, which must
                be on the left where a state goes on.
            past_key_values: the state of earlier calls, which is advanced in place.
            labels: [B, T]: the tokens themselves; each is compared with the logits before it, -100 with none.
            use_cache: give a state back; default: config.use_cache, and not in training.
            cu_seqlens: [N + 1]: borders of packed sequences; B = 1; no token then sees one of another sequence.
            logits_to_keep: only the last so many logits, or those at these places; 0: all.
        """
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            cu_seqlens=cu_seqlens,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
        )
        return result if return_dict is not False else result.to_tuple()


class GatedDeltaNetForCausalLM(CombaForCausalLM):
    """A Gated DeltaNet language model, or its hybrid with attention."""

    config_class = GatedDeltaNetConfig


class TransformerForCausalLM(CombaForCausalLM):
    """A language model with softmax attention in every layer."""

    config_class = TransformerConfig
