// Any bytes become a call of the operator: it must succeed or throw Error, and never touch memory it was not given.
// Every tensor has an allocation of its own, exactly as large as its view, so that the address sanitizer sees each
// step outside.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "comba/delta_rule.h"
#include "comba/error.h"

namespace {

using comba::DType;
using comba::View;

/// Decisions taken from the input; zeros when it has ended.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}

  std::uint8_t byte() { return data_ < end_ ? *data_++ : 0; }
  std::int64_t pick(std::int64_t count) { return byte() % count; }
  /// True once in `n` times.
  bool rarely(int n) { return pick(n) == n - 1; }

 private:
  const std::uint8_t *data_, *end_;
};

class Tensors {
 public:
  explicit Tensors(Choices& choices) : choices_(choices) {}

  /// A tensor of this shape, or, rarely, of another rank, size, dtype, stride, without data, or absent.
  View make(DType dtype, std::vector<std::int64_t> sizes, bool optional) {
    if (optional ? choices_.pick(2) == 0 : choices_.rarely(60)) return {};
    if (choices_.rarely(60)) dtype = static_cast<DType>(choices_.pick(5));
    if (!sizes.empty() && choices_.rarely(60)) sizes.pop_back();
    if (!sizes.empty() && choices_.rarely(60)) sizes[choices_.pick(sizes.size())] += choices_.pick(3) - 1;
    View view;
    view.dtype = dtype;
    view.rank = static_cast<int>(sizes.size());
    std::int64_t stride = 1;
    for (int i = view.rank - 1; i >= 0; --i) {
      view.sizes[i] = sizes[i];
      view.strides[i] = stride;
      stride *= sizes[i];
      if (choices_.rarely(8)) stride += choices_.pick(4);  // rows need not touch
    }
    if (view.rank == 0 || choices_.rarely(100)) return view;  // a null pointer
    std::int64_t elements = 1;
    for (int i = 0; i < view.rank; ++i) elements = sizes[i] <= 0 ? 0 : elements + (sizes[i] - 1) * view.strides[i];
    const std::int64_t bytes = std::max<std::int64_t>(elements, 0) * comba::size_of(dtype);
    memory_.push_back(std::make_unique<std::uint8_t[]>(bytes));
    // Its content follows from one byte of the input, so that short inputs reach far.
    std::minstd_rand content(1 + choices_.byte());
    for (std::int64_t i = 0; i < bytes; ++i) memory_.back()[i] = static_cast<std::uint8_t>(content() >> 8);
    view.data = memory_.back().get();
    return view;
  }

 private:
  Choices& choices_;
  std::vector<std::unique_ptr<std::uint8_t[]>> memory_;
};

/// Workspace of the size asked for, or, rarely, one byte less.
class Scratch {
 public:
  Scratch(Choices& choices, std::int64_t bytes) : bytes_(bytes - (bytes > 0 && choices.rarely(50))) {
    memory_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(64, (bytes_ + 64) / 64 * 64)));
  }
  comba::Workspace workspace() { return {memory_.get(), bytes_}; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  std::int64_t bytes_;
  std::unique_ptr<std::uint8_t[], Free> memory_;
};

