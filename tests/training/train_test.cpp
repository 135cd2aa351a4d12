#include "training/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "comba/error.h"
#include "models/checkpoint.h"
#include "models/safetensors.h"
#include "support/tiny_run.h"
#include "training/metrics_log.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"

namespace comba::training {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct RecordingObserver : TrainObserver {
  void on_start(const models::CausalLM&, std::int64_t step) override { first_step = step; }
  void on_step(const StepReport& report) override {
    losses.push_back(report.loss);
    if (after_step) after_step(report.step);
  }
  void on_evaluation(std::int64_t step, const evaluation::EvaluationResult&) override { evaluations.push_back(step); }
  void on_sample(std::int64_t step, const std::string& text) override { samples[step] = text; }
  void on_checkpoint(const fs::path& directory) override { checkpoints.push_back(directory.filename()); }
  void on_trace(const fs::path& path) override { traces.push_back(path.filename()); }
  void on_warning(const std::string& text) override { warnings.push_back(text); }

  std::int64_t first_step = -1;
  std::vector<double> losses;
  std::vector<std::int64_t> evaluations;
  std::map<std::int64_t, std::string> samples;
  std::vector<std::string> checkpoints, traces, warnings;
  std::function<void(std::int64_t)> after_step;
};

class Train : public ::testing::Test {
 protected:
  TrainConfig config_ = {.steps = 12, .batch_size = 2, .context_length = 40, .learning_rate = 0.01, .warmup_steps = 3};

  TrainingRun run(const std::string& name, bool resume = false) const {
    return {.model = testing::tiny_model_config(),
            .config = config_,
            .train = train_,
            .heldout = heldout_,
            .directory = directory_.path() / name,
            .resume = resume};
  }

  /// Trains until a signal arrives in `last_step`.
  RecordingObserver interrupted_run(const TrainingRun& run, std::int64_t last_step) {
    StopFlag stop;
    RecordingObserver observer;
    observer.after_step = [&](std::int64_t step) {
      if (step == last_step) stop.request(SIGTERM);
    };
    try {
      train(run, observer, stop);
      ADD_FAILURE() << "not interrupted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::interrupted);
      EXPECT_THAT(error.what(), HasSubstr("stopped after step " + std::to_string(last_step)));
    }
    return observer;
  }

  std::string error_of(const TrainingRun& run, ErrorCode code) {
    RecordingObserver observer;
    try {
      train(run, observer, no_stop_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_TRUE(observer.losses.empty()) << "trained before it found out";
      return error.what();
    }
    return "";
  }

  const testing::TinyDataset data_;
  const data::TokenDataset train_ = data_.open(data::Split::train);
  const data::TokenDataset heldout_ = data_.open(data::Split::heldout);
  const testing::TemporaryDirectory directory_;
  const StopFlag no_stop_;
};

void expect_same_file(const fs::path& a, const fs::path& b) {
  EXPECT_TRUE(read_file(a) == read_file(b)) << a << " differs from " << b;
}

TEST_F(Train, AResumedRunIsTheUninterruptedRunBitForBit) {
  RecordingObserver straight, second;
  train(run("straight"), straight, no_stop_);
  const RecordingObserver first = interrupted_run(run("resumed"), 5);
  train(run("resumed", /*resume=*/true), second, no_stop_);

  EXPECT_EQ(second.first_step, 5);
  std::vector<double> losses = first.losses;
  losses.insert(losses.end(), second.losses.begin(), second.losses.end());
  EXPECT_EQ(losses, straight.losses);
  const fs::path a = checkpoint_path(directory_.path() / "straight", 12);
  const fs::path b = checkpoint_path(directory_.path() / "resumed", 12);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json", "training.json"}) {
    expect_same_file(a / file, b / file);
  }
}

TEST_F(Train, EveryWayOfComputingResumesBitForBit) {
  int number = 0;
  for (const char* dtype : {"fp32", "bf16"}) {
    for (const bool reset_at_documents : {false, true}) {
      config_.dtype = dtype;
      config_.reset_at_documents = reset_at_documents;
      config_.recompute_blocks = false;
      RecordingObserver straight, second;
      const std::string name = std::to_string(++number);
      train(run("straight" + name), straight, no_stop_);
      const RecordingObserver first = interrupted_run(run("resumed" + name), 5);
      config_.recompute_blocks = true;  // may change on the way
      train(run("resumed" + name, /*resume=*/true), second, no_stop_);
      const fs::path a = checkpoint_path(directory_.path() / ("straight" + name), 12);
      const fs::path b = checkpoint_path(directory_.path() / ("resumed" + name), 12);
      for (const char* file : {"model.safetensors", "optimizer.safetensors"}) expect_same_file(a / file, b / file);
      for (const auto& [tensor, value] : models::read_safetensors(b / "model.safetensors").tensors) {
        EXPECT_EQ(value.scalar_type(), at::kFloat) << tensor;
      }
    }
  }
}

TEST_F(Train, AnInterruptedStepIsFinishedAndSaved) {
  const RecordingObserver observer = interrupted_run(run("run"), 4);
  EXPECT_EQ(observer.losses.size(), 4u);
  EXPECT_THAT(observer.checkpoints, ::testing::ElementsAre("checkpoint-000004"));
}

TEST_F(Train, SavesEvaluatesAndPrunesWhenItIsDue) {
  config_.checkpoint_interval = 5;
  config_.evaluation_interval = 4;
  config_.keep_checkpoints = 2;
  RecordingObserver observer;
  train(run("run"), observer, no_stop_);
  EXPECT_THAT(observer.evaluations, ::testing::ElementsAre(4, 8, 12));
  EXPECT_THAT(observer.checkpoints,
              ::testing::ElementsAre("checkpoint-000005", "checkpoint-000010", "checkpoint-000012"));
  EXPECT_EQ(list_checkpoints(directory_.path() / "run").size(), 2u);
  const std::string metrics = read_file(metrics_path(directory_.path() / "run"));
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 12 + 3);
}

