#include "distributed/process_group.h"

namespace comba::distributed {
namespace {

class Done : public Pending {
 public:
  void wait() override {}
};

class SingleProcess : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce_sum(at::Tensor&) override {}
  void all_reduce_max(at::Tensor&) override {}
  std::unique_ptr<Pending> start_all_reduce_sum(at::Tensor) override { return std::make_unique<Done>(); }
  void reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) override { part.copy_(whole); }
  std::unique_ptr<Pending> start_reduce_scatter_sum(at::Tensor part, at::Tensor whole) override {
    part.copy_(whole);
    return std::make_unique<Done>();
  }
  void all_gather(at::Tensor& whole, at::Tensor& part) override { whole.copy_(part); }
  void gather(at::Tensor& whole, at::Tensor& part) override { whole.copy_(part); }
  void broadcast(at::Tensor&) override {}
  void barrier() override {}
};

}  // namespace

ProcessGroup& single_process() {
  static SingleProcess group;
  return group;
}

}  // namespace comba::distributed
