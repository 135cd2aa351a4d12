#include "training/document_borders.h"

namespace comba::training {

at::Tensor document_borders(const at::Tensor& input_ids, std::int64_t bos) {
  at::Tensor begins = input_ids == bos;  // [B, T]
  begins.select(1, 0).fill_(true);
  return at::cat({begins.flatten().nonzero().flatten(), at::full({1}, input_ids.numel(), at::kLong)});
}

}  // namespace comba::training
