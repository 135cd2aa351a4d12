// The short convolution on the GPU: forward, backward and step, against its formula in double.
#include "operators/short_convolution/cuda/short_convolution.h"

#include <memory>

#include "operators/cuda/device_rows.h"

namespace comba::test {
namespace {

struct ConvolutionCase {
  DType dtype = DType::f32, weight_dtype = DType::f32;
  std::int64_t B = 2, T = 70, C = 24, W = 4;
  std::int64_t behind = -1;  ///< elements behind the columns of x and dx in a wider tensor; -1: dense
  bool with_tail = false;
  std::vector<std::int64_t> borders;  ///< of packed sequences

  Layout dense() const { return Layout::dense(B * T, C); }
  Layout layout() const { return behind < 0 ? dense() : Layout::columns(B * T, 1, C, behind); }
  cuda::ShortConvolutionSizes sizes() const { return {B, T, C, W}; }
  std::string text() const {
    return std::string(name_of(dtype)) + ", weight " + name_of(weight_dtype) + ", B " + std::to_string(B) + " T " +
           std::to_string(T) + " C " + std::to_string(C) + " W " + std::to_string(W) + " behind " +
           std::to_string(behind) + (with_tail ? ", tail" : "") + ", borders " + std::to_string(borders.size());
  }
  /// First token of the sequence of token t.
  std::int64_t first_of(std::int64_t t) const {
    std::int64_t first = 0;
    for (const std::int64_t border : borders) {
      if (border <= t) first = border;
    }
    return first;
  }
};

struct ConvolutionCall {
  explicit ConvolutionCall(const ConvolutionCase& c, bool borders_are_i64 = true)
      : c(c),
        x(c.dtype, c.layout(), 1),
        weight(c.weight_dtype, Layout::dense(c.C, c.W), 2),
        tail(c.dtype, Layout::dense(c.B * (c.W - 1), c.C), 3),
        dy(c.dtype, c.dense(), 4),
        y(c.dtype, c.layout()),
        dx(c.dtype, c.layout()),
        dweight(c.weight_dtype, Layout::dense(c.C, c.W)),
        parts(cuda::short_convolution_num_parts(c.sizes()) * c.C * c.W * 4),
        borders_are_i64(borders_are_i64) {
    if (c.borders.empty()) return;
    const std::vector<std::int32_t> narrow(c.borders.begin(), c.borders.end());
    const void* from = borders_are_i64 ? static_cast<const void*>(c.borders.data()) : narrow.data();
    const std::size_t bytes = c.borders.size() * (borders_are_i64 ? 8 : 4);
    borders = std::make_unique<DeviceMemory>(bytes);
    check_cuda(cudaMemcpy(borders->data(), from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  }

  cuda::Tokens tokens(const DeviceRows& of) const {
    const std::int64_t width = of.rows().outer_stride;
    return {of.data(), c.T * width, width};
  }
  cuda::ConstTokens const_tokens(const DeviceRows& of) const {
    const std::int64_t width = of.rows().outer_stride;
    return {of.data(), c.T * width, width};
  }

  void run() {
    cuda::ShortConvolutionForward forward{.sizes = c.sizes(),
                                          .dtype = c.dtype,
                                          .weight_dtype = c.weight_dtype,
                                          .x = const_tokens(x),
                                          .weight = weight.data(),
                                          .tail = c.with_tail && c.W > 1 ? tail.data() : nullptr,
                                          .y = tokens(y)};
    if (borders) {
      forward.cu_seqlens = borders->data();
      forward.cu_seqlens_are_i64 = borders_are_i64;
      forward.num_sequences = static_cast<std::int64_t>(c.borders.size()) - 1;
    }
    cuda::short_convolution_forward(forward);
    cuda::short_convolution_backward({.forward = forward,
                                      .dy = const_tokens(dy),
                                      .dx = tokens(dx),
                                      .dweight = dweight.data(),
                                      .partial_sums = static_cast<float*>(parts.data())});
    for (DeviceRows* result : {&y, &dx, &dweight}) result->fetch();
  }

  /// Input of token t as token `of` sees it.
  double input(std::int64_t row, std::int64_t t, std::int64_t of, std::int64_t channel) const {
    if (t >= c.first_of(of)) return x.at((row * c.T + t) * c.C + channel);
    return c.with_tail ? tail.at((row * (c.W - 1) + c.W - 1 + t) * c.C + channel) : 0;
  }

  void check() const {
    std::vector<double> ys(x.count()), dxs(x.count()), dweights(c.C * c.W);
    for (std::int64_t row = 0; row < c.B; ++row) {
      for (std::int64_t t = 0; t < c.T; ++t) {
        for (std::int64_t channel = 0; channel < c.C; ++channel) {
          double z = 0;
          for (std::int64_t j = 0; j < c.W; ++j) {
            z += weight.at(channel * c.W + j) * input(row, t - (c.W - 1) + j, t, channel);
          }
          const std::int64_t at = (row * c.T + t) * c.C + channel;
          ys[at] = z * sigmoid(z);
          const double dz = dy.at(at) * silu_derivative(z);
          for (std::int64_t j = 0; j < c.W; ++j) {
            const std::int64_t from = t - (c.W - 1) + j;
            dweights[channel * c.W + j] += dz * input(row, from, t, channel);
            if (from >= c.first_of(t)) dxs[(row * c.T + from) * c.C + channel] += dz * weight.at(channel * c.W + j);
          }
        }
      }
    }
    const auto expect = [&](const DeviceRows& result, const std::vector<double>& expected, const char* what) {
      EXPECT_TRUE(close(result.values(), expected, result.sizes(), rounding_tolerance(result.dtype()), what, c.text()));
    };
    expect(y, ys, "y");
    expect(dx, dxs, "dx");
    expect(dweight, dweights, "dweight");
  }

  ConvolutionCase c;
  DeviceRows x, weight, tail, dy, y, dx, dweight;
  DeviceMemory parts;
  std::unique_ptr<DeviceMemory> borders;
  bool borders_are_i64;
};

void run_and_check(const ConvolutionCase& c, bool borders_are_i64 = true) {
  SCOPED_TRACE(c.text());
  ConvolutionCall call(c, borders_are_i64);
  call.run();
  call.check();
}

const std::pair<DType, DType> kDtypes[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}, {DType::f16, DType::f16}};

TEST(CudaShortConvolution, EveryDtypeAndWidthAndLength) {
  for (const auto& [dtype, weight_dtype] : kDtypes) {
    for (const std::int64_t W : {1, 2, 3, 4}) {
      for (const std::int64_t T : {1, 3, 63, 64, 65, 67, 200}) {
        for (const bool with_tail : {false, true}) {
          run_and_check(
              {.dtype = dtype, .weight_dtype = weight_dtype, .T = T, .W = W, .with_tail = with_tail, .borders = {}});
        }
      }
    }
  }
}

TEST(CudaShortConvolution, ColumnsOfAProjection) {
  for (const auto& [dtype, weight_dtype] : kDtypes) {
    for (const std::int64_t C : {1, 7, 8, 136, 1032}) {
      for (const std::int64_t behind : {-1, 3, 16}) {
        run_and_check(
            {.dtype = dtype, .weight_dtype = weight_dtype, .T = 130, .C = C, .behind = behind, .borders = {}});
      }
    }
  }
}

TEST(CudaShortConvolution, PackedSequences) {
  for (const auto& [dtype, weight_dtype] : kDtypes) {
    for (const std::vector<std::int64_t>& borders : {std::vector<std::int64_t>{0, 300},
                                                     {0, 1, 3, 3, 140, 300},
                                                     {0, 0, 64, 65, 66, 128, 300, 300},
                                                     {0, 63, 127, 191, 300}}) {
      for (const std::int64_t W : {2, 4}) {
        run_and_check({.dtype = dtype, .weight_dtype = weight_dtype, .B = 1, .T = 300, .W = W, .borders = borders});
        run_and_check(
            {.dtype = dtype, .weight_dtype = weight_dtype, .B = 1, .T = 300, .C = 5, .W = W, .borders = borders},
            /*borders_are_i64=*/false);
      }
    }
  }
}

/// No access outside the tensors, as the guard zones and compute-sanitizer see; the call comes back.
TEST(CudaShortConvolution, BordersThatAreNone) {
  for (const std::vector<std::int64_t>& borders :
       {std::vector<std::int64_t>{0, 200, 100, 300}, {300, 200, 0}, {-100, 5, 1000}, {-50, -40}, {400, 500}}) {
    ConvolutionCall call({.dtype = DType::bf16, .B = 1, .T = 300, .behind = 16, .borders = borders});
    call.run();
  }
}

TEST(CudaShortConvolution, TheSameBitsEachTime) {
  ConvolutionCall first({.dtype = DType::bf16, .B = 4, .T = 1000, .C = 520, .behind = 16, .borders = {}});
  first.run();
  const Buffer y = first.y.snapshot(), dx = first.dx.snapshot(), dweight = first.dweight.snapshot();
  for (int repeat = 0; repeat < 20; ++repeat) {
    first.run();
    ASSERT_TRUE(first.y.same_bits(y) && first.dx.same_bits(dx) && first.dweight.same_bits(dweight));
  }
}

/// Token by token, or a few at once, a stream gives the bits that it gives as a whole.
TEST(CudaShortConvolution, StepsCarryAStreamOn) {
  for (const auto& [dtype, weight_dtype] : kDtypes) {
    for (const std::int64_t C : {24, 7}) {
      for (const std::int64_t W : {1, 2, 3, 4}) {
        constexpr std::int64_t kTokens = 12;
        ConvolutionCall whole({.dtype = dtype,
                               .weight_dtype = weight_dtype,
                               .B = 3,
                               .T = kTokens,
                               .C = C,
                               .W = W,
                               .behind = 8,
                               .with_tail = true,
                               .borders = {}});
        whole.run();
        for (const std::int64_t tokens : {1, 3, 4}) {
          SCOPED_TRACE(whole.c.text() + ", " + std::to_string(tokens) + " at once");
          DeviceRows tail(dtype, Layout::dense(3 * (W - 1), C), 3), y(dtype, whole.c.layout());
          for (std::int64_t t = 0; t < kTokens; t += tokens) {
            cuda::ShortConvolutionStep step{.sizes = {3, tokens, C, W},
                                            .dtype = dtype,
                                            .weight_dtype = weight_dtype,
                                            .x = whole.const_tokens(whole.x),
                                            .weight = whole.weight.data(),
                                            .tail = tail.data(),
                                            .y = whole.tokens(y)};
            const std::int64_t skipped = t * step.x.token_stride * size_of(dtype);
            step.x.data = static_cast<const char*>(step.x.data) + skipped;
            step.y.data = static_cast<char*>(step.y.data) + skipped;
            cuda::short_convolution_step(step);
          }
          y.fetch();
          EXPECT_TRUE(y.same_bits(whole.y));
          tail.fetch();
          std::vector<double> last;
          for (std::int64_t row = 0; row < 3; ++row) {
            for (std::int64_t i = 0; i < (W - 1) * C; ++i)
              last.push_back(whole.x.at((row * kTokens + kTokens - W + 1) * C + i));
          }
          EXPECT_EQ(tail.values(), last);
        }
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
