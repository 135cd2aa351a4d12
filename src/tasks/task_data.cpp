#include "tasks/task_data.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "base/message.h"
#include "tasks/mqar.h"
#include "tasks/numpy_random.h"
#include "tasks/selective_copy.h"
#include "tasks/state_tracking.h"

namespace comba::tasks {
namespace {

constexpr std::uint32_t kSeed = 123;
constexpr std::int64_t kSeeds = std::int64_t{1} << 32;

bool has_items(const std::string& task) { return task == "mqar" || task == "selective-copy"; }

Segment make_segment(const DataSpec& spec, const SegmentSpec& segment, std::uint32_t seed,
                     const at::Generator& fillers) {
  NumpyRandom random(seed);
  Segment made = spec.task == "mqar"             ? make_mqar(spec, segment, random, fillers)
                 : spec.task == "selective-copy" ? make_selective_copy(spec, segment, random)
                                                 : make_state_tracking(spec, segment, random);
  made.slice = spec.task == "mqar" ? segment.items : segment.length;
  return made;
}

void validate_segment(const DataSpec& spec, const SegmentSpec& segment) {
  require(segment.length > 0 && segment.examples > 0 && (segment.items > 0 || !has_items(spec.task)),
          ErrorCode::invalid_argument, "[task] a segment's numbers must be positive; got length ", segment.length, ", ",
          segment.items, " items, ", segment.examples, " examples");
  if (spec.task == "mqar") validate_mqar(spec, segment);
  if (spec.task == "selective-copy") validate_selective_copy(spec, segment);
}

}  // namespace

at::Tensor Segment::labels() const { return at::full_like(inputs, -100).scatter_(1, positions, targets); }

Segment Segment::to(at::Device device) const {
  return {
      .slice = slice, .inputs = inputs.to(device), .positions = positions.to(device), .targets = targets.to(device)};
}

TaskData TaskData::to(at::Device device) const {
  TaskData moved{.vocab = vocab, .slice_name = slice_name, .train = {}, .test = {}};
  for (const Segment& segment : train) moved.train.push_back(segment.to(device));
  for (const Segment& segment : test) moved.test.push_back(segment.to(device));
  return moved;
}

const std::vector<std::string>& supported_tasks() {
  static const std::vector<std::string> tasks = {"mqar", "parity", "modular-addition", "s3", "selective-copy"};
  return tasks;
}

std::string slice_name(const std::string& task) { return task == "mqar" ? "pairs" : "length"; }

void validate(const DataSpec& spec) {
  const auto& tasks = supported_tasks();
  require(std::find(tasks.begin(), tasks.end(), spec.task) != tasks.end(), ErrorCode::invalid_argument,
          "[task] must be one of mqar, parity, modular-addition, s3, selective-copy; got '", spec.task, "'");
  require(!spec.train.empty() && !spec.test.empty(), ErrorCode::invalid_argument,
          "[task] there must be something to train on and something to test; got ", spec.train.size(), " and ",
          spec.test.size(), " segments");
  require(spec.batch_size > 0 && spec.test_batch_size > 0, ErrorCode::invalid_argument,
          "[task] batches must have at least one example; got ", spec.batch_size, " and ", spec.test_batch_size);
  validate_vocab(spec);
  for (const auto* segments : {&spec.train, &spec.test}) {
    for (const SegmentSpec& segment : *segments) validate_segment(spec, segment);
  }
}

TaskData make_data(const DataSpec& spec) {
  validate(spec);
  NumpyRandom random(kSeed);
  std::vector<std::uint32_t> train_seeds, test_seeds;  // all of them are drawn before the first segment
  for (std::size_t i = 0; i < spec.train.size(); ++i) {
    train_seeds.push_back(static_cast<std::uint32_t>(random.randint(0, kSeeds / 2)));
  }
  for (std::size_t i = 0; i < spec.test.size(); ++i) {
    test_seeds.push_back(static_cast<std::uint32_t>(random.randint(kSeeds / 2, kSeeds)));
  }
  const at::Generator fillers = at::make_generator<at::CPUGeneratorImpl>(kSeed);
  TaskData data{.vocab = spec.vocab, .slice_name = slice_name(spec.task), .train = {}, .test = {}};
  if (spec.task == "selective-copy") data.vocab = spec.vocab + kNumCopyMarks;
  for (std::size_t i = 0; i < spec.train.size(); ++i) {
    data.train.push_back(make_segment(spec, spec.train[i], train_seeds[i], fillers));
  }
  for (std::size_t i = 0; i < spec.test.size(); ++i) {
    data.test.push_back(make_segment(spec, spec.test[i], test_seeds[i], fillers));
  }
  return data;
}

}  // namespace comba::tasks
