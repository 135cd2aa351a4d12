#pragma once

#include <cstdint>
#include <filesystem>

#include "models/safetensors.h"

/// The weights of a model directory in the Hugging Face layout:
///
///     model.safetensors                   all of them, or
///     model-00001-of-00003.safetensors    ... shards, and
///     model.safetensors.index.json        {"metadata": {"total_size": bytes}, "weight_map": {tensor: shard}}
namespace comba::models {

/// A shard's size when nothing else is said: that of the Hugging Face libraries.
inline constexpr std::int64_t kShardBytes = 5'000'000'000;

/// All tensors of a directory. Where there are both forms, the single file counts. Throws Error(io), naming the file,
/// when neither is there, as read_safetensors does, and when index and shards do not name the same tensors.
NamedTensors read_weight_files(const std::filesystem::path& directory);

/// Writes the single file, or, when the tensors have more than `shard_bytes`, shards of at most that much (one tensor
/// at least) and then the index. Each file appears whole or not at all; a single file gives way to shards.
/// Throws Error as write_safetensors does.
void write_weight_files(const std::filesystem::path& directory, const NamedTensors& tensors,
                        std::int64_t shard_bytes = kShardBytes);

}  // namespace comba::models
