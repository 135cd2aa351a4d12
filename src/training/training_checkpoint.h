#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "models/model_config.h"
#include "training/train_config.h"
#include "training/trainer.h"

/// A checkpoint is a model directory (config.json, model.safetensors, comba_tokenizer.json) with two more files:
/// optimizer.safetensors, see AdamW::state(), and training.json, the TrainingRecord. Position and seed stand for the
/// whole state of the data order, since the sampler has none of its own.
namespace comba::training {

/// Under which conditions a checkpoint was made.
struct TrainingRecord {
  std::int64_t step = 0;  ///< completed steps
  TrainConfig config;
  std::string dataset_md5;     ///< see Mixture::source_md5
  int num_threads = 1;         ///< of LibTorch: another number may round sums otherwise
  int num_processes = 1;       ///< likewise; the files of a checkpoint are the same for any
  std::string device = "cpu";  ///< likewise, or "cuda"
};

/// Writes a checkpoint directory, which appears whole or not at all and replaces an earlier one of its name. All
/// processes of the trainer's group must call it, and the leading one writes. Throws Error(io) when it cannot; what was
/// there before then still is.
void save_training_checkpoint(Trainer& trainer, const Mixture& dataset, const std::filesystem::path& directory);

/// Reads training.json. Throws Error(io) when it is missing or damaged.
TrainingRecord read_training_record(const std::filesystem::path& directory);

/// Throws Error(invalid_argument) naming what differs when a run of this model, configuration and data cannot continue
/// from the checkpoint bit for bit. The numbers of threads and processes are not looked at.
void require_same_run(const std::filesystem::path& directory, const models::ModelConfig& model,
                      const TrainConfig& config, const Mixture& dataset);

/// A trainer in the state of a checkpoint, weights included. Throws Error(io) when a file is missing or damaged.
Trainer load_training_checkpoint(const std::filesystem::path& directory, const Mixture& dataset,
                                 const TrainConfig& config,
                                 distributed::ProcessGroup& group = distributed::single_process(),
                                 c10::Device device = c10::kCPU, const StepOptions& step = {});

/// Reads the weights of a model directory into `model`. Throws Error as models::load_weights does, and
/// invalid_argument when the directory says that its ids are of another tokenizer than the data's.
void load_initial_weights(models::CausalLM& model, const std::filesystem::path& directory, const Mixture& dataset);

/// The tokenizer that a model directory's ids are of; `python` as for Tokenizer::from_json. Throws Error(io) when the
/// directory does not say.
data::Tokenizer load_tokenizer(const std::filesystem::path& directory, const std::string& python = "python3");

}  // namespace comba::training
