// The C interface: each call converts its structs, runs the C++ call, and turns exceptions into a status and a text.
#include <algorithm>
#include <new>
#include <string>

#include "base/message.h"
#include "comba/comba_c.h"
#include "comba/delta_rule.h"
#include "comba/error.h"
#include "comba/parallel.h"

namespace comba {
namespace {

thread_local std::string last_error;

comba_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return COMBA_INVALID_ARGUMENT;
    case ErrorCode::unsupported:
      return COMBA_UNSUPPORTED;
    default:
      return COMBA_INTERNAL;
  }
}

/// Keeps the text, or none where there is no memory for it.
comba_status fail(comba_status status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return status;
}

/// Runs `call` and turns what it throws into a status.
template <class Call>
comba_status guarded(const Call& call) noexcept {
  try {
    last_error.clear();
    call();
    return COMBA_OK;
  } catch (const Error& error) {
    return fail(status_of(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(COMBA_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(COMBA_INTERNAL, error.what());
  } catch (...) {
    return fail(COMBA_INTERNAL, "a parallel loop's hook threw something that is no std::exception");
  }
}

template <class View, class CView>
View convert(const CView& from) {
  View view;
  if (from.rank < 0 || from.rank > View::kMaxRank) {
    throw Error(ErrorCode::invalid_argument, "[comba_view] rank must be in 0..4; got " + std::to_string(from.rank));
  }
  if (from.dtype < COMBA_F32 || from.dtype > COMBA_I64) {
    throw Error(ErrorCode::invalid_argument,
                "[comba_view] dtype must be a comba_dtype; got " + std::to_string(static_cast<int>(from.dtype)));
  }
  view.data = from.data;
  view.dtype = static_cast<DType>(from.dtype);
  view.rank = from.rank;
  std::copy_n(from.sizes, 4, view.sizes.begin());
  std::copy_n(from.strides, 4, view.strides.begin());
  return view;
}

ConstView in(const comba_const_view& view) { return convert<ConstView>(view); }
View out(const comba_view& view) { return convert<View>(view); }

/// A value of a C enum whose values are 0 .. last. Checked here: in the smaller C++ enum 256 would be 0.
template <class To, class From>
To convert_enum(const char* of, const char* name, From from, From last) {
  if (static_cast<unsigned>(from) > static_cast<unsigned>(last)) {
    throw Error(ErrorCode::invalid_argument,
                concat("[", of, "] ", name, " must be a comba_", name, "; got ", static_cast<unsigned>(from)));
  }
  return static_cast<To>(from);
}

DeltaRuleOptions convert_options(const comba_delta_rule_options& from) {
  constexpr const char* kName = "comba_delta_rule_options";
  DeltaRuleOptions options;
  options.rule = convert_enum<Rule>(kName, "rule", from.rule, COMBA_RULE_GATED_DELTA);
  options.convention = convert_enum<Convention>(kName, "convention", from.convention, COMBA_CONVENTION_FLA);
  options.l2norm = from.l2norm != 0;
  options.l2norm_eps = from.l2norm_eps;
  if (from.scale != 0) options.scale = from.scale;
  options.beta_scale = from.beta_scale;
  return options;
}

DeltaRuleInputs convert_inputs(const comba_delta_rule_inputs& from) {
  return {.q = in(from.q),
          .k = in(from.k),
          .v = in(from.v),
          .p = in(from.p),
          .b = in(from.b),
          .d = in(from.d),
          .beta = in(from.beta),
          .beta_logit = in(from.beta_logit),
          .g = in(from.g),
          .a = in(from.a),
          .A_log = in(from.A_log),
          .dt_bias = in(from.dt_bias),
          .initial_state = in(from.initial_state),
          .cu_seqlens = in(from.cu_seqlens)};
}

Execution convert_execution(const comba_execution& from) {
  return {convert_enum<DeviceType>("comba_execution", "device", from.device, COMBA_CUDA),
          static_cast<CUstream_st*>(from.stream)};
}

template <class T>
const T& given(const T* args) {
  if (!args) throw Error(ErrorCode::invalid_argument, "[comba] args must be given; got a null pointer");
  return *args;
}

DeltaRuleForward call_of(const comba_delta_rule_forward_args* args) {
  const auto& from = given(args);
  return {.options = convert_options(from.options),
          .inputs = convert_inputs(from.inputs),
          .o = out(from.o),
          .final_state = out(from.final_state),
          .saved = {from.saved, from.saved_bytes},
          .execution = convert_execution(from.execution)};
}

DeltaRuleBackward call_of(const comba_delta_rule_backward_args* args) {
  const auto& from = given(args);
  return {.options = convert_options(from.options),
          .inputs = convert_inputs(from.inputs),
          .do_ = in(from.d_o),
          .d_final_state = in(from.d_final_state),
          .saved = {from.saved, from.saved_bytes},
          .dq = out(from.dq),
          .dk = out(from.dk),
          .dv = out(from.dv),
          .dp = out(from.dp),
          .db = out(from.db),
          .dd = out(from.dd),
          .dbeta = out(from.dbeta),
          .dbeta_logit = out(from.dbeta_logit),
          .dg = out(from.dg),
          .da = out(from.da),
          .dA_log = out(from.dA_log),
          .ddt_bias = out(from.ddt_bias),
          .d_initial_state = out(from.d_initial_state),
          .execution = convert_execution(from.execution)};
}

DeltaRuleDecode call_of(const comba_delta_rule_decode_args* args) {
  const auto& from = given(args);
  return {.options = convert_options(from.options),
          .inputs = convert_inputs(from.inputs),
          .state = out(from.state),
          .o = out(from.o),
          .state_indices = in(from.state_indices),
          .num_accepted = in(from.num_accepted),
          .execution = convert_execution(from.execution)};
}

template <class Count>
comba_status write_bytes(int64_t* bytes, const Count& count) {
  return guarded([&] {
    if (!bytes) throw Error(ErrorCode::invalid_argument, "[comba] bytes must be given; got a null pointer");
    *bytes = count();
  });
}

template <class Args>
comba_status write_workspace_bytes(const Args* args, int64_t* bytes) {
  return write_bytes(bytes, [&] { return workspace_bytes(call_of(args)); });
}

}  // namespace
}  // namespace comba

comba_delta_rule_options comba_delta_rule_defaults(void) {
  const comba::DeltaRuleOptions defaults;
  return {COMBA_RULE_COMBA, COMBA_CONVENTION_PAPER, defaults.l2norm, defaults.l2norm_eps, 0, defaults.beta_scale};
}

comba_status comba_delta_rule_forward_workspace(const comba_delta_rule_forward_args* args, int64_t* bytes) {
  return comba::write_workspace_bytes(args, bytes);
}

comba_status comba_delta_rule_forward_saved(const comba_delta_rule_forward_args* args, int64_t* bytes) {
  return comba::write_bytes(bytes, [&] { return comba::saved_bytes(comba::call_of(args)); });
}

comba_status comba_delta_rule_backward_workspace(const comba_delta_rule_backward_args* args, int64_t* bytes) {
  return comba::write_workspace_bytes(args, bytes);
}

comba_status comba_delta_rule_decode_workspace(const comba_delta_rule_decode_args* args, int64_t* bytes) {
  return comba::write_workspace_bytes(args, bytes);
}

comba_status comba_delta_rule_forward(const comba_delta_rule_forward_args* args, void* workspace, int64_t bytes) {
  return comba::guarded([&] { comba::delta_rule_forward(comba::call_of(args), {workspace, bytes}); });
}

comba_status comba_delta_rule_backward(const comba_delta_rule_backward_args* args, void* workspace, int64_t bytes) {
  return comba::guarded([&] { comba::delta_rule_backward(comba::call_of(args), {workspace, bytes}); });
}

comba_status comba_delta_rule_decode_step(const comba_delta_rule_decode_args* args, void* workspace, int64_t bytes) {
  return comba::guarded([&] { comba::delta_rule_decode_step(comba::call_of(args), {workspace, bytes}); });
}

comba_status comba_delta_rule_forward_check_borders(const comba_delta_rule_forward_args* args, void* workspace,
                                                    int64_t bytes) {
  return comba::guarded([&] { comba::check_borders(comba::call_of(args), {workspace, bytes}); });
}

comba_status comba_delta_rule_backward_check_borders(const comba_delta_rule_backward_args* args, void* workspace,
                                                     int64_t bytes) {
  return comba::guarded([&] { comba::check_borders(comba::call_of(args), {workspace, bytes}); });
}

comba_status comba_set_num_threads(int32_t num_threads) {
  return comba::guarded([&] { comba::set_num_threads(num_threads); });
}

int32_t comba_num_threads(void) { return comba::num_threads(); }

const char* comba_last_error(void) { return comba::last_error.c_str(); }

const char* comba_version(void) { return COMBA_VERSION; }
