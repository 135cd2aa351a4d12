#include "operators/model_step/model_step.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "operators/model_step/cuda/embed.cuh"
#include "operators/model_step/cuda/epilogues.cuh"
#include "operators/model_step/cuda/inputs.cuh"
#include "operators/model_step/cuda/many_states.cuh"
#include "operators/model_step/cuda/product.cuh"
#include "operators/model_step/cuda/resident_product.cuh"
#include "operators/model_step/cuda/sample.cuh"
#include "operators/model_step/cuda/state_update.cuh"

namespace comba::model_step {
namespace {

using namespace cuda;

constexpr int kManyParts = 512;                       // of states: some for each SM of a large GPU
constexpr int kResidentStep = kWarps * kTileColumns;  // columns of W of which a block's warps take 32 each

int narrow(std::int64_t x) { return static_cast<int>(x); }

/// The kernels of one step.
class Step {
 public:
  Step(const Model& model, std::int64_t rows, CUstream_st* stream)
      : model_(model), x_(model.dims), rows_(narrow(rows)), stream_(stream) {}

  void queue() {
    embed_tokens();
    for (const Layer& layer : model_.layers) {
      project(layer);
      update_states(layer);
      project_out(layer);
      if (x_.F == 0) continue;
      multiply_gate_up(layer);
      multiply_down(layer);
    }
    multiply_head();
    draw_tokens();
  }

 private:
  template <class... Parameters, class... Arguments>
  void queue(void (*kernel)(Parameters...), const LaunchShape& shape, const Arguments&... arguments) {
    launch(kernel, shape, /*overlaps_previous=*/is_dependent_, stream_, arguments...);
    is_dependent_ = true;
  }

  /// Above 48 KB a kernel must ask for shared memory.
  template <class... Parameters>
  static void allow_shared_bytes(void (*kernel)(Parameters...), int bytes) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "cudaFuncSetAttribute");
  }

