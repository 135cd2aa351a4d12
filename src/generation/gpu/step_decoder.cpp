#include "generation/gpu/step_decoder.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>

#include "base/message.h"
#include "libtorch/call_scope.h"

namespace comba::generation {
namespace {

constexpr std::size_t kMostUnread = 2;  // the halves of StepModel::drawn

/// A tensor of the host from which the GPU can copy while the host goes on.
template <class T>
at::Tensor pinned(const std::vector<T>& values, at::ScalarType dtype) {
  const auto size = static_cast<std::int64_t>(values.size() * sizeof(T) / at::elementSize(dtype));
  const at::Tensor tensor = at::empty({size}, at::TensorOptions(dtype).pinned_memory(true));
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor;
}

void upload(const at::Tensor& to, const at::Tensor& pinned_values) {
  to.narrow(0, 0, pinned_values.size(0)).copy_(pinned_values, /*non_blocking=*/true);
}

}  // namespace

StepDecoder::StepDecoder(models::CausalLM& model, std::int64_t num_slots, std::int64_t drawn_vocab,
                         at::ScalarType state_dtype)
    : model_(model, num_slots, drawn_vocab, state_dtype),
      table_(num_slots),
      stream_(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(model.device())),
      cuda_stream_(current_cuda_stream(model.device())),
      vocab_(model.config().vocab_size) {
  require(cuda_stream_ != nullptr, ErrorCode::invalid_argument,
          "[StepDecoder] steps are recorded as graphs, which the default stream cannot be; make another one current");
}

SlotTable::Row StepDecoder::join(const models::ModelState& state, std::int64_t token, const SamplingOptions& sampling,
                                 std::uint64_t num_drawn, std::span<const std::int64_t> recent) {
  const bool is_penalized = sampling.repetition_penalty != 1;
  require(!is_penalized || sampling.repetition_window <= model_step::kMostRecent, ErrorCode::unsupported,
          "[generate] on a GPU repetition_window must be at most ", model_step::kMostRecent, "; got ",
          sampling.repetition_window);
  const SlotTable::Row row = table_.join();
  model_.write_state(row.slot, state);
  const std::int64_t window = is_penalized ? sampling.repetition_window : 0;
  const auto kept = recent.last(std::min(recent.size(), static_cast<std::size_t>(window)));
  const std::vector<std::int32_t> ring(kept.begin(), kept.end());
  const model_step::Sampling options = {.temperature = sampling.temperature,
                                        .top_p = sampling.top_p,
                                        .min_p = sampling.min_p,
                                        .seed = sampling.seed,
                                        .num_drawn = num_drawn,
                                        .top_k = sampling.top_k,
                                        .repetition_penalty = static_cast<float>(sampling.repetition_penalty),
                                        .window = static_cast<std::int32_t>(window),
                                        .num_recent = static_cast<std::int32_t>(ring.size())};
  upload(model_.sampling[row.slot], pinned(std::vector{options}, at::kByte));
  upload(model_.tokens.narrow(0, row.slot, 1), pinned(std::vector{static_cast<std::int32_t>(token)}, at::kInt));
  if (!ring.empty()) upload(model_.recent[row.slot], pinned(ring, at::kInt));
  return row;
}

/// Tells the GPU which slots the rows of a step have. What is behind them is nobody's.
void StepDecoder::name_slots() {
  if (named_version_ == table_.version()) return;
  std::vector<std::int32_t> slots(static_cast<std::size_t>(model_.step.max_rows), -1);
  std::ranges::transform(table_.rows(), slots.begin(),
                         [](const SlotTable::Row& row) { return static_cast<std::int32_t>(row.slot); });
  upload(model_.slots, pinned(slots, at::kInt));
  named_ = table_.rows();
  named_version_ = table_.version();
}

const model_step::StepGraph& StepDecoder::graph(std::int64_t rows) {
  const auto found = graphs_.find(rows);
  if (found != graphs_.end()) return found->second;
  // Kernels are loaded by their first call, which must not be recorded: steps of nobody, two, since the tokens of the
  // last one may be unread.
  model_.slots.fill_(-1);
  for (int i = 0; i < 2; ++i) model_step::queue_step(model_.step, rows, cuda_stream_);
  named_version_ = ~std::uint64_t{0};
  return graphs_.emplace(rows, model_step::StepGraph(model_.step, rows, cuda_stream_)).first->second;
}

void StepDecoder::launch() {
  require(!table_.rows().empty(), ErrorCode::invalid_argument, "[StepDecoder] a step needs a text; there is none");
  require(unread_.size() < kMostUnread, ErrorCode::invalid_argument,
          "[StepDecoder] the tokens of a step must be read before the second step after it; got launch()");
  const auto rows = static_cast<std::int64_t>(table_.rows().size());
  const model_step::StepGraph& step = graph(model_step::bucket_of(rows, model_.step.max_rows));
  name_slots();
  step.launch(cuda_stream_);
  ++num_steps_;
  unread_.push_back({.rows = named_, .parity = num_steps_ % 2, .done = c10::Event(at::kCUDA)});
  unread_.back().done.record(stream_);
}

std::vector<StepDecoder::Drawn> StepDecoder::read() {
  require(!unread_.empty(), ErrorCode::invalid_argument, "[StepDecoder] read() needs a step; none was launched");
  const Step step = std::move(unread_.front());
  unread_.pop_front();
  step.done.synchronize();
  const auto* tokens = model_.drawn.const_data_ptr<std::int32_t>() + step.parity * model_.step.max_rows;
  std::vector<Drawn> drawn;
  for (std::size_t row = 0; row < step.rows.size(); ++row) {
    if (!table_.holds(step.rows[row])) continue;
    require(tokens[row] >= 0, ErrorCode::numerical, "[generate] logits must be numbers; got NaN");
    drawn.push_back({step.rows[row], tokens[row]});
  }
  return drawn;
}

at::Tensor StepDecoder::next_logits(const SlotTable::Row& text) const {
  const auto row = std::ranges::find(named_, text) - named_.begin();
  require(row < static_cast<std::ptrdiff_t>(named_.size()), ErrorCode::invalid_argument,
          "[StepDecoder] logits are those of a text of the last step; got the text of slot ", text.slot);
  return model_.logits[row].narrow(0, 0, vocab_).to(at::kCPU);
}

}  // namespace comba::generation
