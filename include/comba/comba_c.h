#ifndef COMBA_COMBA_C_H
#define COMBA_COMBA_C_H

/* The operators for programs in C and languages that call it. The same calls as comba/delta_rule.h, which says what
 * each tensor means: names, shapes and rules are equal. Dims: B batch, T tokens, H key heads, HV value heads, K key
 * dim, V value dim, N sequences.
 *
 * Errors: functions that can fail return a status, and comba_last_error() has the text. No call throws, aborts or
 * prints. Arguments that break a rule are refused before anything is written.
 *
 * Threads: every function may be called on several threads at once, with outputs, state and workspace of its own;
 * inputs may be shared. The one exception is comba_set_num_threads. Each thread has its own last error. */

#include <stdint.h>

#include "comba/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum comba_status {
  COMBA_OK = 0,
  COMBA_INVALID_ARGUMENT = 1, /* the caller broke a documented rule */
  COMBA_UNSUPPORTED = 2,      /* legal, but nothing here implements it */
  COMBA_OUT_OF_MEMORY = 3,
  COMBA_INTERNAL = 4 /* a rule of our own was broken: please report it */
} comba_status;

typedef enum comba_dtype { COMBA_F32 = 0, COMBA_BF16 = 1, COMBA_F16 = 2, COMBA_I32 = 3, COMBA_I64 = 4 } comba_dtype;

/* A tensor the caller owns. All zero: not given. Strides count elements. */
typedef struct comba_const_view {
  const void* data;
  comba_dtype dtype;
  int32_t rank; /* 1 to 4 */
  int64_t sizes[4];
  int64_t strides[4];
} comba_const_view;

typedef struct comba_view {
  void* data;
  comba_dtype dtype;
  int32_t rank;
  int64_t sizes[4];
  int64_t strides[4];
} comba_view;

typedef enum comba_rule { COMBA_RULE_COMBA = 0, COMBA_RULE_GATED_DELTA = 1 } comba_rule;
typedef enum comba_convention { COMBA_CONVENTION_PAPER = 0, COMBA_CONVENTION_FLA = 1 } comba_convention;

typedef struct comba_delta_rule_options {
  comba_rule rule;
  comba_convention convention;
  int32_t l2norm;   /* 0 or 1 */
  float l2norm_eps; /* added to the sum of squares */
  float scale;      /* multiplies the query; 0: K^-1/2 */
  float beta_scale; /* multiplies sigmoid(beta_logit) */
} comba_delta_rule_options;

/* Rule comba, convention paper, L2 norm with eps 1e-6, scale K^-1/2, beta_scale 1. */
COMBA_API comba_delta_rule_options comba_delta_rule_defaults(void);

typedef struct comba_delta_rule_inputs {
  comba_const_view q;             /* [B, T, H, K] */
  comba_const_view k;             /* [B, T, H, K] */
  comba_const_view v;             /* [B, T, HV, V] */
  comba_const_view p;             /* [B, T, H or HV, K], or */
  comba_const_view b;             /* [H] f32, or neither */
  comba_const_view d;             /* [H] f32, optional */
  comba_const_view beta;          /* [B, T, HV], or */
  comba_const_view beta_logit;    /* [B, T, HV] */
  comba_const_view g;             /* [B, T, HV], or */
  comba_const_view a;             /* [B, T, HV] with */
  comba_const_view A_log;         /* [HV] f32 and */
  comba_const_view dt_bias;       /* [HV] f32 */
  comba_const_view initial_state; /* [N, HV, K, V] f32, optional */
  comba_const_view cu_seqlens;    /* [N + 1] i32 or i64, optional */
} comba_delta_rule_inputs;

typedef enum comba_device { COMBA_CPU = 0, COMBA_CUDA = 1 } comba_device;

/* Where a call runs. All zero: on the CPU. */
typedef struct comba_execution {
  comba_device device; /* where all tensors and the workspace lie */
  void* stream; /* COMBA_CUDA: the cudaStream_t of the calling thread's current device; the call is queued on it */
} comba_execution;

typedef struct comba_delta_rule_forward_args {
  comba_delta_rule_options options;
  comba_delta_rule_inputs inputs;
  comba_view o;           /* [B, T, HV, V], dtype of q */
  comba_view final_state; /* [N, HV, K, V] f32, optional */
  comba_execution execution;
  void* saved; /* optional: where the call leaves what its backward call would compute again, aligned to 64 bytes, */
  int64_t saved_bytes; /* of at least comba_delta_rule_forward_saved() bytes */
} comba_delta_rule_forward_args;