TEST_F(Train, EvaluatingAndSavingDoNotChangeTheResult) {
  RecordingObserver plain, busy;
  train(run("plain"), plain, no_stop_);
  config_.evaluation_interval = 1;
  config_.checkpoint_interval = 1;
  train(run("busy"), busy, no_stop_);
  EXPECT_EQ(plain.losses, busy.losses);
}

TEST_F(Train, KeepsTheBestCheckpointBesideTheNewest) {
  RecordingObserver observer;
  train(run("trained"), observer, no_stop_);
  config_.checkpoint_interval = 2;
  config_.evaluation_interval = 2;
  config_.keep_checkpoints = 1;
  config_.learning_rate = 1.0;  // ever larger steps away from what was learned
  config_.warmup_steps = 12;
  const fs::path directory = directory_.path() / "run";
  TrainingRun worse = run("run");
  worse.initial_model = checkpoint_path(directory_.path() / "trained", 12);
  train(worse, observer, no_stop_);
  const auto best = best_checkpoint(directory, MetricsLog(metrics_path(directory), 12).heldout());
  ASSERT_TRUE(best.has_value());
  ASSERT_LT(*best, 12) << "the run was to get worse";
  ASSERT_EQ(list_checkpoints(directory).size(), 2u);
  EXPECT_EQ(list_checkpoints(directory)[0].step, *best);
  EXPECT_EQ(fs::canonical(directory / "best"), fs::canonical(checkpoint_path(directory, *best)));
  EXPECT_NO_THROW(models::load_model(find_model_directory(directory / "best")));
}