  /// Blocks of a kernel that this GPU holds at once.
  template <class... Parameters>
  static int resident_blocks(void (*kernel)(Parameters...), int shared_bytes) {
    int device = 0, num_sms = 0, blocks_of_sm = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_of_sm, kernel, kThreads,
                                                             static_cast<std::size_t>(shared_bytes)),
               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return num_sms * blocks_of_sm;
  }

  template <int kRowTiles, int kColumnTiles, int kStages, class Input, class Epilogue>
  void queue_tiles(const PackedMatrix& matrix, const Input& input, const Epilogue& epilogue) {
    const auto kernel = product<kRowTiles, kColumnTiles, kStages, Input, Epilogue>;
    constexpr int kBytes = sizeof(ProductShared<kRowTiles, kColumnTiles, kStages, Input::kMore>);
    allow_shared_bytes(kernel, kBytes);
    const Weights weights = weights_of(matrix);
    const auto blocks = [](int count, int of) { return static_cast<unsigned>((count + of - 1) / of); };
    const LaunchShape shape = {.grid = dim3(blocks(weights.tiles, kRowTiles), blocks(rows_, 8 * kColumnTiles)),
                               .block = kThreads,
                               .shared_bytes = kBytes};
    queue(kernel, shape, weights, rows_, input, epilogue);
  }

  /// As many blocks as the GPU holds at once, so that each reads its columns of x once.
  template <int kBlocks, int kColumnTiles, class Input, class Epilogue>
  void queue_resident(const PackedMatrix& matrix, const Input& input, const Epilogue& epilogue) {
    constexpr int kStages = 2;
    const auto kernel = resident_product<kBlocks, kColumnTiles, kStages, Input, Epilogue>;
    constexpr int kBytes = sizeof(ResidentShared<kBlocks, kColumnTiles, kStages>);
    allow_shared_bytes(kernel, kBytes);
    const Weights weights = weights_of(matrix);
    const int column_groups = (rows_ + 8 * kColumnTiles - 1) / (8 * kColumnTiles);
    const int row_groups = std::clamp(resident_blocks(kernel, kBytes) / column_groups, 1, weights.tiles);
    const dim3 grid(static_cast<unsigned>(row_groups), static_cast<unsigned>(column_groups));
    queue(kernel, {.grid = grid, .block = kThreads, .shared_bytes = kBytes}, weights, rows_, input, epilogue);
  }

  static Weights weights_of(const PackedMatrix& matrix) {
    return {reinterpret_cast<const uint4*>(matrix.data), narrow(padded(matrix.rows, kTileRows) / kTileRows),
            narrow(padded(matrix.columns, kTileColumns) / kTileColumns)};
  }

  /// Tiles by the number of columns: the more there are, the more of them share what a block has read. Few rows of W
  /// are many blocks only in small tiles.
  template <class Input, class Epilogue>
  void multiply(const PackedMatrix& matrix, const Input& input, const Epilogue& epilogue) {
    if (rows_ <= 8) {
      const bool is_wide = matrix.columns > 2048;
      return is_wide ? queue_tiles<1, 1, 11>(matrix, input, epilogue) : queue_tiles<1, 1, 4>(matrix, input, epilogue);
    }
    if (rows_ <= 16) return queue_tiles<1, 2, 4>(matrix, input, epilogue);
    if constexpr (Input::kSumsSquares) {
      if (keeps_columns(matrix)) {
        return rows_ <= 32 ? queue_resident<4, 4>(matrix, input, epilogue)
                           : queue_resident<4, 8>(matrix, input, epilogue);
      }
    }
    if (rows_ <= 32) return queue_tiles<1, 4, 4>(matrix, input, epilogue);
    if (rows_ <= 64) return queue_tiles<1, 8, 3>(matrix, input, epilogue);
    if (matrix.rows <= 2048) return queue_tiles<2, 4, 4>(matrix, input, epilogue);
    queue_tiles<2, 8, 2>(matrix, input, epilogue);
  }

  /// Whether blocks that keep their columns of x in registers are faster than tiles, as measured on an H200: where the
  /// columns fit, and each block has several tiles of rows to go through.
  bool keeps_columns(const PackedMatrix& matrix) const {
    const std::int64_t fewest_rows = rows_ <= 32 ? 16384 : rows_ <= 64 ? 0 : 5120;
    return matrix.columns <= 4 * kResidentStep && matrix.rows >= fewest_rows;
  }

  NormInput normed() const { return {model_.residual, stride_of(x_.D), 1 / static_cast<float>(x_.D), x_.norm_eps}; }
  ResidualEpilogue onto_residual() const { return {model_.residual, stride_of(x_.D), narrow(x_.D)}; }
  static int stride_of(std::int64_t width) { return narrow(padded(width, kTileColumns)); }

  void embed_tokens() {
    const EmbedArguments arguments = {model_.embedding,         model_.residual, narrow(x_.D),
                                      stride_of(x_.D),          model_.slots,    model_.tokens,
                                      narrow(model_.num_slots), model_.counter};
    queue(embed, {.grid = dim3(static_cast<unsigned>(rows_)), .block = 256}, arguments);
  }

  /// q, k, v behind their convolutions, gate, and the logits of step size and decay.
  void project(const Layer& layer) {
    const ConvolutionEpilogue epilogue = {
        .y = model_.projected,
        .stride = stride_of(x_.projections()),
        .rows = narrow(x_.projections()),
        .channels = narrow(x_.channels()),
        .taps = layer.taps,
        .tails = layer.tails,
        .slots = model_.slots,
        .num_slots = narrow(model_.num_slots),
    };
    multiply(layer.in, normed(), epilogue);
  }

  void update_states(const Layer& layer) {
    x_.state == DType::f32 ? update_states<float>(layer) : update_states<bf16>(layer);
  }
  template <class StateElement>
  void update_states(const Layer& layer) {
    const DeltaRuleOptions& options = x_.delta_rule;
    const StateUpdate<StateElement> arguments = {
        .state = static_cast<StateElement*>(layer.state),
        .projected = model_.projected,
        .b = layer.b,
        .d = layer.d,
        .A_log = layer.A_log,
        .dt_bias = layer.dt_bias,
        .norm = layer.head_norm,
        .slots = model_.slots,
        .mixed = model_.mixed,
        .squares = model_.squares,
        .stride = stride_of(x_.projections()),
        .mixed_stride = stride_of(x_.value_channels()),
        .num_slots = narrow(model_.num_slots),
        .H = narrow(x_.H),
        .HV = narrow(x_.HV),
        .K = narrow(x_.K),
        .V = narrow(x_.V),
        .gate = x_.gate,
        .decays_first = options.rule == Rule::gated_delta,
        .corrects_by_p = options.convention == Convention::fla,
        .normalizes = options.l2norm,
        .eps = options.l2norm_eps,
        .scale = options.scale.value_or(1 / std::sqrt(static_cast<float>(x_.K))),
        .beta_scale = options.beta_scale,
    };
    // So many parts that each SM has several.
    const int wide_parts = rows_ * narrow(x_.HV * x_.V / kWideSlice);
    if (wide_parts >= kManyParts && x_.V % kWideSlice == 0 && x_.K % 2 == 0) {
      const auto kernel = update_many_states<StateElement>;
      constexpr int kBytes = sizeof(WideShared<StateElement>);
      allow_shared_bytes(kernel, kBytes);
      const dim3 grid(static_cast<unsigned>(std::min(wide_parts, resident_blocks(kernel, kBytes))));
      return queue(kernel, {.grid = grid, .block = 256, .shared_bytes = kBytes}, arguments, rows_);
    }
    const dim3 grid(static_cast<unsigned>(x_.V / kSlice), static_cast<unsigned>(x_.HV), static_cast<unsigned>(rows_));
    queue(update_state<StateElement>, {.grid = grid, .block = 256}, arguments);
  }

  void project_out(const Layer& layer) {
    const HeadNormInput input = {
        .x = model_.mixed,
        .stride = stride_of(x_.value_channels()),
        .squares = model_.squares,
        .heads = narrow(x_.HV),
        .head_width = narrow(x_.V),
        .inverse_width = 1 / static_cast<float>(x_.V),
        .eps = x_.norm_eps,
    };
    multiply(layer.out, input, onto_residual());
  }

  void multiply_gate_up(const Layer& layer) {
    multiply(layer.gate_up, normed(), SwigluEpilogue{model_.inner, stride_of(x_.F)});
  }

  void multiply_down(const Layer& layer) {
    multiply(layer.down, PlainInput{model_.inner, stride_of(x_.F)}, onto_residual());
  }

  void multiply_head() {
    multiply(model_.head, normed(), LogitsEpilogue{model_.logits, narrow(padded(x_.vocab, kTileRows))});
  }

  void draw_tokens() {
    const SampleArguments arguments = {
        .logits = model_.logits,
        .stride = padded(x_.vocab, kTileRows),
        .vocab = narrow(model_.drawn_vocab),
        .slots = model_.slots,
        .num_slots = narrow(model_.num_slots),
        .sampling = model_.sampling,
        .recent = model_.recent,
        .max_window = model_.max_window,
        .tokens = model_.tokens,
        .counter = model_.counter,
        .drawn = model_.drawn,
        .max_rows = model_.max_rows,
    };
    constexpr int kBytes = sizeof(SampleShared);
    allow_shared_bytes(sample, kBytes);
    queue(sample, {.grid = dim3(static_cast<unsigned>(rows_)), .block = kSampleThreads, .shared_bytes = kBytes},
          arguments);
  }

  const Model& model_;
  const Dims& x_;
  int rows_;
  cudaStream_t stream_;
  bool is_dependent_ = false;  ///< whether the next kernel may begin before the last has ended
};

}  // namespace

void queue_step(const Model& model, std::int64_t rows, CUstream_st* stream) { Step(model, rows, stream).queue(); }

}  // namespace comba::model_step
