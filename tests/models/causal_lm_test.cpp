#include "models/causal_lm.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <torch/utils.h>

#include <cmath>

#include "comba/error.h"
#include "support/tensor_compare.h"

namespace comba::models {
namespace {

using test::close;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path kConfigs = std::filesystem::path(COMBA_SOURCE_DIR) / "configs";

ModelConfig tiny() { return load_model_config(kConfigs / "comba-tiny.json"); }

std::shared_ptr<CausalLM> tiny_model() {
  auto model = std::make_shared<CausalLM>(tiny());
  model->initialize(1);
  return model;
}

at::Tensor random_ids(int64_t batch, int64_t tokens) {
  torch::manual_seed(2);
  return at::randint(tiny().vocab_size, {batch, tokens}, at::kLong);
}

TEST(Initialization, TheSeedAloneDecides) {
  CausalLM first(tiny()), second(tiny()), other(tiny());
  first.initialize(7);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  torch::manual_seed(3);
  at::randn({100});
  second.initialize(7);
  at::set_num_threads(threads);
  other.initialize(8);
  const auto a = first.named_parameters(), b = second.named_parameters(), c = other.named_parameters();
  for (const auto& parameter : a) EXPECT_TRUE(at::equal(parameter.value(), b[parameter.key()])) << parameter.key();
  EXPECT_FALSE(at::equal(a["model.embeddings.weight"], c["model.embeddings.weight"]));
}

TEST(Initialization, HasThePapersStatistics) {
  ModelConfig config = tiny();
  config.hidden_size = 256;
  config.num_v_heads = 256;
  config.head_dim = 4;
  CausalLM model(config);
  model.initialize(1);
  const auto p = model.named_parameters();
  const auto of = [&](const std::string& name) { return p["model.layers.1." + name].detach().to(at::kDouble); };
  for (const char* name : {"attn.v_proj.weight", "attn.b_proj.weight", "attn.v_conv1d.weight", "mlp.up_proj.weight"}) {
    EXPECT_NEAR(of(name).std().item<double>(), 0.02, 0.001) << name;
    EXPECT_NEAR(of(name).mean().item<double>(), 0, 0.002) << name;
  }
  // U(-1, 1) / sqrt(fan_in) / sqrt(2 L), with fan_in 1024 and 128, and L = 2
  for (const auto& [name, bound] :
       {std::pair{"attn.o_proj.weight", 1 / 64.0}, {"mlp.down_proj.weight", 1 / std::sqrt(512.0)}}) {
    EXPECT_NEAR(of(name).abs().max().item<double>(), bound, 0.01 * bound) << name;
    EXPECT_NEAR(of(name).std().item<double>(), bound / std::sqrt(3.0), 0.02 * bound) << name;
  }
  const at::Tensor rate = of("attn.A_log").exp(), step = at::softplus(of("attn.dt_bias"));
  EXPECT_GT(rate.min().item<double>(), 0);
  EXPECT_LE(rate.max().item<double>(), 16);
  EXPECT_NEAR(rate.mean().item<double>(), 8, 1);
  EXPECT_GE(step.min().item<double>(), 0.99e-3);
  EXPECT_LE(step.max().item<double>(), 1.01e-1);
  EXPECT_NEAR(step.log().mean().item<double>(), std::log(1e-2), 0.3);
  EXPECT_TRUE(at::equal(of("attn.D"), at::full({2}, 0.02f).to(at::kDouble)));
  EXPECT_TRUE(at::equal(of("attn.decay"), at::ones({2}, at::kDouble)));
  EXPECT_TRUE(at::equal(of("attn_norm.weight"), at::ones({256}, at::kDouble)));
}

TEST(CausalLM, NamesItsParametersAsTheCheckpointDoes) {
  const auto p = tiny_model()->named_parameters();
  EXPECT_EQ(p.size(), 2u + 2 * 20);
  for (const char* name : {"model.embeddings.weight", "model.layers.0.attn_norm.weight", "model.layers.1.attn.A_log",
                           "model.layers.1.attn.q_conv1d.weight", "model.layers.1.attn.o_norm.weight",
                           "model.layers.1.mlp.down_proj.weight", "model.norm.weight"}) {
    EXPECT_TRUE(p.contains(name)) << name;
  }
  ModelConfig untied = tiny();
  untied.tie_word_embeddings = false;
  EXPECT_TRUE(CausalLM(untied).named_parameters().contains("lm_head.weight"));
}

TEST(CausalLM, TheLossIsTheMeanCrossEntropyOfTheLabelsThatCount) {
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(2, 20);
  at::Tensor labels = ids.roll(-1, 1);
  labels.select(1, 19).fill_(-100);
  const at::Tensor logits = model->forward(ids).to(at::kDouble).narrow(1, 0, 19);
  const at::Tensor nats = -logits.log_softmax(-1).gather(2, labels.narrow(1, 0, 19).unsqueeze(-1));
  EXPECT_NEAR(model->loss(ids, labels).item<double>(), nats.mean().item<double>(), 1e-6);
}

TEST(CausalLM, EveryParameterHasAGradientAndTheTiedOneBoth) {
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(2, 70);
  model->loss(ids, ids.roll(-1, 1)).backward();
  for (const auto& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_GT(parameter.value().grad().abs().sum().item<double>(), 0) << parameter.key();
  }
  // A token that is neither read nor to be predicted still has a gradient as a column of the output projection.
  const at::Tensor gradient = model->named_parameters()["model.embeddings.weight"].grad();
  EXPECT_GT(gradient.abs().sum(1).min().item<double>(), 0);
}

TEST(CausalLM, ReadsAStreamInAnyParts) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(2, 80);
  const at::Tensor whole = model->forward(ids);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{80}, {50, 30}, {1, 1, 70, 8}}) {
    ModelState state = model->initial_state(2);
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : ids.split_with_sizes(lengths, 1)) parts.push_back(model->forward(part, &state));
    EXPECT_TRUE(close(at::cat(parts, 1), whole, 1e-5, "logits"));
    EXPECT_EQ(state.position, 80);
  }
}