TEST_F(Train, SamplesWhenItIsDueAndChangesNothing) {
  RecordingObserver plain, sampling, cut, rest;
  train(run("plain"), plain, no_stop_);
  config_.sample_interval = 5;
  config_.sample_tokens = 8;
  config_.sample_prompt = "the ";
  train(run("sampling"), sampling, no_stop_);
  EXPECT_EQ(sampling.losses, plain.losses);
  ASSERT_EQ(sampling.samples.size(), 2u);
  EXPECT_TRUE(sampling.samples.at(10).starts_with("the "));
  EXPECT_THAT(read_file(metrics_path(directory_.path() / "sampling")), HasSubstr(R"({"step":10,"sample":"the )"));
  interrupted_run(run("cut"), 7);
  train(run("cut", /*resume=*/true), rest, no_stop_);
  EXPECT_EQ(rest.samples.at(10), sampling.samples.at(10));
}

TEST_F(Train, DiagnosesTheControlLoopsWhenItIsDueAndChangesNothing) {
  const auto diagnosed = [&](const std::string& name, bool resume) {
    TrainingRun diagnosed_run = run(name, resume);
    diagnosed_run.diagnostics_interval = 5;
    return diagnosed_run;
  };
  const auto diagnoses_of = [&](const std::string& name) {
    std::istringstream lines(read_file(metrics_path(directory_.path() / name)));
    std::vector<std::string> found;
    for (std::string line; std::getline(lines, line);) {
      if (line.find("control_loops") == std::string::npos) continue;
      const std::size_t seconds = line.rfind(R"(,"diagnosis_seconds":)");  // which differ from run to run
      EXPECT_NE(seconds, std::string::npos) << line;
      found.push_back(line.substr(0, seconds));
    }
    return found;
  };
  RecordingObserver plain, straight, second;
  train(run("plain"), plain, no_stop_);
  train(diagnosed("straight", false), straight, no_stop_);
  interrupted_run(diagnosed("resumed", false), 7);
  train(diagnosed("resumed", true), second, no_stop_);
  EXPECT_EQ(straight.losses, plain.losses);
  const std::vector<std::string> lines = diagnoses_of("straight");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0], HasSubstr(R"({"step":0,"control_loops":[{"module":"model.layers.0.attn","state_norm":)"));
  EXPECT_THAT(lines[2], HasSubstr(R"({"step":10,)"));
  EXPECT_THAT(lines[2], HasSubstr(R"("module":"model.layers.1.attn")"));
  EXPECT_NE(lines[0].substr(lines[0].find("state_norm")), lines[2].substr(lines[2].find("state_norm")));
  EXPECT_EQ(diagnoses_of("resumed"), lines);
}

TEST_F(Train, RefusesToDiagnoseAModelWithoutControlLoops) {
  TrainingRun open_loop = run("run");
  open_loop.model.model_type = "linear_attn";
  open_loop.diagnostics_interval = 5;
  EXPECT_THAT(error_of(open_loop, ErrorCode::invalid_argument), HasSubstr("(model_type linear_attn)"));
  EXPECT_FALSE(fs::exists(directory_.path() / "run"));
}

TEST_F(Train, BeginsWithTheWeightsOfAnotherModel) {
  RecordingObserver first, straight, rest;
  train(run("first"), first, no_stop_);
  TrainingRun tuning = run("straight");
  tuning.initial_model = checkpoint_path(directory_.path() / "first", 12);
  train(tuning, straight, no_stop_);
  EXPECT_LT(straight.losses.front(), first.losses.front() - 1) << "it has learned something already";

  tuning.directory = directory_.path() / "cut";
  const RecordingObserver cut = interrupted_run(tuning, 5);
  tuning.resume = true;
  fs::remove_all(tuning.initial_model);  // no longer needed
  train(tuning, rest, no_stop_);
  std::vector<double> losses = cut.losses;
  losses.insert(losses.end(), rest.losses.begin(), rest.losses.end());
  EXPECT_EQ(losses, straight.losses);
}

TEST_F(Train, RefusesInitialWeightsThatDoNotFit) {
  RecordingObserver first;
  train(run("first"), first, no_stop_);
  TrainingRun tuning = run("tuning");
  tuning.initial_model = checkpoint_path(directory_.path() / "first", 12);
  tuning.model.intermediate_size = 64;
  EXPECT_THAT(error_of(tuning, ErrorCode::invalid_argument), HasSubstr("gate_proj.weight [48, 32] Float for [64, 32]"));
  tuning.directory = directory_.path() / "another";
  write_file_atomically(tuning.initial_model / "comba_tokenizer.json", "{}");
  EXPECT_THAT(error_of(tuning, ErrorCode::io), HasSubstr("comba_tokenizer.json"));
}

TEST_F(Train, WarnsWhenTheNumberOfThreadsIsAnother) {
  interrupted_run(run("run"), 2);
  const int num_threads = at::get_num_threads();
  at::set_num_threads(num_threads + 1);
  RecordingObserver observer;
  train(run("run", /*resume=*/true), observer, no_stop_);
  at::set_num_threads(num_threads);
  ASSERT_EQ(observer.warnings.size(), 1u);
  EXPECT_THAT(observer.warnings[0], HasSubstr("threads"));
}

