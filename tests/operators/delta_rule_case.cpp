#include "operators/delta_rule_case.h"

#include <cstring>
#include <sstream>

namespace comba::test {
namespace {

/// Aligned scratch memory full of NaN.
class NanWorkspace {
 public:
  explicit NanWorkspace(std::int64_t bytes) : bytes_(bytes), memory_(bytes + 64, 0xFF) {}

  Workspace workspace() {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return {memory_.data() + (64 - address % 64) % 64, bytes_};
  }

 private:
  std::int64_t bytes_;
  std::vector<std::uint8_t> memory_;
};

void expect_buffer_close(const char* name, const Buffer& x, const Buffer& expected, const Description& description,
                         double at_most) {
  ASSERT_EQ(x.given(), expected.given()) << name;
  if (!x.given()) return;
  EXPECT_TRUE(x.guards_intact()) << name << ": written outside; " << describe(description);
  EXPECT_TRUE(close(x.values(), expected.values(), x.sizes(), at_most, name, describe(description)));
}

Buffer like(const Buffer& input) { return input.given() ? Buffer(input.dtype(), input.sizes()) : Buffer(); }

}  // namespace

std::string describe(const Description& x) {
  std::ostringstream text;
  text << "case: rule=" << (x.rule == Rule::comba ? "comba" : "gated_delta")
       << " convention=" << (x.convention == Convention::paper ? "paper" : "fla")
       << " feedback=" << static_cast<int>(x.feedback) << " correction=" << x.correction
       << " fused_gates=" << x.fused_gates << " l2norm=" << x.l2norm << " initial_state=" << x.initial_state
       << " final_gradient=" << x.final_gradient << " dtype=" << name_of(x.dtype) << " B=" << x.B << " T=" << x.T
       << " H=" << x.H << " HV=" << x.HV << " K=" << x.K << " V=" << x.V << " cu_seqlens=";
  for (std::int64_t end : x.cu_seqlens) text << end << ",";
  text << " log_decay=" << x.log_decay << " key_size=" << x.key_size << " identical_keys=" << x.identical_keys
       << " seed=" << x.seed;
  return text.str();
}

Description random_description(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
  };
  Description x;
  x.seed = seed;
  x.rule = pick(0, 1) ? Rule::comba : Rule::gated_delta;
  x.convention = pick(0, 1) ? Convention::paper : Convention::fla;
  x.feedback = static_cast<Feedback>(pick(0, 3));
  x.correction = pick(0, 2) > 0;
  x.fused_gates = pick(0, 1);
  x.l2norm = pick(0, 3) > 0;
  x.initial_state = pick(0, 1);
  x.final_gradient = pick(0, 1);
  x.H = pick(1, 3);
  x.HV = x.H * (std::int64_t{1} << pick(0, 2));
  x.K = pick(x.l2norm ? 2 : 1, 40);  // normalised, a single number is +-1 and its gradient rounding noise
  x.V = pick(1, 40);
  x.T = pick(1, 150);
  if (pick(0, 2) == 0) {
    const std::int64_t first = pick(0, x.T), second = pick(first, x.T);
    x.cu_seqlens = {0, first, first, second, x.T};
  } else {
    x.B = pick(1, 2);
  }
  if (x.convention == Convention::fla && x.feedback == Feedback::per_value_head && x.HV != x.H) x.correction = false;
  return x;
}

