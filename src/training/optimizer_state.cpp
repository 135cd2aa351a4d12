#include "training/optimizer_state.h"

#include <set>
#include <string>

#include "base/message.h"

namespace comba::training {
namespace {

constexpr const char* kFirst = "exp_avg.";
constexpr const char* kSecond = "exp_avg_sq.";
constexpr const char* kNumSteps = "num_steps";

void require_like(const models::NamedTensors& state, const std::string& name, at::IntArrayRef sizes,
                  at::ScalarType type) {
  const auto found = state.find(name);
  require(found != state.end(), ErrorCode::io, "[AdamW] the optimizer state must have ", name, "; got none");
  const at::Tensor& saved = found->second;
  require(saved.sizes() == sizes && saved.scalar_type() == type, ErrorCode::io, "[AdamW] the optimizer state's ", name,
          " must be ", sizes, ' ', type, "; got ", saved.sizes(), ' ', saved.scalar_type());
}

void require_state_of(const std::vector<NamedParameter>& parameters, const models::NamedTensors& state) {
  std::set<std::string> known = {kNumSteps};
  require_like(state, kNumSteps, {1}, at::kLong);
  for (const NamedParameter& parameter : parameters) {
    for (const char* moment : {kFirst, kSecond}) {
      require_like(state, moment + parameter.name, parameter.tensor.sizes(), at::kFloat);
      known.insert(moment + parameter.name);
    }
  }
  for (const auto& [name, tensor] : state) {
    require(known.contains(name), ErrorCode::io, "[AdamW] the optimizer state has a tensor of no parameter: ", name);
  }
}

}  // namespace

models::NamedTensors gather_state(FlatParameters& parameters, const AdamW& optimizer) {
  models::NamedTensors state = parameters.gather(kFirst, optimizer.exp_avg());
  state.merge(parameters.gather(kSecond, optimizer.exp_avg_sq()));
  if (!state.empty()) state[kNumSteps] = optimizer.num_steps().to(at::kCPU, at::kLong).view({1});
  return state;
}

void load_state(const models::NamedTensors& state, const FlatParameters& parameters, AdamW& optimizer) {
  const at::NoGradGuard no_grad;
  require_state_of(parameters.parameters(), state);
  parameters.scatter(kFirst, state, optimizer.exp_avg());
  parameters.scatter(kSecond, state, optimizer.exp_avg_sq());
  at::Tensor(optimizer.num_steps()).copy_(state.at(kNumSteps).squeeze());
}

}  // namespace comba::training
