#include <gtest/gtest.h>
#include <torch/utils.h>

#include <map>

#include "models/causal_lm.h"
#include "support/tensor_compare.h"

/// Whole models on a GPU, whose layers have kernels of their own there, against the same models on the CPU.
/// Skipped where LibTorch has no GPU.
namespace comba::models {
namespace {

using test::close;

struct Result {
  at::Tensor loss;
  std::map<std::string, at::Tensor> gradients;
};

class ModelOnGpu : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "LibTorch sees no GPU";
    config_ = load_model_config(std::filesystem::path(COMBA_SOURCE_DIR) / "configs" / GetParam());
    cpu_ = std::make_shared<CausalLM>(config_);
    cpu_->initialize(1);
    gpu_ = std::make_shared<CausalLM>(config_, at::TensorOptions(at::kCUDA));
    const torch::NoGradGuard no_grad;
    const auto parameters = cpu_->named_parameters();
    for (auto& parameter : gpu_->named_parameters()) parameter.value().copy_(parameters[parameter.key()]);
    torch::manual_seed(2);
    ids_ = at::randint(config_.vocab_size, {2, 150}, at::kLong);
  }

  Result run(CausalLM& model, const PassOptions& pass, bool packed = false) const {
    model.zero_grad();
    const at::Device device = model.parameters()[0].device();
    const at::Tensor ids = ids_.to(device), labels = ids_.roll(-1, 1).to(device);
    const at::Tensor borders = at::tensor({0, 30, 30, 170, 300}, at::kLong).to(device);
    const at::Tensor loss =
        packed ? model.loss(ids.view({1, -1}), labels.view({1, -1}), borders, pass) : model.loss(ids, labels, {}, pass);
    loss.backward();
    Result result{.loss = loss.detach().cpu(), .gradients = {}};
    for (const auto& parameter : model.named_parameters()) {
      result.gradients[parameter.key()] = parameter.value().grad().to(at::kCPU);
    }
    return result;
  }

  static double error(const at::Tensor& x, const at::Tensor& reference) {
    return ((x - reference).norm() / reference.norm()).item<double>();
  }

  ModelConfig config_;
  std::shared_ptr<CausalLM> cpu_, gpu_;
  at::Tensor ids_;
};

INSTANTIATE_TEST_SUITE_P(Models, ModelOnGpu, ::testing::Values("comba-tiny.json", "gdn-tiny.json", "hybrid-tiny.json"));

TEST_P(ModelOnGpu, LossAndGradientsAreThoseOfTheCpu) {
  for (const bool packed : {false, true}) {
    const Result cpu = run(*cpu_, {}, packed), gpu = run(*gpu_, {}, packed);
    EXPECT_TRUE(close(gpu.loss, cpu.loss, 1e-5, "loss"));
    for (const auto& [name, gradient] : cpu.gradients) EXPECT_TRUE(close(gpu.gradients.at(name), gradient, 1e-3, name));
  }
}

/// In 16 bits the errors are those of the CPU, whose layers are computed in fp32 between the same roundings. The
/// operator there rounds the operands of its products too: what remains of it shows in sums over all tokens for a few
/// heads.
TEST_P(ModelOnGpu, SixteenBitsAreAsExactAsOnTheCpu) {
  for (const bool packed : {false, true}) {
    const PassOptions pass{.compute_dtype = at::kBFloat16};
    const Result exact = run(*cpu_, {}, packed), cpu = run(*cpu_, pass, packed), gpu = run(*gpu_, pass, packed);
    EXPECT_TRUE(close(gpu.loss, exact.loss, 2e-3, "loss"));
    for (const auto& [name, gradient] : exact.gradients) {
      const double slack = gradient.numel() <= 8 ? 0.1 : 0.01;
      EXPECT_LE(error(gpu.gradients.at(name), gradient), 2 * error(cpu.gradients.at(name), gradient) + slack) << name;
    }
  }
}

TEST_P(ModelOnGpu, TheSameBitsEachTime) {
  const PassOptions pass{.compute_dtype = at::kBFloat16};
  const Result first = run(*gpu_, pass), again = run(*gpu_, pass);
  EXPECT_TRUE(at::equal(first.loss, again.loss));
  for (const auto& [name, gradient] : first.gradients)
    EXPECT_TRUE(at::equal(gradient, again.gradients.at(name))) << name;
}

/// Token by token, with the convolutions' tails advanced in place.
TEST_P(ModelOnGpu, AStreamGivesTheLogitsOfTheWhole) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = ids_.narrow(1, 0, 40).to(at::kCUDA), whole = gpu_->forward(ids);
  ModelState state = gpu_->initial_state(2);
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : ids.split_with_sizes({20, 1, 1, 18}, 1)) parts.push_back(gpu_->forward(part, &state));
  EXPECT_TRUE(close(at::cat(parts, 1).cpu(), whole.cpu(), 1e-4, "logits"));
}

}  // namespace
}  // namespace comba::models