void run(Choices& choices) {
  Tensors tensors(choices);
  comba::DeltaRuleOptions options;
  options.rule = static_cast<comba::Rule>(choices.pick(2));
  options.convention = static_cast<comba::Convention>(choices.pick(2));
  options.l2norm = choices.pick(4) > 0;
  if (choices.rarely(20)) options.beta_scale = static_cast<float>(choices.pick(5)) - 1;
  if (choices.rarely(20)) options.scale = static_cast<float>(choices.pick(5)) - 2;
  const DType dtype = static_cast<DType>(choices.pick(3)), gate = static_cast<DType>(choices.pick(3));
  const std::int64_t H = 1 + choices.pick(3), HV = H * (1 + choices.pick(3)), K = 1 + choices.pick(20),
                     V = 1 + choices.pick(20), T = choices.pick(3) ? choices.pick(20) : choices.pick(140);
  const bool decode = choices.pick(3) == 0, packed = !decode && choices.pick(3) == 0;
  const std::int64_t B = packed ? 1 : choices.pick(3), N = packed ? choices.pick(4) : B;

  comba::DeltaRuleInputs in;
  in.q = tensors.make(dtype, {B, T, H, K}, false);
  in.k = tensors.make(dtype, {B, T, H, K}, false);
  in.v = tensors.make(dtype, {B, T, HV, V}, false);
  in.p = tensors.make(dtype, {B, T, choices.pick(2) ? H : HV, K}, true);
  if (!in.p.given()) in.b = tensors.make(DType::f32, {H}, true);
  in.d = tensors.make(DType::f32, {H}, true);
  (choices.pick(2) ? in.beta : in.beta_logit) = tensors.make(gate, {B, T, HV}, false);
  if (choices.pick(2)) {
    in.g = tensors.make(gate, {B, T, HV}, false);
  } else {
    in.a = tensors.make(gate, {B, T, HV}, false);
    in.A_log = tensors.make(DType::f32, {HV}, false);
    in.dt_bias = tensors.make(DType::f32, {HV}, false);
  }
  std::vector<std::int64_t> cu_seqlens(N + 1, 0);
  if (packed) {
    for (std::int64_t n = 1; n < N; ++n) cu_seqlens[n] = std::min(T, cu_seqlens[n - 1] + choices.pick(40));
    cu_seqlens[N] = T;
    if (choices.rarely(20)) cu_seqlens[choices.pick(N + 1)] += choices.pick(5) - 2;
    in.cu_seqlens = View(cu_seqlens.data(), DType::i64, {N + 1});
  }
  const std::vector<std::int64_t> state = {N, HV, K, V};
  const View o = tensors.make(dtype, {B, T, HV, V}, false);
  if (decode) {
    const comba::DeltaRuleDecode args = {options, in, tensors.make(DType::f32, state, false), o};
    Scratch scratch(choices, comba::workspace_bytes(args));
    return comba::delta_rule_decode_step(args, scratch.workspace());
  }
  in.initial_state = tensors.make(DType::f32, state, true);
  const comba::DeltaRuleForward forward = {options, in, o, tensors.make(DType::f32, state, true)};
  Scratch forward_scratch(choices, comba::workspace_bytes(forward));
  comba::delta_rule_forward(forward, forward_scratch.workspace());

  const auto gradient = [&](const comba::ConstView& input) {
    const std::vector<std::int64_t> sizes(input.sizes.begin(), input.sizes.begin() + input.rank);
    return input.given() || choices.rarely(60) ? tensors.make(input.dtype, sizes, true) : View();
  };
  comba::DeltaRuleBackward backward = {.options = options, .inputs = in};
  backward.do_ = tensors.make(dtype, {B, T, HV, V}, false);
  backward.d_final_state = tensors.make(DType::f32, state, true);
  backward.dq = gradient(in.q);
  backward.dk = gradient(in.k);
  backward.dv = gradient(in.v);
  backward.dp = gradient(in.p);
  backward.db = gradient(in.b);
  backward.dd = gradient(in.d);
  backward.dbeta = gradient(in.beta);
  backward.dbeta_logit = gradient(in.beta_logit);
  backward.dg = gradient(in.g);
  backward.da = gradient(in.a);
  backward.dA_log = gradient(in.A_log);
  backward.ddt_bias = gradient(in.dt_bias);
  backward.d_initial_state = gradient(in.initial_state);
  Scratch backward_scratch(choices, comba::workspace_bytes(backward));
  comba::delta_rule_backward(backward, backward_scratch.workspace());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Choices choices(data, size);
  try {
    run(choices);
  } catch (const comba::Error&) {
    // A rule was broken, and said so.
  }
  return 0;
}
