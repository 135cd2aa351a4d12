#include "operators/delta_rule/problem.h"

#include <cmath>

#include "base/message.h"
#include "operators/delta_rule/borders.h"

namespace comba::delta_rule {
namespace {

constexpr std::int64_t kMaxHeadDim = 256;

/// Streams as "[2, 512, 8, 320]".
struct Sizes {
  std::initializer_list<std::int64_t> list;
};
std::ostream& operator<<(std::ostream& stream, const Sizes& sizes) {
  const char* separator = "[";
  for (const std::int64_t size : sizes.list) {
    stream << separator << size;
    separator = ", ";
  }
  return stream << ']';
}

/// The rules of one call, each with its message.
class Checker {
 public:
  explicit Checker(std::string where) : where_("[" + std::move(where) + "] ") {}

  template <class... Parts>
  void rule(bool holds, const Parts&... parts) const {
    if (!holds) throw Error(ErrorCode::invalid_argument, where_ + concat(parts...));
  }

  void given(const char* name, const ConstView& view) const { rule(view.given(), name, " must be given; got none"); }

  void shape(const char* name, const ConstView& view, std::initializer_list<std::int64_t> sizes,
             const char* legend) const {
    bool same = view.rank == static_cast<int>(sizes.size());
    int i = 0;
    for (std::int64_t size : sizes) same = same && view.sizes[i++] == size;
    rule(same, name, " must have shape ", legend, " = ", Sizes{sizes}, "; got ", describe(view));
    rule(view.data != nullptr || view.empty(), name, " must point to its data; got a null pointer (", name, ": ",
         describe(view), ")");
  }

  void unit_stride(const char* name, const ConstView& view) const {
    const int last = view.rank - 1;
    rule(view.sizes[last] <= 1 || view.strides[last] == 1, name, " must have stride 1 in its last dimension; got ",
         view.strides[last], " (", name, ": ", describe(view), ")");
  }

  void floating(const char* name, const ConstView& view) const {
    rule(is_floating(view.dtype), name, " must be f32, bf16 or f16; got ", describe(view));
  }

  void dtype(const char* name, const ConstView& view, DType dtype) const {
    rule(view.dtype == dtype, name, " must be ", name_of(dtype), "; got ", describe(view));
  }

