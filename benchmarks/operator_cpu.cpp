#include "operator_cpu.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>

#include "base/environment.h"
#include "libtorch/delta_rule.h"
#include "operators/delta_rule/typical_call.h"

namespace comba::benchmarks {
namespace {

constexpr const char* kSgemm = "sgemm 2048";
constexpr std::int64_t kMiB = 1 << 20;

/// Sizes of a call; K = V = D.
struct Shape {
  std::int64_t B, T, H, D;

  std::string name() const { return fmt::format("B{} T{} H{} D{}", B, T, H, D); }
  double token_heads() const { return static_cast<double>(B * T * H); }
};

/// FLOP of the chunk form, a token and head (chunks of 64; 163,840 forward and 393,216 backward at D = 128).
double forward_flop(const Shape& x) {
  const auto D = static_cast<double>(x.D);
  return x.token_heads() * (6 * D * D + 8 * 64 * D);
}
double backward_flop(const Shape& x) {
  const auto D = static_cast<double>(x.D);
  return x.token_heads() * (14 * D * D + 20 * 64 * D);
}

const char* name_of(Rule rule) { return rule == Rule::comba ? "comba" : "gated_delta"; }
const char* name_of(at::ScalarType dtype) { return dtype == at::kFloat ? "f32" : "bf16"; }

DeltaRuleTensors random_inputs(const Shape& x, Rule rule, at::ScalarType dtype, bool requires_grad) {
  const auto like_activations = at::TensorOptions().dtype(dtype);
  DeltaRuleTensors inputs;
  inputs.q = at::randn({x.B, x.T, x.H, x.D}).to(like_activations);
  inputs.k = at::randn({x.B, x.T, x.H, x.D}).to(like_activations);
  inputs.v = at::randn({x.B, x.T, x.H, x.D}).to(like_activations);
  if (rule == Rule::comba) {
    inputs.b = at::rand({x.H});
    inputs.d = at::rand({x.H});
  }
  inputs.beta = at::rand({x.B, x.T, x.H});
  inputs.g = -at::rand({x.B, x.T, x.H});
  for (const auto input : {&DeltaRuleTensors::q, &DeltaRuleTensors::k, &DeltaRuleTensors::v, &DeltaRuleTensors::b,
                           &DeltaRuleTensors::d, &DeltaRuleTensors::beta, &DeltaRuleTensors::g}) {
    if ((inputs.*input).defined()) (inputs.*input).set_requires_grad(requires_grad);
  }
  return inputs;
}

Row forward_row(const Shape& x, Rule rule, at::ScalarType dtype) {
  return {.name = fmt::format("forward {} {} {}", name_of(rule), name_of(dtype), x.name()),
          .unit = Work::flop,
          .work = forward_flop(x),
          .ceiling = kSgemm,
          .make_call = [=] {
            const DeltaRuleTensors inputs = random_inputs(x, rule, dtype, false);
            return [=] { delta_rule(inputs, {.rule = rule}); };
          }};
}

/// Forward and backward under autograd, as a training step runs them.
Row training_row(const Shape& x, Rule rule, at::ScalarType dtype) {
  return {.name = fmt::format("forward+backward {} {} {}", name_of(rule), name_of(dtype), x.name()),
          .unit = Work::flop,
          .work = forward_flop(x) + backward_flop(x),
          .ceiling = kSgemm,
          .make_call = [=] {
            const DeltaRuleTensors inputs = random_inputs(x, rule, dtype, true);
            const at::Tensor d_o = at::randn_like(inputs.v);
            std::vector<at::Tensor> leaves;
            for (const auto& leaf : {inputs.q, inputs.k, inputs.v, inputs.b, inputs.d, inputs.beta, inputs.g}) {
              if (leaf.defined()) leaves.push_back(leaf);
            }
            return [=] { torch::autograd::grad({delta_rule(inputs, {.rule = rule}).o}, leaves, {d_o}); };
          }};
}

std::string update_name(std::int64_t mib) { return fmt::format("x *= a, {} MiB", mib); }

Row decode_row(std::int64_t state_mib, Rule rule, std::int64_t H, std::int64_t D) {
  const Shape x = {state_mib * kMiB / (4 * H * D * D), 1, H, D};
  return {.name = fmt::format("decode_step {} f32 {}, {} MiB of state", name_of(rule), x.name(), state_mib),
          .unit = Work::bytes,
          .work = 2.0 * static_cast<double>(state_mib * kMiB),
          .ceiling = update_name(state_mib),
          .make_call = [=] {
            const DeltaRuleTensors inputs = random_inputs(x, rule, at::kFloat, false);
            const at::Tensor state = at::full({x.B, x.H, x.D, x.D}, 0.01f);
            return [=] { delta_rule_decode_step(inputs, state, {.rule = rule}); };
          }};
}

Row update_row(std::int64_t mib) {
  return {.name = update_name(mib),
          .unit = Work::bytes,
          .work = 2.0 * static_cast<double>(mib * kMiB),
          .ceiling = "",
          .make_call = [=] {
            const at::Tensor x = at::ones({mib * kMiB / 4});
            return [=] { x.mul_(0.999999f); };
          }};
}

Row product_row(const std::string& name, at::IntArrayRef a_sizes, at::IntArrayRef b_sizes, std::string ceiling) {
  const std::vector<std::int64_t> a = a_sizes.vec(), b = b_sizes.vec();
  double flop = 2;
  for (const std::int64_t size : a) flop *= static_cast<double>(size);
  return {.name = name,
          .unit = Work::flop,
          .work = flop * static_cast<double>(b.back()),
          .ceiling = std::move(ceiling),
          .make_call = [=] {
            const at::Tensor x = at::randn(a), y = at::randn(b);
            return [=] { at::matmul(x, y); };
          }};
}

}  // namespace

std::string operator_implementation() {
  const std::string forced = forced_implementation();
  return forced.empty() ? first_choice(delta_rule_implementations(typical_delta_rule_call())) : forced;
}

std::vector<Row> operator_cpu_rows() {
  const Shape paper_like = {1, 2048, 16, 128};
  std::vector<Row> rows = {
      product_row(kSgemm, {2048, 2048}, {2048, 2048}, ""),
      product_row("bmm 512 x [64, 128] [128, 128]", {512, 64, 128}, {512, 128, 128}, kSgemm),
      forward_row(paper_like, Rule::comba, at::kFloat),
      forward_row(paper_like, Rule::comba, at::kBFloat16),
      forward_row(paper_like, Rule::gated_delta, at::kFloat),
      forward_row({1, 2048, 16, 64}, Rule::comba, at::kFloat),
      forward_row({1, 2048, 4, 256}, Rule::comba, at::kFloat),
      training_row(paper_like, Rule::comba, at::kFloat),
      training_row(paper_like, Rule::comba, at::kBFloat16),
      training_row(paper_like, Rule::gated_delta, at::kFloat),
      training_row({1, 2048, 16, 64}, Rule::comba, at::kFloat),
      training_row({1, 2048, 4, 256}, Rule::comba, at::kFloat),
  };
  for (const std::int64_t mib : {8, 1024}) {
    rows.push_back(update_row(mib));
    rows.push_back(decode_row(mib, Rule::comba, 16, 128));
  }
  rows.push_back(decode_row(8, Rule::gated_delta, 16, 128));
  return rows;
}

}  // namespace comba::benchmarks