TEST_F(Train, AFinishedRunResumesToNothing) {
  RecordingObserver first, second;
  train(run("run"), first, no_stop_);
  train(run("run", /*resume=*/true), second, no_stop_);
  EXPECT_TRUE(second.losses.empty());
}

TEST_F(Train, ARunKilledBeforeItsFirstCheckpointStartsAgain) {
  fs::create_directories(directory_.path() / "run");
  std::ofstream(metrics_path(directory_.path() / "run")) << "{\"step\": 1, \"loss\": 5.0}\n";
  RecordingObserver observer;
  train(run("run", /*resume=*/true), observer, no_stop_);
  EXPECT_EQ(observer.losses.size(), 12u);
}

TEST_F(Train, RefusesToOverwriteARun) {
  interrupted_run(run("run"), 2);
  EXPECT_THAT(error_of(run("run"), ErrorCode::invalid_argument), HasSubstr("--resume"));
  EXPECT_EQ(list_checkpoints(directory_.path() / "run").size(), 1u);
}

TEST_F(Train, RefusesToGoOnWithAnotherConfigurationModelOrText) {
  interrupted_run(run("run"), 2);
  config_.learning_rate = 0.5;
  EXPECT_THAT(error_of(run("run", true), ErrorCode::invalid_argument), HasSubstr("learning_rate 0.01 became 0.5"));
  config_.learning_rate = 0.01;

  TrainingRun other_model = run("run", true);
  other_model.model.num_hidden_layers = 1;
  EXPECT_THAT(error_of(other_model, ErrorCode::invalid_argument), HasSubstr("its own model"));

  const testing::TemporaryDirectory texts;
  std::ofstream(texts.path() / "text") << std::string(1000, '1');
  data::pack({.inputs = {texts.path() / "text"}, .output = directory_.path() / "ones"});
  const auto ones = data::TokenDataset::open(directory_.path() / "ones", data::Split::train);
  const TrainingRun other_data = {.model = testing::tiny_model_config(),
                                  .config = config_,
                                  .train = ones,
                                  .heldout = heldout_,
                                  .directory = directory_.path() / "run",
                                  .resume = true};
  EXPECT_THAT(error_of(other_data, ErrorCode::invalid_argument), HasSubstr("its own data"));
}

TEST_F(Train, RefusesADamagedCheckpointAndNamesTheFile) {
  interrupted_run(run("run"), 2);
  const fs::path checkpoint = checkpoint_path(directory_.path() / "run", 2);
  for (const char* file : {"optimizer.safetensors", "model.safetensors", "training.json", "config.json"}) {
    const std::string content = read_file(checkpoint / file);
    fs::resize_file(checkpoint / file, content.size() / 2);
    EXPECT_THAT(error_of(run("run", true), ErrorCode::io), HasSubstr(file));
    fs::remove(checkpoint / file);
    EXPECT_THAT(error_of(run("run", true), ErrorCode::io), HasSubstr(file));
    write_file_atomically(checkpoint / file, content);
  }
  EXPECT_EQ(error_of(run("run", true), ErrorCode::io), "");
}

TEST_F(Train, NamesStepAndCheckpointWhenTheLossDiverges) {
  config_.checkpoint_interval = 3;
  config_.learning_rate = 1e30;
  config_.warmup_steps = 0;
  RecordingObserver observer;
  try {
    train(run("run"), observer, no_stop_);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::numerical);
    EXPECT_THAT(error.what(), HasSubstr("in step 2"));
    EXPECT_THAT(error.what(), HasSubstr("newest checkpoint: none"));
  }
}

TEST_F(Train, ACheckpointIsAModelDirectory) {
  RecordingObserver observer;
  train(run("run"), observer, no_stop_);
  const fs::path directory = find_model_directory(directory_.path() / "run");
  EXPECT_EQ(models::load_model(directory)->config().hidden_size, 32);
  EXPECT_EQ(load_tokenizer(directory).vocab(), 257);
}

}  // namespace
}  // namespace comba::training