 private:
  std::string where_;
};

void check_options(const Checker& check, const DeltaRuleOptions& options) {
  check.rule(options.rule == Rule::comba || options.rule == Rule::gated_delta,
             "rule must be comba or gated_delta; got ", static_cast<int>(options.rule));
  check.rule(options.convention == Convention::paper || options.convention == Convention::fla,
             "convention must be paper or fla; got ", static_cast<int>(options.convention));
  check.rule(std::isfinite(options.l2norm_eps) && options.l2norm_eps >= 0, "l2norm_eps must be finite and >= 0; got ",
             options.l2norm_eps);
  check.rule(!options.scale || std::isfinite(*options.scale), "scale must be finite; got ", options.scale.value_or(0));
  check.rule(options.beta_scale > 0 && options.beta_scale <= 2, "beta_scale must be in (0, 2]; got ",
             options.beta_scale);
  check.rule(options.beta_scale <= 1 || options.rule == Rule::gated_delta,
             "beta_scale above 1 belongs to rule gated_delta (rule comba can diverge with it); got ",
             options.beta_scale);
}

void check_step_size(const Checker& check, const Problem& x) {
  const DeltaRuleInputs& in = x.in;
  check.rule(in.beta.given() != in.beta_logit.given(), "exactly one of beta and beta_logit must be given; got ",
             in.beta.given() ? "both" : "neither");
  const char* name = in.beta.given() ? "beta" : "beta_logit";
  const ConstView& view = in.beta.given() ? in.beta : in.beta_logit;
  check.shape(name, view, {x.B, x.T, x.HV}, "[B, T, HV]");
  check.floating(name, view);
  check.rule(in.beta_logit.given() || x.options.beta_scale == 1, "beta_scale needs beta_logit; got beta_scale ",
             x.options.beta_scale, " with beta");
}

void check_decay(const Checker& check, const Problem& x) {
  const DeltaRuleInputs& in = x.in;
  check.rule(in.g.given() != in.a.given(), "exactly one of g and a must be given; got ",
             in.g.given() ? "both" : "neither");
  const char* name = in.g.given() ? "g" : "a";
  const ConstView& view = in.g.given() ? in.g : in.a;
  check.shape(name, view, {x.B, x.T, x.HV}, "[B, T, HV]");
  check.floating(name, view);
  if (in.a.given()) {
    check.given("A_log (with a)", in.A_log);
    check.given("dt_bias (with a)", in.dt_bias);
    check.shape("A_log", in.A_log, {x.HV}, "[HV]");
    check.shape("dt_bias", in.dt_bias, {x.HV}, "[HV]");
    check.dtype("A_log", in.A_log, DType::f32);
    check.dtype("dt_bias", in.dt_bias, DType::f32);
  } else {
    check.rule(!in.A_log.given() && !in.dt_bias.given(), "A_log and dt_bias belong to a; got them with g");
  }
}

void check_feedback(const Checker& check, Problem& x) {
  const DeltaRuleInputs& in = x.in;
  check.rule(!(in.p.given() && in.b.given()), "at most one of p and b may be given; got both");
  if (in.p.given()) {
    check.rule(in.p.rank == 4 && (in.p.sizes[2] == x.H || in.p.sizes[2] == x.HV), "p must have H = ", x.H,
               " or HV = ", x.HV, " heads; got ", describe(in.p));
    x.P_heads = in.p.sizes[2];
    check.shape("p", in.p, {x.B, x.T, x.P_heads, x.K}, "[B, T, H or HV, K]");
    check.unit_stride("p", in.p);
    check.dtype("p", in.p, in.q.dtype);
  }
  if (in.b.given()) {
    check.shape("b", in.b, {x.H}, "[H]");
    check.dtype("b", in.b, DType::f32);
  }
  if (in.d.given()) {
    check.shape("d", in.d, {x.H}, "[H]");
    check.dtype("d", in.d, DType::f32);
    check.rule(x.options.convention == Convention::paper || !in.p.given() || x.P_heads == x.H,
               "d in convention fla corrects the query with p, so p must have H = ", x.H, " heads; got ",
               describe(in.p));
  }
}

void check_sequences(const Checker& check, Problem& x) {
  const ConstView& cu = x.in.cu_seqlens;
  x.N = x.B;
  if (cu.given()) {
    check.rule(x.B == 1, "cu_seqlens needs B = 1; got B = ", x.B);
    check.rule(cu.rank == 1 && cu.sizes[0] >= 1 && (cu.dtype == DType::i32 || cu.dtype == DType::i64),
               "cu_seqlens must be [N + 1] i32 or i64; got ", describe(cu));
    x.N = cu.sizes[0] - 1;
    check.shape("cu_seqlens", cu, {x.N + 1}, "[N + 1]");
    check.unit_stride("cu_seqlens", cu);
    for (std::int64_t n = 0; n <= x.N && x.execution.device == DeviceType::cpu; ++n) {
      const std::int64_t before = n > 0 ? x.border(n - 1) : 0, border = x.border(n);
      const BrokenBorder broken = {broken_rule(n, before, border, x.N, x.T), n, before, border};
      if (broken.rule != BorderRule::holds) check.rule(false, describe(broken, x.T));
    }
  }
  if (x.in.initial_state.given()) {
    check.shape("initial_state", x.in.initial_state, {x.N, x.HV, x.K, x.V}, "[N, HV, K, V]");
    check.unit_stride("initial_state", x.in.initial_state);
    check.dtype("initial_state", x.in.initial_state, DType::f32);
  }
}

void check_state(const Checker& check, const char* name, const ConstView& state, const Problem& x) {
  check.shape(name, state, {x.N, x.HV, x.K, x.V}, "[N, HV, K, V]");
  check.unit_stride(name, state);
  check.dtype(name, state, DType::f32);
}

void check_output(const Checker& check, const char* name, const ConstView& o, const Problem& x) {
  check.given(name, o);
  check.shape(name, o, {x.B, x.T, x.HV, x.V}, "[B, T, HV, V]");
  check.unit_stride(name, o);
  check.dtype(name, o, x.in.q.dtype);
}

/// A gradient may be absent; given, it needs its input and its input's shape.
void check_gradient(const Checker& check, const char* name, const ConstView& gradient, const ConstView& input,
                    const DType* dtype) {
  if (!gradient.given()) return;
  check.rule(input.given(), name, " asked for, but its input is absent");
  bool same = gradient.rank == input.rank;
  for (int i = 0; same && i < input.rank; ++i) same = gradient.sizes[i] == input.sizes[i];
  check.rule(same, name, " must have the shape of its input ", describe(input), "; got ", describe(gradient));
  check.rule(gradient.data != nullptr || gradient.empty(), name, " must point to its data; got a null pointer");
  if (input.rank == 4) check.unit_stride(name, gradient);
  if (dtype) {
    check.dtype(name, gradient, *dtype);
  } else {
    check.floating(name, gradient);
  }
}

void check_decode_state(const Checker& check, const DeltaRuleDecode& args, Problem& x) {
  const View& state = args.state;
  const std::int64_t states = args.state_indices.given() && state.rank > 0 ? state.sizes[0] : x.B;
  check.shape("state", state, {states, x.HV, x.K, x.V}, "[S, HV, K, V]");
  check.unit_stride("state", state);
  check.rule(state.dtype == DType::f32 || state.dtype == DType::bf16, "state must be f32 or bf16; got ",
             name_of(state.dtype));
  for (const auto& [name, view] :
       {std::pair{"state_indices", args.state_indices}, {"num_accepted", args.num_accepted}}) {
    if (!view.given()) continue;
    check.shape(name, view, {x.B}, "[B]");
    check.dtype(name, view, DType::i32);
  }
  x.state = state;
  x.state_indices = args.state_indices;
  x.num_accepted = args.num_accepted;
}

}  // namespace

Problem::Sequence Problem::sequence(std::int64_t n) const {
  return in.cu_seqlens.given() ? Sequence{0, border(n), border(n + 1)} : Sequence{n, 0, T};
}

std::int64_t Problem::border(std::int64_t n) const {
  if (in.cu_seqlens.dtype == DType::i32) return static_cast<const std::int32_t*>(in.cu_seqlens.data)[n];
  return static_cast<const std::int64_t*>(in.cu_seqlens.data)[n];
}

Problem check(const std::string& where, const DeltaRuleOptions& options, const DeltaRuleInputs& in,
              const Execution& execution) {
  const Checker check(where);
  check_options(check, options);
  check.given("q", in.q);
  check.given("k", in.k);
  check.given("v", in.v);
  check.rule(in.q.rank == 4, "q must have shape [B, T, H, K]; got ", describe(in.q));
  check.rule(in.v.rank == 4, "v must have shape [B, T, HV, V]; got ", describe(in.v));

  Problem x;
  x.execution = execution;
  x.options = options;
  x.in = in;
  x.B = in.q.sizes[0];
  x.T = in.q.sizes[1];
  x.H = in.q.sizes[2];
  x.K = in.q.sizes[3];
  x.HV = in.v.sizes[2];
  x.V = in.v.sizes[3];
  for (int i = 0; i < 4; ++i) {
    check.rule(in.q.sizes[i] >= 0 && in.v.sizes[i] >= 0, "sizes must be >= 0; got q ", describe(in.q), ", v ",
               describe(in.v));
  }
  check.rule(x.K >= 1 && x.K <= kMaxHeadDim, "head_dim_k must be in 1..", kMaxHeadDim, "; got ", x.K,
             " (q: ", describe(in.q), ")");
  check.rule(x.V >= 1 && x.V <= kMaxHeadDim, "head_dim_v must be in 1..", kMaxHeadDim, "; got ", x.V,
             " (v: ", describe(in.v), ")");
  check.rule(x.H >= 1 && x.HV >= 1 && x.HV % x.H == 0, "value heads must be a multiple of key heads; got HV = ", x.HV,
             ", H = ", x.H);
  std::int64_t elements = 0;
  check.rule(!__builtin_mul_overflow(x.B, x.T, &elements) && !__builtin_mul_overflow(elements, x.HV, &elements) &&
                 !__builtin_mul_overflow(elements, kMaxHeadDim * size_of(DType::f32), &elements),
             "sizes must fit into memory; got q ", describe(in.q), ", v ", describe(in.v));
  check.shape("q", in.q, {x.B, x.T, x.H, x.K}, "[B, T, H, K]");
  check.shape("k", in.k, {x.B, x.T, x.H, x.K}, "[B, T, H, K]");
  check.shape("v", in.v, {x.B, x.T, x.HV, x.V}, "[B, T, HV, V]");
  for (const auto& [name, view] : {std::pair{"q", in.q}, {"k", in.k}, {"v", in.v}}) {
    check.unit_stride(name, view);
    check.floating(name, view);
    check.dtype(name, view, in.q.dtype);
  }
  check_step_size(check, x);
  check_decay(check, x);
  check_feedback(check, x);
  check_sequences(check, x);
  x.scale = options.scale.value_or(1.0f / std::sqrt(static_cast<float>(x.K)));
  return x;
}

Problem check(const DeltaRuleForward& args) {
  Problem x = check("delta_rule_forward", args.options, args.inputs, args.execution);
  x.o = args.o;
  x.state = args.final_state;
  const Checker check("delta_rule_forward");
  check_output(check, "o", args.o, x);
  if (args.final_state.given()) check_state(check, "final_state", args.final_state, x);
  x.saved_bytes = args.saved.bytes;
  return x;
}

Problem check(const DeltaRuleBackward& args) {
  const DeltaRuleInputs& in = args.inputs;
  Problem x = check("delta_rule_backward", args.options, in, args.execution);
  x.verb = Verb::backward;
  x.backward = &args;
  x.saved_bytes = args.saved.bytes;
  const Checker check("delta_rule_backward");
  check_output(check, "do_", args.do_, x);
  if (args.d_final_state.given()) check_state(check, "d_final_state", args.d_final_state, x);
  const DType f32 = DType::f32;
  check_gradient(check, "dq", args.dq, in.q, &in.q.dtype);
  check_gradient(check, "dk", args.dk, in.k, &in.q.dtype);
  check_gradient(check, "dv", args.dv, in.v, &in.q.dtype);
  check_gradient(check, "dp", args.dp, in.p, &in.q.dtype);
  check_gradient(check, "db", args.db, in.b, &f32);
  check_gradient(check, "dd", args.dd, in.d, &f32);
  check_gradient(check, "dbeta", args.dbeta, in.beta, nullptr);
  check_gradient(check, "dbeta_logit", args.dbeta_logit, in.beta_logit, nullptr);
  check_gradient(check, "dg", args.dg, in.g, nullptr);
  check_gradient(check, "da", args.da, in.a, nullptr);
  check_gradient(check, "dA_log", args.dA_log, in.A_log, &f32);
  check_gradient(check, "ddt_bias", args.ddt_bias, in.dt_bias, &f32);
  check_gradient(check, "d_initial_state", args.d_initial_state, in.initial_state, &f32);
  return x;
}

Problem check(const DeltaRuleDecode& args) {
  const Checker check("delta_rule_decode_step");
  check.rule(!args.inputs.initial_state.given(), "initial_state must be absent: the state is read and overwritten");
  check.rule(!args.inputs.cu_seqlens.given(), "cu_seqlens must be absent: each batch row is a sequence");
  Problem x = delta_rule::check("delta_rule_decode_step", args.options, args.inputs, args.execution);
  x.verb = Verb::decode_step;
  x.o = args.o;
  check.given("state", args.state);
  check_decode_state(check, args, x);
  check_output(check, "o", args.o, x);
  return x;
}

}  // namespace comba::delta_rule
