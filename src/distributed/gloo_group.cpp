#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <utility>
#include <vector>

#include "base/message.h"
#include "distributed/process_group.h"
#include "distributed/roster.h"

namespace comba::distributed {
namespace {

using Gloo = c10d::ProcessGroupGloo;

// For what one process does alone while the others wait: the end of the process ends the waiting, no clock does.
constexpr std::chrono::hours kAnyTime{24 * 365};

/// What c10d says, less its place in the source and its stack.
std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  const std::size_t place_end = text.starts_with('[') ? text.find("] ") : std::string::npos;
  const std::size_t start = place_end == std::string::npos ? 0 : place_end + 2;
  return text.substr(start, text.find('\n', start) - start);
}

template <class Call>
auto told_plainly(const char* operation, Call&& call) {
  try {
    return call();
  } catch (const c10::Error& error) {
    throw LostProcess(concat("[distributed] ", operation, " failed: ", first_line(error)));
  } catch (const std::exception& error) {  // Gloo's own exceptions
    throw LostProcess(concat("[distributed] ", operation, " failed: ", error.what()));
  }
}

std::shared_ptr<::gloo::transport::Device> make_device(const Launch& launch) {
  if (!launch.interface.empty()) return Gloo::createDeviceForInterface(launch.interface);
  const bool one_machine = launch.address == "localhost" || launch.address.starts_with("127.");
  return one_machine ? Gloo::createDeviceForHostname("127.0.0.1") : Gloo::createDefaultDevice();
}

class GlooGroup : public ProcessGroup {
 public:
  GlooGroup(const Roster& roster, std::chrono::milliseconds timeout) : rank_(roster.rank()), size_(roster.size()) {
    told_plainly("connecting the processes", [&] {
      const auto options = Gloo::Options::create(timeout);
      options->devices.push_back(make_device(roster.launch()));
      options->threads = 1;  // one call at a time
      gloo_ = c10::make_intrusive<Gloo>(roster.store(), rank_, size_, options);
    });
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void all_reduce_sum(at::Tensor& tensor) override { all_reduce(tensor, c10d::ReduceOp::SUM); }
  void all_reduce_max(at::Tensor& tensor) override { all_reduce(tensor, c10d::ReduceOp::MAX); }

  void reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) override {
    finish("reduce-scatter", [&] { return gloo_->_reduce_scatter_base(part, whole); });
  }

  void all_gather(at::Tensor& whole, at::Tensor& part) override {
    finish("all-gather", [&] { return gloo_->_allgather_base(whole, part); });
  }

  void gather(at::Tensor& whole, at::Tensor& part) override {
    std::vector<std::vector<at::Tensor>> parts;
    if (leads()) parts.push_back(whole.chunk(size_));
    std::vector<at::Tensor> own = {part};
    finish("gather", [&] { return gloo_->gather(parts, own); });
  }

  void broadcast(at::Tensor& tensor) override {
    std::vector<at::Tensor> tensors = {tensor};
    finish("broadcast", [&] { return gloo_->broadcast(tensors); });
  }

  void barrier() override {
    c10d::BarrierOptions options;
    options.timeout = kAnyTime;
    finish("barrier", [&] { return gloo_->barrier(options); });
  }

 private:
  void all_reduce(at::Tensor& tensor, c10d::ReduceOp::RedOpType operation) {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = operation;
    finish("all-reduce", [&] { return gloo_->allreduce(tensors, options); });
  }

  template <class Start>
  void finish(const char* operation, Start&& start) {
    told_plainly(operation, [&] { start()->wait(); });
  }

  int rank_;
  int size_;
  c10::intrusive_ptr<Gloo> gloo_;
};

}  // namespace

bool has_gloo() { return true; }

std::unique_ptr<ProcessGroup> make_gloo_group(const Roster& roster, std::chrono::milliseconds timeout) {
  return std::make_unique<GlooGroup>(roster, timeout);
}

}  // namespace comba::distributed
