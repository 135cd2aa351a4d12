#include "operators/model_step/model_step.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/message.h"
#include "operators/model_step/cuda/bulk_states.cuh"
#include "operators/model_step/cuda/embed.cuh"
#include "operators/model_step/cuda/epilogues.cuh"
#include "operators/model_step/cuda/inputs.cuh"
#include "operators/model_step/cuda/product.cuh"
#include "operators/model_step/cuda/sample.cuh"
#include "operators/model_step/cuda/state_update.cuh"
#include "operators/model_step/cuda/tile_product.cuh"

namespace comba::model_step {
namespace {

using namespace cuda;

constexpr int kManyParts = 512;  // of states: some for each SM of a large GPU

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

  static int attribute(cudaDeviceAttr which) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  }
  static int num_sms() { return attribute(cudaDevAttrMultiProcessorCount); }
  /// Whether what this GPU runs was compiled for one with a copy engine and clusters: PTX of an earlier one has
  /// neither, and runs on later ones, too.
  static bool has_copy_engine() {
    cudaFuncAttributes code;
    check_cuda(cudaFuncGetAttributes(&code, sample<1>), "cudaFuncGetAttributes");
    return code.ptxVersion >= 90;
  }
  /// Blocks of a kernel that this GPU holds at once.
  template <class... Parameters>
  static int resident_blocks(void (*kernel)(Parameters...), int shared_bytes) {
    int blocks_of_sm = 0;
    check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_of_sm, kernel, kThreads,
                                                             static_cast<std::size_t>(shared_bytes)),
               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return num_sms() * blocks_of_sm;
  }

  template <int kRowTiles, int kColumnTiles, int kStages, class Input, class Epilogue>
  void queue_tiles(const PackedMatrix& matrix, const Input& input, const Epilogue& epilogue) {
    const auto kernel = product<kRowTiles, kColumnTiles, kStages, Input, Epilogue>;
    constexpr int kBytes = sizeof(ProductShared<kRowTiles, kColumnTiles, kStages, Input::kMore>);
    allow_shared_bytes(kernel, kBytes);
    const Weights weights = weights_of(matrix);
    const LaunchShape shape = {.grid = dim3(groups_of(weights.tiles, kRowTiles), groups_of(rows_, 8 * kColumnTiles)),
                               .block = kThreads,
                               .shared_bytes = kBytes};
    queue(kernel, shape, weights, rows_, input, epilogue);
  }

  /// Tiles of the fewest rows with which the GPU holds all blocks at once, else of the most.
  template <class Epilogue>
  void queue_shared(const PackedMatrix& matrix, const Epilogue& epilogue) {
    const auto most = static_cast<unsigned>(num_sms());
    const unsigned columns = groups_of(rows_, 8 * kTileProductColumns);
    const auto fits = [&](int row_tiles) { return groups_of(weights_of(matrix).tiles, row_tiles) * columns <= most; };
    if (fits(2)) return queue_shared<2, 4>(matrix, epilogue);
    if (fits(4)) return queue_shared<4, 3>(matrix, epilogue);
    if (fits(6)) return queue_shared<6, 3>(matrix, epilogue);
    queue_shared<8, 4>(matrix, epilogue);
  }
  template <int kRowTiles, int kStages, class Epilogue>
  void queue_shared(const PackedMatrix& matrix, const Epilogue& epilogue) {
    const auto kernel = tile_product<kRowTiles, kStages, Epilogue>;
    using Shared = TileShared<kRowTiles, kStages>;
    allow_shared_bytes(kernel, sizeof(Shared));
    const Weights weights = weights_of(matrix);
    const dim3 grid(groups_of(rows_, Shared::kColumns), groups_of(weights.tiles, kRowTiles));
    queue(kernel, {.grid = grid, .block = kTileThreads, .shared_bytes = sizeof(Shared)}, weights, rows_, normed(),
          epilogue);
  }

  static unsigned groups_of(int count, int each) { return static_cast<unsigned>((count + each - 1) / each); }
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
    if constexpr (std::is_same_v<Input, NormInput>) {
      const bool are_many = rows_ > 32 || matrix.rows >= 16384;
      if (are_many && has_copy_engine() && epilogue.takes_rows_at_once()) return queue_shared(matrix, epilogue);
    }
    if (rows_ <= 32 || (rows_ <= 64 && matrix.rows <= 2048)) return queue_tiles<1, 4, 4>(matrix, input, epilogue);
    if (rows_ <= 64) return queue_tiles<1, 8, 3>(matrix, input, epilogue);
    if (matrix.rows <= 2048) return queue_tiles<2, 4, 4>(matrix, input, epilogue);
    queue_tiles<2, 8, 2>(matrix, input, epilogue);
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
    const int parts = rows_ * narrow(x_.HV * x_.V / kPart);
    if (parts >= kManyParts && x_.V % kPart == 0 && x_.K % 8 == 0 && has_copy_engine()) {
      constexpr int kStages = 3;
      const auto kernel = update_bulk_states<StateElement, kStages>;
      constexpr int kBytes = sizeof(BulkShared<StateElement, kStages>);
      allow_shared_bytes(kernel, kBytes);
      const dim3 grid(static_cast<unsigned>(std::min(parts, resident_blocks(kernel, kBytes))));
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
    // The fewer rows, the more blocks for each, as long as all are there at once: of a row of 32,000 logits one block
    // takes most of the shared memory of a multiprocessor, one of eight less than half.
    if (rows_ > 64 || !has_copy_engine()) return queue_sample<1>(arguments);
    rows_ <= 32 ? queue_sample<8>(arguments) : queue_sample<2>(arguments);
  }
  template <int kBlocks>
  void queue_sample(const SampleArguments& arguments) {
    const int per_thread = (arguments.vocab + kBlocks * kSampleThreads - 1) / (kBlocks * kSampleThreads);
    const int bytes = per_thread * kSampleThreads * narrow(sizeof(float)), base = narrow(sizeof(SampleShared));
    const bool fits = base + bytes <= attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    const int shared_bytes = fits ? base + bytes : base;
    allow_shared_bytes(sample<kBlocks>, shared_bytes);
    queue(sample<kBlocks>,
          {.grid = dim3(static_cast<unsigned>(rows_ * kBlocks)),
           .block = kSampleThreads,
           .shared_bytes = shared_bytes,
           .cluster = kBlocks},
          arguments, fits ? per_thread : 0);
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
