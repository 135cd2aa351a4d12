#pragma once

#include <ATen/ATen.h>

#include "comba/delta_rule.h"

/// The operator on tensors, with autograd. Definition and shapes: include/comba/delta_rule.h.
namespace comba {

/// Inputs by the names of DeltaRuleInputs; an undefined tensor is absent. Any strides. All are on the CPU, or all on
/// one GPU: then a call and its backward are queued on that GPU's current stream, and wait for nothing.
struct DeltaRuleTensors {
  at::Tensor q;              ///< [B, T, H, K]
  at::Tensor k;              ///< [B, T, H, K]
  at::Tensor v;              ///< [B, T, HV, V]
  at::Tensor p;              ///< [B, T, H or HV, K]  excludes b
  at::Tensor b;              ///< [H] f32
  at::Tensor d;              ///< [H] f32
  at::Tensor beta;           ///< [B, T, HV], or
  at::Tensor beta_logit;     ///< [B, T, HV]
  at::Tensor g;              ///< [B, T, HV], or
  at::Tensor a;              ///< [B, T, HV] with
  at::Tensor A_log;          ///< [HV] f32
  at::Tensor dt_bias;        ///< [HV] f32
  at::Tensor initial_state;  ///< [N, HV, K, V] f32
  at::Tensor cu_seqlens;     ///< [N + 1] i32 or i64
};

struct DeltaRuleOutput {
  at::Tensor o;            ///< [B, T, HV, V]       dtype of q
  at::Tensor final_state;  ///< [N, HV, K, V] f32   undefined unless asked for
};

/// All T tokens at once, differentiable in every floating input (once: a second derivative is refused).
/// With `save_states` the states before each chunk of 64 tokens are kept for backward where that saves time: on Hopper
/// GPUs, in eager mode, if a gradient is needed; per chunk and value head 2 K V bytes of states and 19 KB + 128 V of
/// other matrices. Without, and elsewhere, backward computes them again. The bits are the same.
/// Throws Error when an argument breaks a rule. On a GPU wrong borders in cu_seqlens make all results NaN, and Error is
/// thrown with `check_borders` alone, which waits for the call to have run.
DeltaRuleOutput delta_rule(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options = {},
                           bool output_final_state = false, bool check_borders = false, bool save_states = true);

/// What a serving engine says of the batch rows of a decode step; undefined tensors are absent. On the CPU calls with
/// these, or with states in bf16, run by the definition, which is slow.
struct DecodeRows {
  at::Tensor state_indices;  ///< [B] i32: the state of each row; outside of 0 .. S - 1: the row is skipped, its o is 0
  at::Tensor num_accepted;   ///< [B] i32: after how many of the T tokens the state is written; 0: not at all
};

/// T new tokens, one by one, with `state` [S, HV, K, V] f32 or bf16 (stride 1 in the last dimension) advanced in place;
/// S = B without state_indices. Returns o [B, T, HV, V]. Without autograd. `inputs.initial_state` and
/// `inputs.cu_seqlens` must be absent.
at::Tensor delta_rule_decode_step(const DeltaRuleTensors& inputs, const at::Tensor& state,
                                  const DeltaRuleOptions& options = {}, const DecodeRows& rows = {});

}  // namespace comba
