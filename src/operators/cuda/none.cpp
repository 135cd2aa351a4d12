#include "base/message.h"
#include "operators/cross_entropy/cuda/cross_entropy.h"
#include "operators/rms_norm/cuda/rms_norm.h"
#include "operators/short_convolution/cuda/short_convolution.h"
#include "operators/swiglu/cuda/swiglu.h"

/// A build without CUDA. Who asks has_layer_kernels() first never comes here.
namespace comba::cuda {
namespace {

[[noreturn]] void no_cuda() { throw Error(ErrorCode::unsupported, "[comba] this build has no code for GPUs"); }

}  // namespace

bool has_layer_kernels() { return false; }

std::int64_t rms_norm_num_parts() { no_cuda(); }
std::int64_t short_convolution_num_parts(const ShortConvolutionSizes&) { no_cuda(); }

void rms_norm_forward(const RmsNormForward&) { no_cuda(); }
void rms_norm_backward(const RmsNormBackward&) { no_cuda(); }
void short_convolution_forward(const ShortConvolutionForward&) { no_cuda(); }
void short_convolution_backward(const ShortConvolutionBackward&) { no_cuda(); }
void short_convolution_step(const ShortConvolutionStep&) { no_cuda(); }
void swiglu_forward(const SwigluForward&) { no_cuda(); }
void swiglu_backward(const SwigluBackward&) { no_cuda(); }
void cross_entropy(const CrossEntropy&) { no_cuda(); }

}  // namespace comba::cuda