/* Gradients not given are not computed. */
typedef struct comba_delta_rule_backward_args {
  comba_delta_rule_options options;
  comba_delta_rule_inputs inputs;
  comba_const_view d_o;           /* [B, T, HV, V] */
  comba_const_view d_final_state; /* [N, HV, K, V] f32, optional */
  comba_view dq, dk, dv, dp, db, dd, dbeta, dbeta_logit, dg, da, dA_log, ddt_bias, d_initial_state;
  comba_execution execution;
  void* saved; /* what the forward call left there, if it did */
  int64_t saved_bytes;
} comba_delta_rule_backward_args;

typedef struct comba_delta_rule_decode_args {
  comba_delta_rule_options options;
  comba_delta_rule_inputs inputs; /* without initial_state and cu_seqlens */
  comba_view state;               /* [S, HV, K, V] f32 or bf16, read and overwritten; S = B without state_indices */
  comba_view o;                   /* [B, T, HV, V], dtype of q */
  comba_const_view state_indices; /* [B] i32, optional: the state of each row; not in 0 .. S - 1: the row is skipped */
  comba_const_view num_accepted;  /* [B] i32, optional: after how many tokens the state is written; absent: T */
  comba_execution execution;
} comba_delta_rule_decode_args;

/* Writes the bytes the workspace of the call must have; they depend on the shapes, the options and the number of
 * threads. */
COMBA_API comba_status comba_delta_rule_forward_workspace(const comba_delta_rule_forward_args* args, int64_t* bytes);
COMBA_API comba_status comba_delta_rule_backward_workspace(const comba_delta_rule_backward_args* args, int64_t* bytes);
COMBA_API comba_status comba_delta_rule_decode_workspace(const comba_delta_rule_decode_args* args, int64_t* bytes);

/* Writes the bytes that the call can leave for its backward call; 0: it has no use for any. */
COMBA_API comba_status comba_delta_rule_forward_saved(const comba_delta_rule_forward_args* args, int64_t* bytes);

/* The three calls. `workspace` is scratch memory of the caller, aligned to 64 bytes.
 *
 * o_t = h_t^T (scale q_t) for every token, and final_state = h after the last token of each sequence. */
COMBA_API comba_status comba_delta_rule_forward(const comba_delta_rule_forward_args* args, void* workspace,
                                                int64_t workspace_bytes);
/* Every gradient given, of loss = <o, d_o> + <final_state, d_final_state>. */
COMBA_API comba_status comba_delta_rule_backward(const comba_delta_rule_backward_args* args, void* workspace,
                                                 int64_t workspace_bytes);
/* state <- h after T tokens, or after num_accepted of them, o_t = h_t^T (scale q_t), started from `state`. */
COMBA_API comba_status comba_delta_rule_decode_step(const comba_delta_rule_decode_args* args, void* workspace,
                                                    int64_t workspace_bytes);

/* For packed sequences on a GPU: waits until the call of these arguments and this workspace has run, and returns
 * COMBA_INVALID_ARGUMENT if it found wrong borders in cu_seqlens; its results are then NaN. On the CPU the call itself
 * was refused, so there, and without cu_seqlens, this does nothing. */
COMBA_API comba_status comba_delta_rule_forward_check_borders(const comba_delta_rule_forward_args* args,
                                                              void* workspace, int64_t workspace_bytes);
COMBA_API comba_status comba_delta_rule_backward_check_borders(const comba_delta_rule_backward_args* args,
                                                               void* workspace, int64_t workspace_bytes);

/* Threads of the operators, at least 1. Not to be set while any other call runs. Default: the processors this process
 * may use. */
COMBA_API comba_status comba_set_num_threads(int32_t num_threads);
COMBA_API int32_t comba_num_threads(void);

/* Text of the failure of this thread's last call that returned a status; empty when that succeeded. Valid until the
 * thread's next such call. */
COMBA_API const char* comba_last_error(void);

/* "0.1.0" */
COMBA_API const char* comba_version(void);

#ifdef __cplusplus
}
#endif

#endif /* COMBA_COMBA_C_H */
