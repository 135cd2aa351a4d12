#pragma once

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>

#include "comba/error.h"
#include "generation/gpu/step_decoder.h"
#include "generation/model_for_test.h"
#include "models/read_tokens.h"

namespace comba::generation {

/// A GPU, with a stream that graphs can be recorded from. The test is skipped where there is none.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU";
    ASSERT_NE(dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
    stream_.emplace(c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(device_));
  }
  void TearDown() override {
    if (stream_) stream_->current_stream().synchronize();
  }

  /// The model twice, with weights that bf16 can hold: in bf16 on the GPU, in fp32 on the CPU.
  struct Pair {
    std::shared_ptr<models::CausalLM> gpu, cpu;
  };
  Pair pair(const models::ModelConfig& config, std::uint64_t seed = 2) const {
    Pair models = {std::make_shared<models::CausalLM>(decided_model(config, seed)),
                   std::make_shared<models::CausalLM>(decided_model(config, seed))};
    models.cpu->to(at::kBFloat16);
    models.cpu->to(at::kFloat);
    models.gpu->to(at::kBFloat16);
    models.gpu->to(device_);
    return models;
  }

  at::Device device_{at::kCUDA, 0};
  std::optional<c10::StreamGuard> stream_;
};

/// A text before its next token.
struct ReadText {
  models::ModelState state;
  at::Tensor next_logits;  // [vocab]
};

inline ReadText read_text(models::CausalLM& model, const std::vector<std::int64_t>& tokens) {
  ReadText text{model.initial_state(1), {}};
  text.next_logits = models::read_tokens(model, tokens, text.state, /*chunk_length=*/1024);
  return text;
}

inline double rms(const at::Tensor& x) { return x.to(at::kDouble).square().mean().sqrt().item<double>(); }
inline double rms_ratio(const at::Tensor& x, const at::Tensor& reference) {
  return rms(x - reference) / rms(reference);
}

inline models::ModelConfig larger_config() {
  models::ModelConfig config = testing::tiny_model_config();
  config.hidden_size = 256;
  config.num_hidden_layers = 3;
  config.num_heads = config.num_v_heads = 2;
  config.head_dim = 256;
  config.intermediate_size = 704;
  config.vocab_size = 1000;
  return config;
}

}  // namespace comba::generation
