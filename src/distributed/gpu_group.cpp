#include "distributed/gpu_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <utility>

#include "distributed/c10d_group.h"
#include "distributed/roster.h"

namespace comba::distributed {
namespace {

class GpuGroup : public ProcessGroup {
 public:
  GpuGroup(std::unique_ptr<ProcessGroup> on_host, std::unique_ptr<ProcessGroup> on_gpu)
      : on_host_(std::move(on_host)), on_gpu_(std::move(on_gpu)) {}

  int rank() const override { return on_host_->rank(); }
  int size() const override { return on_host_->size(); }
  void all_reduce_sum(at::Tensor& tensor) override { group_of(tensor).all_reduce_sum(tensor); }
  void all_reduce_max(at::Tensor& tensor) override { group_of(tensor).all_reduce_max(tensor); }
  std::unique_ptr<Pending> start_all_reduce_sum(at::Tensor tensor) override {
    return group_of(tensor).start_all_reduce_sum(tensor);
  }
  void reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) override {
    group_of(part).reduce_scatter_sum(part, whole);
  }
  std::unique_ptr<Pending> start_reduce_scatter_sum(at::Tensor part, at::Tensor whole) override {
    return group_of(part).start_reduce_scatter_sum(part, whole);
  }
  void all_gather(at::Tensor& whole, at::Tensor& part) override { group_of(part).all_gather(whole, part); }
  void gather(at::Tensor& whole, at::Tensor& part) override { group_of(part).gather(whole, part); }
  void broadcast(at::Tensor& tensor) override { group_of(tensor).broadcast(tensor); }
  void barrier() override { on_host_->barrier(); }

 private:
  ProcessGroup& group_of(const at::Tensor& tensor) { return tensor.is_cpu() ? *on_host_ : *on_gpu_; }

  std::unique_ptr<ProcessGroup> on_host_, on_gpu_;
};

}  // namespace

std::unique_ptr<ProcessGroup> make_gpu_group(const Roster& roster, int gpu, MakeNccl make_nccl,
                                             std::chrono::milliseconds timeout) {
  auto on_host = make_gloo_group(roster, timeout);
  auto on_gpu = told_plainly("connecting the GPUs", [&] {
    const auto store = c10::make_intrusive<c10d::PrefixStore>("nccl", roster.store());
    return std::make_unique<C10dGroup>(c10::intrusive_ptr<c10d::Backend>::reclaim(
        make_nccl(store.get(), roster.rank(), roster.size(), gpu, timeout.count())));
  });
  return std::make_unique<GpuGroup>(std::move(on_host), std::move(on_gpu));
}

}  // namespace comba::distributed
