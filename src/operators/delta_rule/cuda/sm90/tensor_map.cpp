#include "operators/delta_rule/cuda/sm90/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/sm90/arguments.h"
#include "runtime/cuda_check.h"

namespace comba::delta_rule::cuda::sm90 {
namespace {

/// From the driver, which programs are not linked with.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
               "cudaGetDriverEntryPointByVersion");
    require(result == cudaDriverEntryPointSuccess, ErrorCode::internal,
            "[cuda] the driver has no cuTensorMapEncodeTiled: update it");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  // It wants a current context, which a thread has only once CUDA's runtime was asked for something that needs one: a
  // thread of autograd was not.
  thread_local const bool bound = [] {
    check_cuda(cudaSetDevice(current_device()), "cudaSetDevice");
    return true;
  }();
  static_cast<void>(bound);
  return encode;
}

constexpr std::int64_t kElementBytes = 2;

CUtensorMap encoded(CUtensorMapDataType type, const ConstView& view, const cuuint64_t (&sizes)[4],
                    const cuuint64_t (&strides)[3], const cuuint32_t (&box)[4], CUtensorMapSwizzle swizzle,
                    CUtensorMapL2promotion promotion) {
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encoder()(&map, type, 4, const_cast<void*>(view.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(status == CUDA_SUCCESS, ErrorCode::internal, "[cuda] cuTensorMapEncodeTiled failed with code ",
          static_cast<int>(status));
  return map;
}

}  // namespace

std::string tensor_map_refusal(const char* name, const ConstView& view) {
  const auto aligned = [](std::int64_t bytes) { return bytes % 16 == 0; };
  if (!aligned(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data)))) {
    return std::string("needs ") + name + " aligned to 16 bytes";
  }
  for (int i = 0; i < 3; ++i) {
    if (view.sizes[i] > 1 && (!aligned(view.strides[i] * kElementBytes) || view.strides[i] <= 0)) {
      return std::string("needs the strides of ") + name + " to be positive multiples of 8";
    }
  }
  return "";
}

CUtensorMap tensor_map(const ConstView& view, int columns) {
  if (view.empty()) return {};
  const auto size = [&](int i) { return static_cast<cuuint64_t>(view.sizes[i]); };
  // The stride of a dim of one element may be anything; the encoder wants multiples of 16 bytes.
  const auto stride = [&](int i) {
    return static_cast<cuuint64_t>(view.sizes[i] > 1 ? view.strides[i] * kElementBytes : 16);
  };
  const cuuint64_t sizes[4] = {size(3), size(2), size(1), size(0)}, strides[3] = {stride(2), stride(1), stride(0)};
  const cuuint32_t box[4] = {static_cast<cuuint32_t>(columns), 1, kChunk, 1};
  const CUtensorMapSwizzle swizzle = columns == 64   ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : columns == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                     : CU_TENSOR_MAP_SWIZZLE_32B;
  return encoded(CU_TENSOR_MAP_DATA_TYPE_UINT16, view, sizes, strides, box, swizzle,
                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
}

std::string state_map_refusal(const ConstView& view) {
  bool fits = reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
  for (int i = 0; i < 3; ++i) {
    const std::int64_t bytes = view.strides[i] * size_of(view.dtype);
    fits = fits && (view.sizes[i] <= 1 || (bytes > 0 && bytes % 16 == 0 && bytes < std::int64_t{1} << 40));
    fits = fits && view.sizes[i] < std::int64_t{1} << 31;
  }
  return fits ? "" : "needs rows of the state that begin at multiples of 16 bytes, and positive strides";
}

CUtensorMap state_map(const ConstView& view, int rows, int columns) {
  const auto size = [&](int i) { return static_cast<cuuint64_t>(view.sizes[i]); };
  const auto stride = [&](int i) {
    return static_cast<cuuint64_t>(view.sizes[i] > 1 ? view.strides[i] * size_of(view.dtype) : 16);
  };
  const bool wide = view.dtype == DType::f32;
  const cuuint64_t sizes[4] = {size(3), size(2), size(1), size(0)}, strides[3] = {stride(2), stride(1), stride(0)};
  const cuuint32_t box[4] = {static_cast<cuuint32_t>(columns), static_cast<cuuint32_t>(rows), 1, 1};
  const bool widest = columns * size_of(view.dtype) == 128;
  return encoded(wide ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16, view, sizes, strides, box,
                 widest ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

}  // namespace comba::delta_rule::cuda::sm90
