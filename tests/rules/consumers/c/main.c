/* One token of one head, K = V = 1, without norm: o = scale q k beta v = 1 * 2 * 3 * 0.5 * 5 = 15. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comba/comba_c.h"

static comba_const_view one(const float* data, int32_t rank) {
  comba_const_view view = {data, COMBA_F32, rank, {1, 1, 1, 1}, {1, 1, 1, 1}};
  return view;
}

int main(void) {
  const float q = 2, k = 3, v = 5, beta = 0.5f, g = 0;
  float o = 0;
  int64_t bytes = 0;
  void* workspace;
  comba_status status;
  comba_delta_rule_forward_args call;
  memset(&call, 0, sizeof call);
  call.options = comba_delta_rule_defaults();
  call.options.l2norm = 0;
  call.inputs.q = one(&q, 4);
  call.inputs.k = one(&k, 4);
  call.inputs.v = one(&v, 4);
  call.inputs.beta = one(&beta, 3);
  call.inputs.g = one(&g, 3);
  call.o.data = &o;
  call.o.rank = 4;
  call.o.sizes[0] = call.o.sizes[1] = call.o.sizes[2] = call.o.sizes[3] = 1;
  call.o.strides[0] = call.o.strides[1] = call.o.strides[2] = call.o.strides[3] = 1;

  if (comba_delta_rule_forward_workspace(&call, &bytes) != COMBA_OK) return 1;
  workspace = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
  status = comba_delta_rule_forward(&call, workspace, bytes);
  free(workspace);
  printf("%d %g\n", (int)status, o);

  status = comba_delta_rule_forward(&call, NULL, bytes);
  printf("%d %s\n", (int)status, comba_last_error());
  call.options.rule = (comba_rule)256;
  status = comba_delta_rule_forward_workspace(&call, &bytes);
  printf("%d %s\n", (int)status, comba_last_error());
  return 0;
}