Case::Case(const Description& x) : description(x) {
  options.rule = x.rule;
  options.convention = x.convention;
  options.l2norm = x.l2norm;
  std::mt19937_64 random(x.seed);
  std::normal_distribution<double> normal;
  const auto draw = [&](DType dtype, std::vector<std::int64_t> sizes, double mean, double deviation) {
    Buffer buffer(dtype, std::move(sizes));
    for (std::int64_t i = 0; i < buffer.count(); ++i) buffer.set(i, mean + deviation * normal(random));
    return buffer;
  };
  // Without the L2 norm |k| stays near 1 all the same, or the state would grow without bound.
  const double size = x.key_size / std::sqrt(static_cast<double>(x.K));
  q = draw(x.dtype, {x.B, x.T, x.H, x.K}, 0, size);
  k = draw(x.dtype, {x.B, x.T, x.H, x.K}, 0, size);
  v = draw(x.dtype, {x.B, x.T, x.HV, x.V}, 0, 1);
  if (x.identical_keys) {
    for (std::int64_t i = x.H * x.K; i < k.count(); ++i) k.set(i, k.at(i % (x.H * x.K)));
  }
  if (x.feedback == Feedback::scalar) b = draw(DType::f32, {x.H}, 0.7, 0.1);
  if (x.feedback == Feedback::per_key_head) p = draw(x.dtype, {x.B, x.T, x.H, x.K}, 0, 0.7 * size);
  if (x.feedback == Feedback::per_value_head) p = draw(x.dtype, {x.B, x.T, x.HV, x.K}, 0, 0.7 * size);
  if (x.correction) d = draw(DType::f32, {x.H}, 0.3, 0.3);
  if (x.fused_gates) {
    beta_logit = draw(x.dtype, {x.B, x.T, x.HV}, 0, 1);
    a = draw(x.dtype, {x.B, x.T, x.HV}, 0, 1);
    A_log = draw(DType::f32, {x.HV}, std::log(x.log_decay), 0.5);
    dt_bias = draw(DType::f32, {x.HV}, 0.5, 0.5);
  } else {
    beta = draw(DType::f32, {x.B, x.T, x.HV}, 0.5, 0.15);
    g = draw(DType::f32, {x.B, x.T, x.HV}, 0, x.log_decay);
    for (std::int64_t i = 0; i < g.count(); ++i) g.set(i, -std::abs(g.at(i)));
  }
  if (!x.cu_seqlens.empty()) {
    cu_seqlens = Buffer(x.seed % 2 ? DType::i32 : DType::i64, {static_cast<std::int64_t>(x.cu_seqlens.size())});
    for (std::size_t i = 0; i < x.cu_seqlens.size(); ++i) cu_seqlens.set(i, static_cast<double>(x.cu_seqlens[i]));
  }
  const std::vector<std::int64_t> state = {num_sequences(), x.HV, x.K, x.V};
  if (x.initial_state) initial_state = draw(DType::f32, state, 0, 0.5);
  d_o = draw(x.dtype, {x.B, x.T, x.HV, x.V}, 0, 1);
  if (x.final_gradient) d_final_state = draw(DType::f32, state, 0, 0.5);
}

std::int64_t Case::num_sequences() const {
  return description.cu_seqlens.empty() ? description.B : static_cast<std::int64_t>(description.cu_seqlens.size()) - 1;
}

DeltaRuleInputs Case::inputs() {
  return {.q = q.view(),
          .k = k.view(),
          .v = v.view(),
          .p = p.view(),
          .b = b.view(),
          .d = d.view(),
          .beta = beta.view(),
          .beta_logit = beta_logit.view(),
          .g = g.view(),
          .a = a.view(),
          .A_log = A_log.view(),
          .dt_bias = dt_bias.view(),
          .initial_state = initial_state.view(),
          .cu_seqlens = cu_seqlens.view()};
}

namespace {

/// Elements [begin, end) of the flattened buffer as a buffer of the given sizes.
Buffer elements(const Buffer& x, std::int64_t begin, std::vector<std::int64_t> sizes) {
  Buffer out(x.dtype(), std::move(sizes));
  std::memcpy(out.data(), x.data() + begin * size_of(x.dtype()), out.count() * size_of(x.dtype()));
  return out;
}

}  // namespace

Case Case::alone(std::int64_t n) const {
  const Description& x = description;
  const bool packed = !x.cu_seqlens.empty();
  const std::int64_t begin = packed ? x.cu_seqlens[n] : n * x.T, end = packed ? x.cu_seqlens[n + 1] : begin + x.T;
  Case one = *this;
  one.description.B = 1;
  one.description.T = end - begin;
  one.description.cu_seqlens.clear();
  one.cu_seqlens = {};
  for (Buffer* buffer : {&one.q, &one.k, &one.v, &one.p, &one.beta, &one.beta_logit, &one.g, &one.a, &one.d_o}) {
    if (!buffer->given()) continue;
    std::vector<std::int64_t> sizes = buffer->sizes();
    sizes[0] = 1;
    sizes[1] = end - begin;
    *buffer = elements(*buffer, begin * (buffer->count() / (x.B * x.T)), sizes);
  }
  for (Buffer* buffer : {&one.initial_state, &one.d_final_state}) {
    if (!buffer->given()) continue;
    const std::int64_t state = x.HV * x.K * x.V;
    *buffer = elements(*buffer, n * state, {1, x.HV, x.K, x.V});
  }
  return one;
}

Outputs forward(const delta_rule::Implementation& implementation, Case& c) {
  const Description& x = c.description;
  Outputs out{Buffer(x.dtype, {x.B, x.T, x.HV, x.V}), Buffer(DType::f32, {c.num_sequences(), x.HV, x.K, x.V})};
  const DeltaRuleForward args = {c.options, c.inputs(), out.o.view(), out.final_state.view()};
  const delta_rule::Problem problem = delta_rule::check(args);
  NanWorkspace memory(implementation.forward_workspace(problem));
  implementation.forward(problem, args, memory.workspace());
  return out;
}

Gradients empty_gradients(const Case& c) {
  return {like(c.q),
          like(c.k),
          like(c.v),
          like(c.p),
          like(c.b),
          like(c.d),
          like(c.beta),
          like(c.beta_logit),
          like(c.g),
          like(c.a),
          like(c.A_log),
          like(c.dt_bias),
          like(c.initial_state)};
}

