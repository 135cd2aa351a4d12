#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

/// Synthetic tasks: sequences of tokens, and at some positions of each the token that must be told there.
namespace comba::tasks {

/// Sequences of one length with equally many labels. Batches are never mixed from two segments.
struct Segment {
  std::int64_t slice = 0;  ///< by what its accuracy is reported: see TaskData::slice_name
  at::Tensor inputs;       ///< [N, T] i64
  at::Tensor positions;    ///< [N, P] i64  where a label stands, from 0, each once
  at::Tensor targets;      ///< [N, P] i64  the label there

  std::int64_t num_examples() const { return inputs.size(0); }
  std::int64_t length() const { return inputs.size(1); }

  /// The labels at every position, -100 where there is none.  [N, T] i64
  at::Tensor labels() const;
  Segment to(at::Device device) const;
};

struct TaskData {
  std::int64_t vocab = 0;
  std::string slice_name;  ///< what the slices count: "pairs", "length"
  std::vector<Segment> train;
  std::vector<Segment> test;

  TaskData to(at::Device device) const;
};

/// What a segment is made of.
struct SegmentSpec {
  std::int64_t length = 0;    ///< T
  std::int64_t items = 0;     ///< MQAR: key-value pairs; selective copying: tokens to copy; else unused
  std::int64_t examples = 0;  ///< N
};

/// A task and its data, whose every number follows from these.
struct DataSpec {
  std::string name;                 ///< among the data sets of one setting: "64x4"
  std::string task;                 ///< one of supported_tasks()
  std::int64_t vocab = 0;           ///< tokens; modular addition: the modulus
  bool random_non_queries = false;  ///< MQAR: positions without key, value or query hold any token, not token 0
  std::vector<SegmentSpec> train;
  std::vector<SegmentSpec> test;
  std::int64_t batch_size = 256;  ///< examples a step
  std::int64_t test_batch_size = 256;
};

/// "mqar", "parity", "modular-addition", "s3", "selective-copy".
const std::vector<std::string>& supported_tasks();

/// What the slices of a task's accuracy count.
std::string slice_name(const std::string& task);

/// Throws Error(invalid_argument) for a task that nobody knows, or sizes with which it makes no sense.
void validate(const DataSpec& spec);

/// Makes the data on the CPU. Each segment has a RandomState of its own, whose seed is drawn from RandomState(123): for
/// training from the lower, for tests from the upper half of all seeds. Throws as validate() does.
TaskData make_data(const DataSpec& spec);

}  // namespace comba::tasks
