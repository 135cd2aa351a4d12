#pragma once

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <memory>
#include <string>

#include "base/message.h"
#include "distributed/process_group.h"

namespace comba::distributed {

/// What c10d says, less its place in the source and its stack.
std::string first_line(const c10::Error& error);

/// `call`, whose errors become LostProcess.
template <class Call>
auto told_plainly(const char* operation, Call&& call) {
  try {
    return call();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& error) {
    throw LostProcess(concat("[distributed] ", operation, " failed: ", first_line(error)));
  } catch (const std::exception& error) {  // Gloo's own exceptions
    throw LostProcess(concat("[distributed] ", operation, " failed: ", error.what()));
  }
}

/// A group over one of c10d's backends.
class C10dGroup : public ProcessGroup {
 public:
  explicit C10dGroup(c10::intrusive_ptr<c10d::Backend> backend) : backend_(std::move(backend)) {}

  int rank() const override { return backend_->getRank(); }
  int size() const override { return backend_->getSize(); }
  void all_reduce_sum(at::Tensor& tensor) override;
  void all_reduce_max(at::Tensor& tensor) override;
  std::unique_ptr<Pending> start_all_reduce_sum(at::Tensor tensor) override;
  void reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) override;
  std::unique_ptr<Pending> start_reduce_scatter_sum(at::Tensor part, at::Tensor whole) override;
  void all_gather(at::Tensor& whole, at::Tensor& part) override;
  void gather(at::Tensor& whole, at::Tensor& part) override;
  void broadcast(at::Tensor& tensor) override;
  void barrier() override;

 private:
  c10::intrusive_ptr<c10d::Backend> backend_;
};

}  // namespace comba::distributed
