#include "generation/gpu/step_decoder.h"

#include <functional>

#include "generation/gpu/gpu_fixture.h"

namespace comba::generation {
namespace {

const SamplingOptions kGreedy = {.temperature = 0};

struct Case {
  const char* name;
  std::function<void(models::ModelConfig&)> change;
  bool larger = false;
};

models::ModelConfig config_of(const Case& x) {
  models::ModelConfig config = x.larger ? larger_config() : testing::tiny_model_config();
  x.change(config);
  return config;
}

class StepDecoderOnGpu : public OnGpu, public ::testing::WithParamInterface<Case> {};

/// How far bf16 logits are from the ones computed in fp32 with the same weights, over a few tokens of several texts.
TEST_P(StepDecoderOnGpu, ErrsNoMoreThanLayerByLayer) {
  const Pair models = pair(config_of(GetParam()));
  StepDecoder decoder(*models.gpu, /*num_slots=*/5, models.gpu->config().vocab_size);
  struct Text {
    SlotTable::Row row;
    std::int64_t token;
    ReadText exact, layers;
  };
  std::vector<Text> texts;
  for (const std::int64_t length : {3, 20, 70}) {
    const auto tokens = some_tokens(length, length);
    Text text{{}, 17 + length, read_text(*models.cpu, tokens), read_text(*models.gpu, tokens)};
    text.row = decoder.join(text.layers.state, text.token, kGreedy, 0, {});
    text.layers.state = text.layers.state.clone();
    texts.push_back(std::move(text));
  }
  for (int step = 0; step < 6; ++step) {
    decoder.launch();
    const auto drawn = decoder.read();
    ASSERT_EQ(drawn.size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      Text& text = texts[i];
      const at::Tensor exact = models::read_tokens(*models.cpu, {&text.token, 1}, text.exact.state, 1);
      const at::Tensor layers = models::read_tokens(*models.gpu, {&text.token, 1}, text.layers.state, 1);
      const at::Tensor fused = decoder.next_logits(text.row);
      const double error = rms_ratio(fused, exact), usual = rms_ratio(layers, exact);
      EXPECT_LE(error, 2 * usual + 1e-3) << "text " << i << ", step " << step << "; layer by layer " << usual;
      EXPECT_LE(error, 0.05) << "text " << i << ", step " << step;
      EXPECT_EQ(drawn[i].text, text.row);
      EXPECT_EQ(drawn[i].token, fused.argmax().item<std::int64_t>());
      text.token = drawn[i].token;
    }
  }
  for (const Text& text : texts) {
    const models::ModelState state = decoder.state(text.row);
    for (std::size_t layer = 0; layer < state.layers.size(); ++layer) {
      for (std::size_t i = 0; i < state.layers[layer].tensors.size(); ++i) {
        const at::Tensor ours = state.layers[layer].tensors[i].to(at::kCPU, at::kFloat);
        EXPECT_LE(rms_ratio(ours, text.exact.state.layers[layer].tensors[i]), 0.05) << layer << ' ' << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, StepDecoderOnGpu,
    ::testing::Values(
        Case{"comba", [](auto&) {}}, Case{"comba_fla", [](auto& c) { c.convention = "fla"; }},
        Case{"comba_iplr", [](auto& c) { c.rule = "iplr"; }},
        Case{"gated_deltanet", [](auto& c) { c.model_type = "gated_deltanet"; }},
        Case{"negative_eigenvalues", [](auto& c) { c.model_type = "gated_deltanet", c.allow_neg_eigval = true; }},
        Case{"no_convolution", [](auto& c) { c.use_short_conv = false; }},
        Case{"no_gate", [](auto& c) { c.use_output_gate = false; }},
        Case{"no_correction", [](auto& c) { c.use_output_correction = c.use_inner_decay = false; }},
        Case{"no_mlp", [](auto& c) { c.intermediate_size = 0; }},
        Case{"untied", [](auto& c) { c.tie_word_embeddings = !c.tie_word_embeddings; }},
        Case{"odd_sizes", [](auto& c) { c.hidden_size = 40, c.intermediate_size = 44, c.vocab_size = 271; }},
        Case{"one_layer", [](auto& c) { c.num_hidden_layers = 1; }}, Case{"heads_of_256", [](auto&) {}, true},
        Case{"wide_values", [](auto& c) { c.head_dim = 128, c.expand_v = 2, c.num_v_heads = 4; }, true}),
    [](const auto& info) { return info.param.name; });

class StepDecoderRows : public OnGpu {
 protected:
  /// Logits and tokens of one text, of each of `steps` steps.
  struct Trace {
    std::vector<std::int64_t> tokens;
    std::vector<at::Tensor> logits;
  };
  void follow(StepDecoder& decoder, const SlotTable::Row& row, Trace& trace) const {
    decoder.launch();
    for (const auto& drawn : decoder.read()) {
      if (drawn.text == row) trace.tokens.push_back(drawn.token);
    }
    trace.logits.push_back(decoder.next_logits(row));
  }
};

/// A step of 1 row, of 8, of 24 and so on is each a graph of its own, with tiles of its own.
TEST_F(StepDecoderRows, ATextIsTheSameToTheBitWhoeverJoinsAndLeaves) {
  const Pair models = pair(larger_config());
  const auto tokens = some_tokens(30, 5);
  const SamplingOptions sampling = {.temperature = 0.8, .top_p = 0.9, .seed = 7};
  const auto state = read_text(*models.gpu, tokens).state;
  constexpr int kSteps = 12;

  Trace alone;
  StepDecoder lonely(*models.gpu, 1, 1000);
  const auto only = lonely.join(state, 9, sampling, 3, {});
  for (int step = 0; step < kSteps; ++step) follow(lonely, only, alone);

  StepDecoder decoder(*models.gpu, 140, 1000);
  Trace together;
  std::vector<SlotTable::Row> others;
  const auto join_other = [&] {
    const auto other = read_text(*models.gpu, some_tokens(5 + static_cast<std::int64_t>(others.size()), 3)).state;
    others.push_back(decoder.join(other, 4, {.seed = others.size()}, 0, {}));
  };
  join_other(), join_other();
  const auto row = decoder.join(state, 9, sampling, 3, {});
  // How many are beside it at each step.
  for (const std::size_t count : {2, 2, 6, 7, 1, 0, 13, 30, 62, 63, 130, 100}) {
    while (others.size() < count) join_other();
    while (others.size() > count) decoder.leave(others.front()), others.erase(others.begin());
    follow(decoder, row, together);
  }
  EXPECT_EQ(together.tokens, alone.tokens);
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_TRUE(together.logits[step].equal(alone.logits[step])) << "step " << step;
  }
}

/// Heads of several shapes, each with the kernels for many texts; some rows of the step are nobody's.
TEST_F(StepDecoderRows, EachOfManyTextsIsWhatItIsAlone) {
  struct Way {
    const char* name;
    std::function<void(models::ModelConfig&)> change;
    at::ScalarType states = at::kFloat;
  };
  const Way ways[] = {{"heads of 256", [](auto&) {}},
                      {"states in bf16", [](auto&) {}, at::kBFloat16},
                      {"wide values", [](auto& c) { c.head_dim = 128, c.expand_v = 2, c.num_v_heads = 4; }},
                      {"heads of 80", [](auto& c) { c.head_dim = 80, c.expand_v = 2, c.num_v_heads = 4; }},
                      {"no gate", [](auto& c) { c.use_output_gate = false; }}};
  constexpr int kTexts = 100;
  for (const Way& way : ways) {
    models::ModelConfig config = larger_config();
    way.change(config);
    const Pair models = pair(config);
    const auto state = read_text(*models.gpu, some_tokens(20, 5)).state;
    StepDecoder lonely(*models.gpu, 1, 1000, way.states), decoder(*models.gpu, kTexts, 1000, way.states);
    const auto only = lonely.join(state, 9, kGreedy, 0, {});
    std::vector<SlotTable::Row> rows;
    for (int i = 0; i < kTexts; ++i) rows.push_back(decoder.join(state, 9, kGreedy, 0, {}));
    for (int step = 0; step < 3; ++step) {
      lonely.launch(), decoder.launch();
      lonely.read(), decoder.read();
      for (const int i : {0, 7, 50, 63, 64, 99}) {
        EXPECT_TRUE(decoder.next_logits(rows[i]).equal(lonely.next_logits(only)))
            << way.name << ", text " << i << ", step " << step;
      }
    }
    const models::ModelState expected = lonely.state(only);
    for (const int i : {0, 63, 99}) {
      const models::ModelState after = decoder.state(rows[i]);
      for (std::size_t layer = 0; layer < after.layers.size(); ++layer) {
        const auto &tensors = after.layers[layer].tensors, &others = expected.layers[layer].tensors;
        for (std::size_t j = 0; j < tensors.size(); ++j) {
          EXPECT_TRUE(tensors[j].equal(others[j])) << way.name << ", text " << i << ", layer " << layer << ' ' << j;
        }
      }
    }
  }
}

TEST_F(StepDecoderRows, StepsMayBeQueuedAheadOfTheirTokens) {
  const Pair models = pair(testing::tiny_model_config());
  const auto state = read_text(*models.gpu, some_tokens(9, 2)).state;
  StepDecoder patient(*models.gpu, 2, 264), hasty(*models.gpu, 2, 264);
  patient.join(state, 1, kGreedy, 0, {});
  const auto first = hasty.join(state, 1, kGreedy, 0, {});
  std::vector<std::int64_t> expected, tokens;
  for (int step = 0; step < 20; ++step) {
    patient.launch();
    expected.push_back(patient.read()[0].token);
  }
  hasty.launch();
  for (int step = 1; step < 20; ++step) {
    if (step == 7) hasty.join(state, 2, kGreedy, 0, {});  // a new graph between two steps
    hasty.launch();
    tokens.push_back(hasty.read()[0].token);
  }
  tokens.push_back(hasty.read()[0].token);
  EXPECT_EQ(tokens, expected);
  hasty.launch();
  hasty.leave(first);
  const auto drawn = hasty.read();
  ASSERT_EQ(drawn.size(), 1u) << "the text that left is not in it";
  EXPECT_NE(drawn[0].text, first);
  EXPECT_THROW(hasty.read(), Error);
}

TEST_F(StepDecoderRows, StatesMayBeBf16) {
  const Pair models = pair(larger_config());
  const auto text = read_text(*models.gpu, some_tokens(40, 2));
  StepDecoder wide(*models.gpu, 1, 1000), narrow(*models.gpu, 1, 1000, at::kBFloat16);
  const auto a = wide.join(text.state, 5, kGreedy, 0, {}), b = narrow.join(text.state, 5, kGreedy, 0, {});
  wide.launch(), narrow.launch();
  wide.read(), narrow.read();
  const double ratio = rms_ratio(narrow.next_logits(b), wide.next_logits(a));
  EXPECT_LE(ratio, 0.02);
  EXPECT_GT(ratio, 0);
}

}  // namespace
}  // namespace comba::generation
