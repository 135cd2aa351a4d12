#include "distributed/c10d_group.h"

#include <utility>
#include <vector>

namespace comba::distributed {
namespace {

// For what one process does alone while the others wait: the end of the process ends the waiting, no clock does.
constexpr std::chrono::hours kAnyTime{24 * 365};

/// Starts a call and waits for it: until it is done, or for a GPU until its stream will have done it.
template <class Start>
void finish(const char* operation, Start&& start) {
  told_plainly(operation, [&] { start()->wait(); });
}

class PendingWork : public Pending {
 public:
  PendingWork(const char* operation, c10::intrusive_ptr<c10d::Work> work, std::vector<at::Tensor> tensors)
      : operation_(operation), work_(std::move(work)), tensors_(std::move(tensors)) {}

  void wait() override {
    told_plainly(operation_, [&] { work_->wait(); });
  }

 private:
  const char* operation_;
  c10::intrusive_ptr<c10d::Work> work_;
  std::vector<at::Tensor> tensors_;  // live as long as they are read and written
};

c10::intrusive_ptr<c10d::Work> start_all_reduce(c10d::Backend& backend, const at::Tensor& tensor,
                                                c10d::ReduceOp::RedOpType operation) {
  std::vector<at::Tensor> tensors = {tensor};
  c10d::AllreduceOptions options;
  options.reduceOp = operation;
  return backend.allreduce(tensors, options);
}

void all_reduce(c10d::Backend& backend, at::Tensor& tensor, c10d::ReduceOp::RedOpType operation) {
  finish("all-reduce", [&] { return start_all_reduce(backend, tensor, operation); });
}

}  // namespace

std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  const std::size_t place_end = text.starts_with('[') ? text.find("] ") : std::string::npos;
  const std::size_t start = place_end == std::string::npos ? 0 : place_end + 2;
  return text.substr(start, text.find('\n', start) - start);
}

void C10dGroup::all_reduce_sum(at::Tensor& tensor) { all_reduce(*backend_, tensor, c10d::ReduceOp::SUM); }
void C10dGroup::all_reduce_max(at::Tensor& tensor) { all_reduce(*backend_, tensor, c10d::ReduceOp::MAX); }

std::unique_ptr<Pending> C10dGroup::start_all_reduce_sum(at::Tensor tensor) {
  auto work = told_plainly("all-reduce", [&] { return start_all_reduce(*backend_, tensor, c10d::ReduceOp::SUM); });
  return std::make_unique<PendingWork>("all-reduce", std::move(work), std::vector{std::move(tensor)});
}

void C10dGroup::reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) {
  finish("reduce-scatter", [&] { return backend_->_reduce_scatter_base(part, whole); });
}

std::unique_ptr<Pending> C10dGroup::start_reduce_scatter_sum(at::Tensor part, at::Tensor whole) {
  auto work = told_plainly("reduce-scatter", [&] { return backend_->_reduce_scatter_base(part, whole); });
  return std::make_unique<PendingWork>("reduce-scatter", std::move(work),
                                       std::vector{std::move(part), std::move(whole)});
}

void C10dGroup::all_gather(at::Tensor& whole, at::Tensor& part) {
  finish("all-gather", [&] { return backend_->_allgather_base(whole, part); });
}

void C10dGroup::gather(at::Tensor& whole, at::Tensor& part) {
  std::vector<std::vector<at::Tensor>> parts;
  if (leads()) parts.push_back(whole.chunk(size()));
  std::vector<at::Tensor> own = {part};
  finish("gather", [&] { return backend_->gather(parts, own); });
}

void C10dGroup::broadcast(at::Tensor& tensor) {
  std::vector<at::Tensor> tensors = {tensor};
  finish("broadcast", [&] { return backend_->broadcast(tensors); });
}

void C10dGroup::barrier() {
  c10d::BarrierOptions options;
  options.timeout = kAnyTime;
  finish("barrier", [&] { return backend_->barrier(options); });
}

}  // namespace comba::distributed
