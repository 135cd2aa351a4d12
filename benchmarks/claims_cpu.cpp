#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "claims.h"
#include "libtorch/delta_rule.h"
#include "measure.h"
#include "report.h"

namespace comba::benchmarks {
namespace {

using Json = nlohmann::ordered_json;

struct Call {
  std::vector<at::Tensor> leaves;
  std::function<at::Tensor()> forward;
};

Call attention_call(const ClaimsCase& x) {
  const auto random = [&] { return at::randn({x.B, x.H, x.T, x.D}).set_requires_grad(x.backward); };
  const at::Tensor q = random(), k = random(), v = random();
  return {{q, k, v}, [=] { return at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true); }};
}

Call delta_rule_call(const ClaimsCase& x) {
  const Rule rule = x.contestant == "comba" ? Rule::comba : Rule::gated_delta;
  const auto leaf = [&](const at::Tensor& tensor) { return tensor.set_requires_grad(x.backward); };
  const auto rows = [&] { return leaf(at::randn({x.B, x.T, x.H, x.D})); };
  DeltaRuleTensors in{.q = rows(), .k = rows(), .v = rows()};
  in.beta = leaf(at::rand({x.B, x.T, x.H}));
  in.g = leaf(-at::rand({x.B, x.T, x.H}));
  Call call{{in.q, in.k, in.v, in.beta, in.g}, {}};
  if (rule == Rule::comba) {
    in.b = leaf(at::rand({x.H}));
    in.d = leaf(at::full({x.H}, 0.02));
    call.leaves.insert(call.leaves.end(), {in.b, in.d});
  }
  call.forward = [=] { return delta_rule(in, {.rule = rule}).o; };
  return call;
}

/// The pass alone: of backward, a graph is made once and gone through again and again.
std::function<void()> make_call(const ClaimsCase& x) {
  const Call call = x.contestant == "attention" ? attention_call(x) : delta_rule_call(x);
  if (!x.backward) return [=] { call.forward(); };
  const at::Tensor o = call.forward(), d_o = at::randn_like(o);
  return [=] { torch::autograd::grad({o}, call.leaves, {d_o}, /*retain_graph=*/true); };
}

}  // namespace

ClaimsDevice claims_on_cpu(const ClaimsBench& bench) {
  const auto time = [bench](const ClaimsCase& x) -> Json {
    const std::vector<Row> rows = {
        {.name = x.contestant, .unit = Work::flop, .work = 1, .ceiling = "", .make_call = [x] {
           return make_call(x);
         }}};
    std::vector<double> seconds =
        measure(rows, {.repetitions = bench.repetitions, .min_seconds = 0.01}).front().seconds;
    std::sort(seconds.begin(), seconds.end());
    const std::size_t tenth = seconds.size() / 10;
    return {{"us", seconds[seconds.size() / 2] * 1e6},
            {"p10_us", seconds[tenth] * 1e6},
            {"p90_us", seconds[seconds.size() - 1 - tenth] * 1e6},
            {"method", "calls"}};
  };
  return {.context = {{"device", processor()}, {"threads", at::get_num_threads()}, {"dtype", "fp32"}}, .time = time};
}

}  // namespace comba::benchmarks
