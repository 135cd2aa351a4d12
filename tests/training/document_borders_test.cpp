#include "training/document_borders.h"

#include <gmock/gmock.h>

#include "support/tiny_run.h"
#include "training/trainer.h"

namespace comba::training {
namespace {

constexpr std::int64_t kBos = 9;

at::Tensor borders(std::vector<std::int64_t> ids, std::int64_t rows) {
  return document_borders(at::tensor(ids, at::kLong).view({rows, -1}), kBos);
}

TEST(DocumentBorders, AreWindowsAndMarks) {
  EXPECT_TRUE(at::equal(borders({1, 2, 3, 4}, 1), at::tensor({0, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(borders({9, 2, 3, 9}, 1), at::tensor({0, 3, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(borders({1, 9, 3, 4, 9, 9}, 2), at::tensor({0, 1, 3, 4, 5, 6}, at::kLong)));
}

TEST(DocumentBorders, ATrainerThatResetsScoresEachDocumentAlone) {
  const testing::TinyDataset text;
  const data::TokenDataset train = text.open(data::Split::train);
  TrainConfig config{.steps = 2, .batch_size = 2, .context_length = 300, .reset_at_documents = true};
  auto model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
  model->initialize(1);

  double nats = 0;
  std::int64_t num_documents = 0;
  {
    const at::NoGradGuard no_grad;
    const MixtureSampler sampler(train, config.context_length, static_cast<std::uint64_t>(config.seed));
    const Batch batch = read_batch(train, sampler, 0, config.batch_size);
    const at::Tensor ids = batch.input_ids.view({1, -1}), labels = batch.labels.view({1, -1});
    const at::Tensor cuts = document_borders(batch.input_ids, train.tokenizer().bos());
    num_documents = cuts.numel() - 1;
    for (std::int64_t n = 0; n < num_documents; ++n) {
      const std::int64_t begin = cuts[n].item<std::int64_t>(), length = cuts[n + 1].item<std::int64_t>() - begin;
      nats += model->loss(ids.narrow(1, begin, length), labels.narrow(1, begin, length)).item<double>() *
              static_cast<double>(length);
    }
  }
  ASSERT_GT(num_documents, 3);
  Trainer resetting(model, train, config);
  EXPECT_NEAR(resetting.step().loss, nats / 600, 1e-5);

  config.reset_at_documents = false;
  auto same_model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
  same_model->initialize(1);
  EXPECT_GT(std::abs(Trainer(same_model, train, config).step().loss - nats / 600), 1e-5);
}

TEST(DocumentBorders, ResettingDoesNotDependOnTheMicroBatch) {
  const testing::TinyDataset text;
  const data::TokenDataset train = text.open(data::Split::train);
  std::vector<double> losses;
  for (const std::int64_t micro_batch_size : {1, 2, 4}) {
    const TrainConfig config{.steps = 1,
                             .batch_size = 4,
                             .micro_batch_size = micro_batch_size,
                             .context_length = 100,
                             .reset_at_documents = true};
    auto model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
    model->initialize(1);
    losses.push_back(Trainer(model, train, config).step().loss);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-5);
  EXPECT_NEAR(losses[0], losses[2], 1e-5);
}

}  // namespace
}  // namespace comba::training
