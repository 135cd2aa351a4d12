// RMS normalisation on the GPU, with gates and residual streams, against the formulas in double.
#include "operators/rms_norm/cuda/rms_norm.h"

#include "operators/cuda/device_rows.h"

namespace comba::test {
namespace {

enum class Mode { plain, sigmoid, silu, branch };

struct NormCase {
  DType x_dtype, y_dtype, weight_dtype;
  Mode mode;
  Layout x, other, dense;  ///< of x and dx; of the gate, the branch and their gradients; of all else
  unsigned seed = 1;

  bool is_gated() const { return mode == Mode::sigmoid || mode == Mode::silu; }
  bool has_branch() const { return mode == Mode::branch; }
  std::string text() const {
    return std::string(name_of(x_dtype)) + " to " + name_of(y_dtype) + ", weight " + name_of(weight_dtype) + ", mode " +
           std::to_string(static_cast<int>(mode)) + ", " + std::to_string(x.outer * x.inner) + " x " +
           std::to_string(x.dim) + " of " + std::to_string(x.width) + " and " + std::to_string(other.width);
  }
};

/// One call of forward and of backward, and what both should give.
struct NormCall {
  explicit NormCall(const NormCase& c)
      : c(c),
        x(c.x_dtype, c.x, 1),
        other(c.y_dtype, c.other, 2, 2),
        weight(c.weight_dtype, Layout::dense(1, c.x.dim), 3),
        d_y(c.y_dtype, c.dense, 4),
        d_x_new(c.x_dtype, c.dense, 5),
        x_new(c.x_dtype, c.dense),
        y(c.y_dtype, c.dense),
        inverse_rms(DType::f32, Layout::dense(1, rows())),
        dx(c.x_dtype, c.x),
        d_other(c.y_dtype, c.other),
        dweight(c.weight_dtype, Layout::dense(1, c.x.dim)),
        parts(cuda::rms_norm_num_parts() * c.x.dim * 4) {}

  std::int64_t rows() const { return c.x.outer * c.x.inner; }
  GateFunction function() const { return c.mode == Mode::silu ? GateFunction::silu : GateFunction::sigmoid; }

  void run() {
    cuda::RmsNormForward forward{.rows = rows(),
                                 .dim = c.x.dim,
                                 .x_dtype = c.x_dtype,
                                 .y_dtype = c.y_dtype,
                                 .weight_dtype = c.weight_dtype,
                                 .x = x.const_rows(),
                                 .weight = weight.data(),
                                 .eps = kEps,
                                 .function = function(),
                                 .y = y.rows(),
                                 .inverse_rms = static_cast<float*>(inverse_rms.data())};
    if (c.is_gated()) forward.gate = other.const_rows();
    if (c.has_branch()) forward.branch = other.const_rows(), forward.x_new = x_new.rows();
    cuda::rms_norm_forward(forward);
    cuda::RmsNormBackward backward{.rows = rows(),
                                   .dim = c.x.dim,
                                   .x_dtype = c.x_dtype,
                                   .y_dtype = c.y_dtype,
                                   .weight_dtype = c.weight_dtype,
                                   .dy = d_y.const_rows(),
                                   .x = x.const_rows(),
                                   .weight = weight.data(),
                                   .inverse_rms = static_cast<const float*>(inverse_rms.data()),
                                   .function = function(),
                                   .dx = dx.rows(),
                                   .dweight = dweight.data(),
                                   .partial_sums = static_cast<float*>(parts.data())};
    if (c.is_gated()) backward.gate = other.const_rows(), backward.dgate = d_other.rows();
    if (c.has_branch()) {
      backward.x = x_new.const_rows();
      backward.d_x_new = d_x_new.const_rows();
      backward.dbranch = d_other.rows();
    }
    cuda::rms_norm_backward(backward);
    for (DeviceRows* result : {&x_new, &y, &inverse_rms, &dx, &d_other, &dweight}) result->fetch();
  }

