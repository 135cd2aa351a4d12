/* The C interface from a C program: the answer of a case worked out by hand, and errors as status and text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comba/comba_c.h"

static int failures = 0;

static void expect(int holds, const char* what) {
  if (!holds) {
    printf("FAILED: %s (last error: %s)\n", what, comba_last_error());
    ++failures;
  }
}

static comba_const_view in(const float* data, int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  comba_const_view view = {data, COMBA_F32, rank, {a, b, c, d}, {b * c * d, c * d, d, 1}};
  return view;
}

static comba_view out(float* data, int64_t a, int64_t b, int64_t c, int64_t d) {
  comba_view view = {data, COMBA_F32, 4, {a, b, c, d}, {b * c * d, c * d, d, 1}};
  return view;
}

static comba_const_view list(const int32_t* one) {
  comba_const_view view = {one, COMBA_I32, 1, {1}, {1}};
  return view;
}

/* One head, K = V = 1, two tokens, no norm, scale 1: see Reference.CombaCorrectsWithTheUndecayedState. */
static const float q[2] = {1, 2}, k[2] = {1, 0.5f}, v[2] = {3, 5}, p[2] = {0.5f, 2}, beta[2] = {0.5f, 1};

static comba_delta_rule_inputs inputs(const float* g) {
  comba_delta_rule_inputs x;
  memset(&x, 0, sizeof x);
  x.q = in(q, 4, 1, 2, 1, 1);
  x.k = in(k, 4, 1, 2, 1, 1);
  x.v = in(v, 4, 1, 2, 1, 1);
  x.p = in(p, 4, 1, 2, 1, 1);
  x.beta = in(beta, 3, 1, 2, 1, 1);
  x.g = in(g, 3, 1, 2, 1, 1);
  return x;
}

int main(void) {
  const float g[2] = {logf(0.5f), logf(0.25f)};
  float initial_state = 4, state = 4, o[2] = {0, 0}, final_state = 0, d_o[2] = {1, 0}, dv[2] = {0, 0},
        states[2] = {7, 4};
  const int32_t none = 0, second = 1; /* as an index; as a number it accepts the first token */
  int64_t bytes = -1;
  void* workspace;

  comba_delta_rule_forward_args forward;
  memset(&forward, 0, sizeof forward);
  forward.options = comba_delta_rule_defaults();
  forward.options.l2norm = 0;
  forward.options.scale = 1;
  forward.inputs = inputs(g);
  forward.inputs.initial_state = in(&initial_state, 4, 1, 1, 1, 1);
  forward.o = out(o, 1, 2, 1, 1);
  forward.final_state = out(&final_state, 1, 1, 1, 1);
  expect(comba_delta_rule_forward_workspace(&forward, &bytes) == COMBA_OK && bytes > 0, "forward workspace");
  workspace = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
  expect(comba_delta_rule_forward(&forward, workspace, bytes) == COMBA_OK, "forward");
  expect(fabsf(o[0] - 2.5f) < 1e-6f && fabsf(o[1] - 1.25f) < 1e-6f, "forward's outputs");
  expect(fabsf(final_state - 0.625f) < 1e-6f, "forward's final state");
  expect(comba_delta_rule_forward_check_borders(&forward, workspace, bytes) == COMBA_OK, "no borders, none wrong");
  free(workspace);

  comba_delta_rule_decode_args decode;
  memset(&decode, 0, sizeof decode);
  decode.options = forward.options;
  decode.inputs = inputs(g);
  decode.state = out(&state, 1, 1, 1, 1);
  decode.o = out(o, 1, 2, 1, 1);
  expect(comba_delta_rule_decode_workspace(&decode, &bytes) == COMBA_OK, "decode workspace");
  workspace = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
  expect(comba_delta_rule_decode_step(&decode, workspace, bytes) == COMBA_OK, "decode");
  expect(fabsf(state - 0.625f) < 1e-6f && fabsf(o[1] - 1.25f) < 1e-6f, "decode's state and output");
  free(workspace);

  decode.state = out(states, 2, 1, 1, 1);
  decode.state_indices = list(&second);
  decode.num_accepted = list(&none);
  expect(comba_delta_rule_decode_step(&decode, NULL, 0) == COMBA_OK, "a draft");
  expect(states[0] == 7 && states[1] == 4 && fabsf(o[1] - 1.25f) < 1e-6f, "a draft leaves the states");
  decode.num_accepted = list(&second);
  expect(comba_delta_rule_decode_step(&decode, NULL, 0) == COMBA_OK, "one token stays");
  expect(states[0] == 7 && fabsf(states[1] - 2.5f) < 1e-6f, "and the state of index 1 is the one after it");
  decode.state_indices.dtype = COMBA_I64;
  expect(comba_delta_rule_decode_step(&decode, NULL, 0) == COMBA_INVALID_ARGUMENT, "indices of 8 bytes are refused");
  expect(strstr(comba_last_error(), "state_indices must be i32; got [1] i64") != NULL, "and named");

  comba_delta_rule_backward_args backward;
  memset(&backward, 0, sizeof backward);
  backward.options = forward.options;
  backward.inputs = forward.inputs;
  backward.d_o = in(d_o, 4, 1, 2, 1, 1);
  backward.dv = out(dv, 1, 2, 1, 1);
  expect(comba_delta_rule_backward_workspace(&backward, &bytes) == COMBA_OK, "backward workspace");
  workspace = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
  expect(comba_delta_rule_backward(&backward, workspace, bytes) == COMBA_OK, "backward");
  expect(fabsf(dv[0] - 0.5f) < 1e-6f && dv[1] == 0, "dv = beta k q of the first token alone");
  expect(comba_delta_rule_backward_check_borders(&backward, workspace, bytes) == COMBA_OK, "no borders, none wrong");
  free(workspace);

  forward.inputs.cu_seqlens = list(&second);
  expect(comba_delta_rule_forward(&forward, NULL, 0) == COMBA_INVALID_ARGUMENT, "wrong borders are refused");
  expect(strstr(comba_last_error(), "cu_seqlens must start at 0; got 1") != NULL, "and named");
  memset(&forward.inputs.cu_seqlens, 0, sizeof forward.inputs.cu_seqlens);
  forward.execution.device = (comba_device)7;
  expect(comba_delta_rule_forward(&forward, NULL, 0) == COMBA_INVALID_ARGUMENT, "an unknown device is refused");
  expect(strstr(comba_last_error(), "[comba_execution] device must be a comba_device; got 7") != NULL, "and named");
  forward.execution.device = COMBA_CPU;
  forward.inputs.q.rank = 7;
  expect(comba_delta_rule_forward(&forward, NULL, 0) == COMBA_INVALID_ARGUMENT, "a rank of 7 is refused");
  expect(strstr(comba_last_error(), "rank must be in 0..4; got 7") != NULL, "and named");
  expect(comba_delta_rule_forward(NULL, NULL, 0) == COMBA_INVALID_ARGUMENT, "null arguments are refused");
  expect(comba_set_num_threads(0) == COMBA_INVALID_ARGUMENT, "no threads are refused");
  expect(comba_set_num_threads(1) == COMBA_OK && comba_num_threads() == 1, "one thread");
  expect(strlen(comba_version()) >= 5, "version");
  return failures == 0 ? 0 : 1;
}
