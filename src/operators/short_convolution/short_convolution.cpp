#include "operators/short_convolution/short_convolution.h"

#include "operators/delta_rule/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "operators/short_convolution/short_convolution.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "comba/parallel.h"
#include "operators/cpu/instruction_sets.h"
#include "operators/cpu/lanes-inl.h"

#ifndef COMBA_SHORT_CONVOLUTION_KERNELS_
#define COMBA_SHORT_CONVOLUTION_KERNELS_
namespace comba::cpu {

/// What is compiled once per instruction set.
struct ShortConvolutionKernels {
  void (*forward_piece)(const ShortConvolutionForward& args, const ConvolutionPiece& piece);
  void (*backward_piece)(const ShortConvolutionBackward& args, const ConvolutionPiece& piece, float* dweight);
};

}  // namespace comba::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace comba::cpu {
namespace HWY_NAMESPACE {

constexpr std::int64_t kWidth = kShortConvolutionWidth;

/// One vector of channels of a sequence's inputs.
template <class Args, class Access>
struct Inputs {
  const Args& args;
  const ConvolutionPiece& piece;
  std::int64_t channel;
  Access access;

  /// Of token t, which may lie before the sequence.
  HWY_INLINE FloatVector operator()(std::int64_t t) const {
    if (HWY_LIKELY(t >= piece.first))
      return access.load(args.x + (piece.row * args.tokens + t) * args.channels + channel);
    if (args.tail == nullptr) return hn::Zero(kFloats);
    const std::int64_t place = kWidth - 1 + t - piece.first;
    return access.load(args.tail + (piece.row * (kWidth - 1) + place) * args.channels + channel);
  }
};

void forward_piece(const ShortConvolutionForward& args, const ConvolutionPiece& piece) {
  for_each_vector(args.channels, [&](std::int64_t channel, auto access) {
    const Inputs<ShortConvolutionForward, decltype(access)> inputs{args, piece, channel, access};
    FloatVector weight[kWidth], x[kWidth];
    for (std::int64_t j = 0; j < kWidth; ++j) weight[j] = access.load(args.weight + j * args.channels + channel);
    for (std::int64_t j = 0; j + 1 < kWidth; ++j) x[j + 1] = inputs(piece.begin - (kWidth - 1) + j);
    for (std::int64_t t = piece.begin; t < piece.end; ++t) {
      for (std::int64_t j = 0; j + 1 < kWidth; ++j) x[j] = x[j + 1];
      x[kWidth - 1] = inputs(t);
      FloatVector z = hn::Mul(weight[0], x[0]);
      for (std::int64_t j = 1; j < kWidth; ++j) z = hn::MulAdd(weight[j], x[j], z);
      access.store(hn::Mul(z, sigmoid(z)), args.y + (piece.row * args.tokens + t) * args.channels + channel);
    }
  });
}

/// From the last token to the first: dz of the three tokens behind t stays in registers.
void backward_piece(const ShortConvolutionBackward& args, const ConvolutionPiece& piece, float* dweight) {
  for_each_vector(args.channels, [&](std::int64_t channel, auto access) {
    const Inputs<ShortConvolutionBackward, decltype(access)> inputs{args, piece, channel, access};
    FloatVector weight[kWidth], dw[kWidth], dz[kWidth];
    for (std::int64_t j = 0; j < kWidth; ++j) {
      weight[j] = access.load(args.weight + j * args.channels + channel);
      dw[j] = dz[j] = hn::Zero(kFloats);
    }
    // What tokens behind the piece give back to its last ones is computed here again, not fetched from another thread.
    for (std::int64_t t = std::min(piece.end + kWidth - 1, piece.last) - 1; t >= piece.begin; --t) {
      const std::int64_t element = (piece.row * args.tokens + t) * args.channels + channel;
      FloatVector x[kWidth];
      for (std::int64_t j = 0; j < kWidth; ++j) x[j] = inputs(t - (kWidth - 1) + j);
      FloatVector z = hn::Mul(weight[0], x[0]);
      for (std::int64_t j = 1; j < kWidth; ++j) z = hn::MulAdd(weight[j], x[j], z);
      for (std::int64_t j = 0; j + 1 < kWidth; ++j) dz[j] = dz[j + 1];
      dz[kWidth - 1] = hn::Mul(access.load(args.dy + element), silu_derivative(z, sigmoid(z)));
      if (t >= piece.end) continue;
      // dz[3 - i] belongs to token t + i, which saw x[t] through weight[3 - i].
      FloatVector dx = hn::Mul(weight[0], dz[0]);
      for (std::int64_t j = 1; j < kWidth; ++j) dx = hn::MulAdd(weight[j], dz[j], dx);
      access.store(dx, args.dx + element);
      for (std::int64_t j = 0; j < kWidth; ++j) dw[j] = hn::MulAdd(dz[kWidth - 1], x[j], dw[j]);
    }
    for (std::int64_t j = 0; j < kWidth; ++j) access.store(dw[j], dweight + j * args.channels + channel);
  });
}

const ShortConvolutionKernels kShortConvolutionKernels = {forward_piece, backward_piece};

}  // namespace HWY_NAMESPACE
}  // namespace comba::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comba {
namespace {

const cpu::ShortConvolutionKernels& kernels() {
#if HWY_TARGETS & HWY_AVX3
  if (cpu::has_avx512()) return cpu::N_AVX3::kShortConvolutionKernels;
#endif
#if HWY_TARGETS & HWY_AVX2
  if (cpu::has_avx2()) return cpu::N_AVX2::kShortConvolutionKernels;
#endif
  return cpu::HWY_NAMESPACE::kShortConvolutionKernels;
}

}  // namespace

std::vector<ConvolutionPiece> cut_into_pieces(std::int64_t batch, std::int64_t tokens,
                                              const std::vector<std::int64_t>& borders) {
  constexpr std::int64_t kLongestPiece = 128;
  std::vector<ConvolutionPiece> pieces;
  const auto cut = [&](std::int64_t row, std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first; begin < last; begin += kLongestPiece) {
      pieces.push_back({row, begin, std::min(begin + kLongestPiece, last), first, last});
    }
  };
  if (borders.empty()) {
    for (std::int64_t row = 0; row < batch; ++row) cut(row, 0, tokens);
  }
  for (std::size_t n = 0; n + 1 < borders.size(); ++n) cut(0, borders[n], borders[n + 1]);
  return pieces;
}

void short_convolution_forward(const ShortConvolutionForward& args, const std::vector<ConvolutionPiece>& pieces) {
  parallel_for(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) kernels().forward_piece(args, pieces[i]);
  });
}

void short_convolution_backward(const ShortConvolutionBackward& args, const std::vector<ConvolutionPiece>& pieces) {
  parallel_for(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      kernels().backward_piece(args, pieces[i], args.dweight + i * kShortConvolutionWidth * args.channels);
    }
  });
}

}  // namespace comba
#endif  // HWY_ONCE