  void check() const {
    const std::int64_t D = c.x.dim;
    std::vector<double> ys(x.count()), dxs(x.count()), d_others(x.count()), dweights(D), news(x.count());
    for (std::int64_t row = 0; row < rows(); ++row) {
      double squares = 0, along = 0;
      Buffer value(c.x_dtype, {D});
      for (std::int64_t i = 0; i < D; ++i) {
        value.set(i, x.at(row * D + i) + (c.has_branch() ? other.at(row * D + i) : 0));
        news[row * D + i] = value.at(i);
        squares += value.at(i) * value.at(i);
      }
      const double r = 1 / std::sqrt(squares / static_cast<double>(D) + kEps);
      const auto opening = [&](double gate) {
        if (!c.is_gated()) return 1.0;
        return c.mode == Mode::silu ? gate * sigmoid(gate) : sigmoid(gate);
      };
      for (std::int64_t i = 0; i < D; ++i) {
        const std::int64_t at = row * D + i;
        const double n = value.at(i) * r, w = weight.at(i), dy = d_y.at(at), gate = other.at(at);
        ys[at] = n * w * opening(gate);
        dweights[i] += dy * opening(gate) * n;
        along += dy * opening(gate) * w * n;
        if (!c.is_gated()) continue;
        const double s = sigmoid(gate);
        d_others[at] = dy * w * n * (c.mode == Mode::silu ? silu_derivative(gate) : s * (1 - s));
      }
      for (std::int64_t i = 0; i < D; ++i) {
        const std::int64_t at = row * D + i;
        const double a = d_y.at(at) * opening(other.at(at)) * weight.at(i);
        dxs[at] = r * (a - value.at(i) * r * along / static_cast<double>(D));
        if (!c.has_branch()) continue;
        dxs[at] += d_x_new.at(at);
        d_others[at] = dxs[at];
      }
    }
    const auto expect = [&](const DeviceRows& result, const std::vector<double>& expected, const char* what) {
      EXPECT_TRUE(close(result.values(), expected, result.sizes(), rounding_tolerance(result.dtype()), what, c.text()));
    };
    expect(y, ys, "y");
    expect(dx, dxs, "dx");
    expect(dweight, dweights, "dweight");
    if (c.mode != Mode::plain) expect(d_other, d_others, "gradient of the gate or the branch");
    if (c.has_branch()) expect(x_new, news, "x_new");
  }

  static constexpr float kEps = 1e-5f;
  NormCase c;
  DeviceRows x, other, weight, d_y, d_x_new, x_new, y, inverse_rms, dx, d_other, dweight;
  DeviceMemory parts;
};

void run_and_check(const NormCase& c) {
  SCOPED_TRACE(c.text());
  NormCall call(c);
  call.run();
  call.check();
}

struct Dtypes {
  DType x, y, weight;
};
const Dtypes kDtypes[] = {{DType::f32, DType::f32, DType::f32},    {DType::bf16, DType::bf16, DType::f32},
                          {DType::bf16, DType::bf16, DType::bf16}, {DType::f16, DType::f16, DType::f16},
                          {DType::f32, DType::bf16, DType::f32},   {DType::f32, DType::f16, DType::f32}};

TEST(CudaRmsNorm, EveryModeAndDtypeAndDim) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Mode mode : {Mode::plain, Mode::sigmoid, Mode::silu, Mode::branch}) {
      for (const std::int64_t dim : {8, 37, 64, 72, 256, 264, 1000, 1024, 2048, 3000, 8192, 8200}) {
        for (const std::int64_t rows : {1, dim > 1024 ? 5 : 37}) {
          const Layout dense = Layout::dense(rows, dim);
          run_and_check({dtypes.x, dtypes.y, dtypes.weight, mode, dense, dense, dense});
        }
      }
    }
  }
}

/// More than the blocks that fit the GPU at once.
TEST(CudaRmsNorm, ManyRows) {
  for (const auto& [mode, rows, dim] :
       {std::tuple{Mode::silu, 20001, 64}, {Mode::plain, 9001, 256}, {Mode::branch, 2501, 1024}}) {
    const Layout dense = Layout::dense(rows, dim);
    run_and_check({DType::bf16, DType::bf16, DType::f32, mode, dense, dense, dense});
  }
}

TEST(CudaRmsNorm, RowsAreColumnsOfWiderTensors) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Mode mode : {Mode::plain, Mode::sigmoid, Mode::branch}) {
      // Heads of a projection; and columns that are aligned to nothing.
      for (const auto& [inner, dim, behind] :
           {std::tuple{4, 256, 24}, {2, 64, 8}, {1, 1024, 16}, {3, 40, 5}, {1, 24, 1}}) {
        const Layout heads = Layout::columns(50, inner, dim, behind);
        Layout others = Layout::columns(50, inner, dim, behind + 8);
        run_and_check({dtypes.x, dtypes.y, dtypes.weight, mode, heads, others, Layout::dense(50 * inner, dim)});
      }
    }
  }
}

TEST(CudaRmsNorm, TheSameBitsEachTime) {
  for (const Mode mode : {Mode::sigmoid, Mode::branch}) {
    const Layout dense = Layout::dense(3000, 256);
    NormCall first({DType::bf16, DType::bf16, DType::f32, mode, dense, dense, dense});
    first.run();
    const Buffer y = first.y.snapshot(), dx = first.dx.snapshot(), dweight = first.dweight.snapshot();
    for (int repeat = 0; repeat < 20; ++repeat) {
      first.run();
      ASSERT_TRUE(first.y.same_bits(y) && first.dx.same_bits(dx) && first.dweight.same_bits(dweight));
    }
  }
}

TEST(CudaRmsNorm, NoRows) {
  const Layout none = Layout::dense(0, 64);
  NormCall call({DType::bf16, DType::bf16, DType::f32, Mode::plain, none, none, none});
  call.run();
  EXPECT_EQ(call.dweight.values(), std::vector<double>(64, 0.0));
}

}  // namespace
}  // namespace comba::test