TEST(CausalLM, AClonedStateIsAnotherStream) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(1, 12);
  ModelState state = model->initial_state(1);
  model->forward(ids, &state);
  ModelState fork = state.clone();
  const at::Tensor next = random_ids(1, 1);
  const at::Tensor expected = model->forward(next, &fork);
  model->forward(random_ids(1, 5), &fork);
  EXPECT_TRUE(at::equal(model->forward(next, &state), expected));
}

TEST(CausalLM, KeepsPackedSequencesApart) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(1, 90);
  const at::Tensor packed = model->forward(ids, nullptr, torch::tensor({0, 7, 90}));
  EXPECT_TRUE(close(packed.narrow(1, 7, 83), model->forward(ids.narrow(1, 7, 83)), 1e-5, "second sequence"));
}

TEST(CausalLM, SeesNoLaterToken) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(1, 90);
  at::Tensor changed = ids.clone();
  changed[0][66] = (ids[0][66] + 1) % tiny().vocab_size;
  const at::Tensor y = model->forward(ids), z = model->forward(changed);
  EXPECT_TRUE(at::equal(y.narrow(1, 0, 66), z.narrow(1, 0, 66)));
  EXPECT_FALSE(at::equal(y.select(1, 66), z.select(1, 66)));
}

TEST(CausalLM, WrongCallsAreRefusedWithTheirReason) {
  const auto model = tiny_model();
  const at::Tensor ids = random_ids(2, 8), borders = torch::tensor({0, 8});
  ModelState state = model->initial_state(2);
  EXPECT_THAT([&] { model->forward(ids[0]); }, ThrowsMessage<Error>(HasSubstr("must be [B, T] i64; got [8] Long")));
  EXPECT_THAT([&] { model->forward(ids + 264); }, ThrowsMessage<Error>(HasSubstr("token ids must be from 0 to 263")));
  EXPECT_THAT([&] { model->forward(-1 - ids); }, ThrowsMessage<Error>(HasSubstr("token ids must be from 0 to 263")));
  EXPECT_THAT([&] { model->forward(ids, nullptr, borders); },
              ThrowsMessage<Error>(HasSubstr("needs B = 1; got B = 2")));
  EXPECT_THAT([&] { model->forward(ids, &state, borders); },
              ThrowsMessage<Error>(HasSubstr("both state and cu_seqlens")));
  EXPECT_THAT([&] { model->loss(ids, ids.narrow(1, 0, 7)); },
              ThrowsMessage<Error>(HasSubstr("labels must have the shape")));
}

// Of every kind of layer; 0.1 is a twentieth of the logits' range, and ten times what is seen.
TEST(Int8Weights, ChangeTheLogitsOfEveryFamilyALittle) {
  const at::NoGradGuard no_grad;
  for (const char* name : {"comba-tiny", "gdn-tiny", "hybrid-tiny", "transformer-tiny", "gla-tiny", "mamba2-tiny",
                           "rwkv7-tiny", "linear-attention-tiny"}) {
    const ModelConfig config = load_model_config(kConfigs / (std::string(name) + ".json"));
    CausalLM model(config);
    model.initialize(1);
    torch::manual_seed(2);
    const at::Tensor ids = at::randint(config.vocab_size, {1, 40}, at::kLong);
    const at::Tensor before = model.forward(ids);
    model.round_weights_to_int8();
    const at::Tensor after = model.forward(ids);
    const double change = ((after - before).norm() / before.norm()).item<double>();
    EXPECT_GT(change, 1e-4) << name;
    EXPECT_LT(change, 0.1) << name;

    // Token by token, where rows are few, and what comes in is rounded to bf16.
    ModelState state = model.initial_state(1);
    for (int64_t t = 0; t < 3; ++t) {
      const at::Tensor logits = model.next_logits(ids.narrow(1, t, 1), state);
      EXPECT_LT(((logits[0] - after[0][t]).norm() / after[0][t].norm()).item<double>(), 0.05) << name << " token " << t;
    }
  }
}

TEST(Int8Weights, CannotBeTrained) {
  const auto model = tiny_model();
  model->round_weights_to_int8();
  const at::Tensor ids = random_ids(1, 8);
  EXPECT_THAT([&] { model->loss(ids, ids); }, ThrowsMessage<Error>(HasSubstr("got int8")));
}

}  // namespace
}  // namespace comba::models
