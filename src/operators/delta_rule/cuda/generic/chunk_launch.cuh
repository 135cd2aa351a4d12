#pragma once

#include "operators/delta_rule/cuda/generic/chunk_launch.h"
#include "operators/delta_rule/cuda/generic/couple.cuh"
#include "operators/delta_rule/cuda/generic/directions.cuh"
#include "operators/delta_rule/cuda/generic/gradients.cuh"
#include "operators/delta_rule/cuda/generic/reverse_scan.cuh"
#include "runtime/cuda_check.h"

/// Workspace and launches of the chunk form.
namespace comba::delta_rule::cuda::generic {

/// Hands out pieces of the workspace, each aligned to 64 bytes. Without memory it only counts.
class Pieces {
 public:
  explicit Pieces(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  void take(T*& piece, std::int64_t count) {
    piece = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += (count * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
  }
  std::int64_t bytes() const { return used_; }

 private:
  char* memory_;
  std::int64_t used_ = 0;
};

inline std::int64_t num_slots(const Problem& x) {
  return x.in.cu_seqlens.given() ? x.T / kSide + x.N : x.N * ((x.T + kSide - 1) / kSide);
}

inline int num_tiles(std::int64_t dim) { return static_cast<int>((dim + kSide - 1) / kSide); }

template <class Args>
void carve_chunks(const Problem& x, Pieces& pieces, Args& a) {
  a.N = x.N;
  a.slots = num_slots(x);
  a.K_tiles = num_tiles(x.K);
  a.V_tiles = num_tiles(x.V);
  pieces.take(a.couplings, a.slots * x.HV);
}

template <class Kernel, class Args>
void launch(Kernel kernel, std::int64_t blocks, std::size_t shared_bytes, const Problem& x, const Args& a) {
  if (blocks == 0) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
             "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), kBlockThreads, shared_bytes, x.execution.stream>>>(a);
  check_cuda(cudaGetLastError(), "the launch of cuda.generic");
}

template <class Element, bool kForBackward>
void launch_scan(const Problem& x, const ScanArguments<Element>& a) {
  const auto kernel = a.K_tiles <= 2 ? scan<Element, 2, kForBackward> : scan<Element, 4, kForBackward>;
  launch(kernel, x.N * x.HV * a.V_tiles, sizeof(ScanShared<Element>), x, a);
}

template <class Element>
void launch_couple(const Problem& x, const ChunkArguments<Element>& a) {
  launch(couple<Element>, a.slots * x.HV, sizeof(CoupleShared<Element>), x, a);
}

template <class Element>
std::int64_t forward_workspace(const Problem& x) {
  Pieces pieces;
  ScanArguments<Element> a;
  carve_chunks(x, pieces, a);
  return pieces.bytes();
}

template <class Element>
void forward_in_chunks(const Problem& x, const Arguments& arguments, Workspace workspace) {
  Pieces pieces(workspace.data);
  ScanArguments<Element> a;
  static_cast<Arguments&>(a) = arguments;
  carve_chunks(x, pieces, a);
  launch_couple<Element>(x, a);
  launch_scan<Element, false>(x, a);
}

template <class Element>
void carve_backward(const Problem& x, Pieces& pieces, BackwardArguments<Element>& a) {
  carve_chunks(x, pieces, a);
  const std::int64_t chunks = a.slots * x.HV, K = a.K_tiles * kSide, V = a.V_tiles * kSide;
  for (Element** states : {&a.saved.states, &a.d_states}) pieces.take(*states, chunks * K * V);
  for (float** rows : {&a.saved.errors, &a.d_writes}) pieces.take(*rows, chunks * kSide * V);
  for (float** rows : {&a.dq_rows, &a.dk_rows}) pieces.take(*rows, chunks * kSide * K);
  if (x.in.p.given()) pieces.take(a.dp_rows, chunks * kSide * K);
  pieces.take(a.value_head_sums, chunks);
  pieces.take(a.key_head_sums, a.slots * x.H);
}

template <class Element>
std::int64_t backward_workspace(const Problem& x) {
  Pieces pieces;
  BackwardArguments<Element> a;
  carve_backward(x, pieces, a);
  return pieces.bytes();
}

template <class Element>
void backward_in_chunks(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                        Workspace workspace) {
  Pieces pieces(workspace.data);
  BackwardArguments<Element> a;
  static_cast<Arguments&>(a) = arguments;
  static_cast<GradientTensors&>(a) = tensors;
  carve_backward(x, pieces, a);
  launch_couple<Element>(x, a);
  launch_scan<Element, true>(x, a);
  const auto reverse = a.K_tiles <= 2 ? reverse_scan<Element, 2> : reverse_scan<Element, 4>;
  launch(reverse, x.N * x.HV * a.V_tiles, sizeof(ScanShared<Element>), x, a);
  launch(gradients<Element>, a.slots * x.HV, sizeof(GradientsShared<Element>), x, a);
  launch(finish_directions<Element>, a.slots * x.H, 0, x, a);
  launch(sum_heads<Element>, x.HV, 0, x, a);
}

}  // namespace comba::delta_rule::cuda::generic
