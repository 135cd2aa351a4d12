#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "comba/error.h"
#include "training/train_config.h"

namespace comba::training {
namespace {

using ::testing::HasSubstr;

std::string error_of(const TrainConfig& config) {
  try {
    validate(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(TrainConfig, DefaultsAreValid) { EXPECT_EQ(error_of({}), ""); }

TEST(TrainConfig, NamesTheFieldThatMakesNoSense) {
  EXPECT_THAT(error_of({.steps = 0}), HasSubstr("steps must be at least 1; got 0"));
  EXPECT_THAT(error_of({.batch_size = 6, .micro_batch_size = 4}), HasSubstr("micro_batch_size"));
  EXPECT_THAT(error_of({.learning_rate = -1}), HasSubstr("learning_rate must be positive; got -1"));
  EXPECT_THAT(error_of({.learning_rate = std::numeric_limits<double>::quiet_NaN()}), HasSubstr("learning_rate"));
  EXPECT_THAT(error_of({.dtype = "fp16"}), HasSubstr("dtype must be fp32 or bf16; got fp16"));
  EXPECT_THAT(error_of({.beta2 = 1.0}), HasSubstr("beta2"));
  EXPECT_THAT(error_of({.max_gradient_norm = 0}), HasSubstr("max_gradient_norm"));
  EXPECT_THAT(error_of({.keep_checkpoints = 0}), HasSubstr("keep_checkpoints"));
}

TEST(TrainConfig, ReadsBackToTheSameBits) {
  TrainConfig config;
  config.steps = 123456789012345;
  config.learning_rate = 0.1 + 0.2;
  config.epsilon = 1e-300;
  config.dtype = "bf16";
  config.reset_at_documents = true;
  config.sample_prompt = "\"na\xC3\xAFve\"\n";
  const TrainConfig read = parse_train_config(to_json(config));
  EXPECT_EQ(read.steps, config.steps);
  EXPECT_EQ(read.learning_rate, config.learning_rate);
  EXPECT_EQ(read.epsilon, config.epsilon);
  EXPECT_EQ(read.dtype, "bf16");
  EXPECT_TRUE(read.reset_at_documents);
  EXPECT_EQ(read.sample_prompt, config.sample_prompt);
  EXPECT_EQ(to_json(read), to_json(config));
}

TEST(TrainConfig, RefusesTextWithMissingOrUnknownKeys) {
  std::string renamed = to_json({});
  renamed.replace(renamed.find("seed"), 4, "sead");
  EXPECT_THROW(parse_train_config(renamed), Error);
  EXPECT_THROW(parse_train_config("{\"more\": 1, " + to_json({}).substr(1)), Error);
  EXPECT_THROW(parse_train_config("{"), Error);
}

TEST(TrainConfig, KnowsWhichFieldsChangeTheResult) {
  TrainConfig saved, wanted;
  wanted.checkpoint_interval = 7;
  EXPECT_EQ(trajectory_difference(saved, wanted), "");
  wanted.batch_size = 9;
  EXPECT_EQ(trajectory_difference(saved, wanted), "batch_size 8 became 9");
}

}  // namespace
}  // namespace comba::training