DeltaRuleBackward backward_args(Case& c, Gradients& out) {
  return {.options = c.options,
          .inputs = c.inputs(),
          .do_ = c.d_o.view(),
          .d_final_state = c.d_final_state.view(),
          .dq = out.dq.view(),
          .dk = out.dk.view(),
          .dv = out.dv.view(),
          .dp = out.dp.view(),
          .db = out.db.view(),
          .dd = out.dd.view(),
          .dbeta = out.dbeta.view(),
          .dbeta_logit = out.dbeta_logit.view(),
          .dg = out.dg.view(),
          .da = out.da.view(),
          .dA_log = out.dA_log.view(),
          .ddt_bias = out.ddt_bias.view(),
          .d_initial_state = out.d_initial_state.view()};
}

Gradients backward(const delta_rule::Implementation& implementation, Case& c) {
  Gradients out = empty_gradients(c);
  const DeltaRuleBackward args = backward_args(c, out);
  const delta_rule::Problem problem = delta_rule::check(args);
  const bool has_one = implementation.backward != nullptr && implementation.refusal(problem).empty();
  const delta_rule::Implementation& chosen = has_one ? implementation : reference();
  NanWorkspace memory(chosen.backward_workspace(problem));
  chosen.backward(problem, args, memory.workspace());
  return out;
}

namespace {

/// The view of tokens [begin, end) of a [B, T, ...] tensor.
template <class Void>
BasicView<Void> tokens(BasicView<Void> view, std::int64_t begin, std::int64_t end) {
  if (!view.given()) return view;
  using Byte = std::conditional_t<std::is_const_v<Void>, const std::uint8_t, std::uint8_t>;
  view.data = static_cast<Byte*>(view.data) + begin * view.strides[1] * size_of(view.dtype);
  view.sizes[1] = end - begin;
  return view;
}

}  // namespace

Outputs decode(const delta_rule::Implementation& implementation, Case& c, std::int64_t tokens_per_call) {
  const Description& x = c.description;
  Outputs out{Buffer(x.dtype, {x.B, x.T, x.HV, x.V}), Buffer(DType::f32, {x.B, x.HV, x.K, x.V})};
  Buffer& state = out.final_state;
  state.fill(x.initial_state ? c.initial_state.values() : std::vector<double>(state.count(), 0));
  for (std::int64_t t = 0; t < x.T; t += tokens_per_call) {
    const std::int64_t end = std::min(x.T, t + tokens_per_call);
    DeltaRuleInputs in = c.inputs();
    in.initial_state = {};
    for (ConstView* view : {&in.q, &in.k, &in.v, &in.p, &in.beta, &in.beta_logit, &in.g, &in.a}) {
      *view = tokens(*view, t, end);
    }
    const DeltaRuleDecode args = {c.options, in, state.view(), tokens(out.o.view(), t, end)};
    const delta_rule::Problem problem = delta_rule::check(args);
    NanWorkspace memory(implementation.decode_workspace(problem));
    implementation.decode_step(problem, args, memory.workspace());
  }
  return out;
}

const delta_rule::Implementation& reference() { return delta_rule::implementations().back(); }

double tolerance(const std::string& tensor, DType dtype) {
  const bool output = tensor == "o" || tensor == "final_state";
  const bool decay = tensor == "dg" || tensor == "da" || tensor == "dA_log" || tensor == "ddt_bias";
  if (dtype == DType::f32) return output ? 1e-5 : decay ? 1e-3 : 1e-4;
  if (decay || tensor == "dk" || tensor == "dp" || tensor == "d_initial_state") return 0.008;
  return 0.005;
}

void expect_close(const Outputs& x, const Outputs& expected, const Description& description) {
  expect_buffer_close("o", x.o, expected.o, description, tolerance("o", description.dtype));
  expect_buffer_close("final_state", x.final_state, expected.final_state, description,
                      tolerance("final_state", description.dtype));
}

void expect_close(const Gradients& x, const Gradients& expected, const Description& description) {
  for_each_gradient(x, expected, [&](const char* name, const Buffer& one, const Buffer& other) {
    expect_buffer_close(name, one, other, description, gradient_tolerance(name, one, description));
  });
}

std::vector<delta_rule::Implementation> implementations_for(Case& c) {
  const delta_rule::Problem problem = delta_rule::check("test", c.options, c.inputs());
  std::vector<delta_rule::Implementation> list;
  for (const delta_rule::Implementation& implementation : tested_implementations()) {
    if (implementation.refusal(problem).empty()) list.push_back(implementation);
  }
  return list;
}

std::vector<delta_rule::Implementation> backward_implementations_for(Case& c) {
  Gradients out = empty_gradients(c);
  const delta_rule::Problem problem = delta_rule::check(backward_args(c, out));
  std::vector<delta_rule::Implementation> list;
  for (const delta_rule::Implementation& implementation : tested_implementations()) {
    if (implementation.backward && implementation.refusal(problem).empty()) list.push_back(implementation);
  }
  return list;
}

}  // namespace comba::test
