#include "evaluation/loop_diagnostics.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "nn/mixers/comba.h"

namespace comba::evaluation {
namespace {

constexpr float kLeastLogDecay = -128;  // the operator's: see src/operators/delta_rule/README.md
constexpr double kLeastShare = 1e-38;   // of a state, that fp32 still tells from nothing

struct Loop {
  std::string module;
  std::shared_ptr<nn::CombaMixer> mixer;
};

std::vector<Loop> loops_of(models::CausalLM& model) {
  std::vector<Loop> loops;
  for (const auto& item : model.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
    if (auto mixer = std::dynamic_pointer_cast<nn::CombaMixer>(item.value())) loops.push_back({item.key(), mixer});
  }
  return loops;
}

// Numbers stay where the model is until all are there: reading each would make the host wait for a GPU each time.

at::Tensor mean_of(const at::Tensor& values) { return values.mean(at::kDouble); }  // []

/// Between two values by their distance.  [7]
at::Tensor quantiles_of(const at::Tensor& values) {
  const at::Tensor sorted = std::get<0>(values.flatten().to(at::kFloat).sort()).to(at::kDouble);
  std::vector<at::Tensor> quantiles;
  for (const double level : kQuantileLevels) {
    const double place = level * static_cast<double>(sorted.numel() - 1), below = std::floor(place);
    const auto value_at = [&](double index) { return sorted.select(0, static_cast<std::int64_t>(index)); };
    quantiles.push_back(at::lerp(value_at(below), value_at(std::ceil(place)), place - below));
  }
  return at::stack(quantiles);
}

at::Tensor length_of(const at::Tensor& vectors) { return vectors.square().sum(-1).sqrt(); }

at::Tensor cosine_of(const at::Tensor& x, const at::Tensor& y) {
  return (x * y).sum(-1) / (length_of(x) * length_of(y)).clamp_min(1e-20);
}

/// -tokens / log(share that is left of the state after them): where it falls to 1/e.
at::Tensor memory_of(const at::Tensor& mean_log_share, double tokens) {
  return (-tokens / mean_log_share.clamp_max(-tokens / kLongestMemory)).clamp_max(kLongestMemory);
}

/// The measurements of one layer, from what it gives to the operator.
class LoopMeasurement {
 public:
  LoopMeasurement(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options, const at::Tensor& cu_seqlens)
      : inputs_(inputs), options_(options) {
    inputs_.cu_seqlens = cu_seqlens;
    const bool is_paper = options.convention == Convention::paper;
    q_ = inputs.q.to(at::kFloat);
    k_ = inputs.k.to(at::kFloat);
    log_decay_ =
        (-inputs.A_log.exp() * at::softplus(inputs.a.to(at::kFloat) + inputs.dt_bias)).clamp_min(kLeastLogDecay);
    const at::Tensor one = at::ones({inputs.q.size(2)}, k_.options());
    raw_b_ = inputs.b.defined() ? inputs.b : one;
    // With a normalised p, b is no factor of it any more.
    b_ = is_paper || !options.l2norm ? raw_b_ : one;
  }

  /// All numbers of LoopDiagnostics in their order.  [.] f64
  at::Tensor measure() const {
    const at::Tensor decay = log_decay_.exp(), eigenvalue = key_eigenvalue(decay);
    std::vector<at::Tensor> numbers = {
        mean_of(final_state().square().sum({2, 3})).sqrt(), quantiles_of(decay), quantiles_of(eigenvalue),
        mean_of(eigenvalue.lt(0).to(at::kFloat)),           mean_of(b_),
    };
    if (inputs_.d.defined()) {
      const at::Tensor corrected = corrected_query();
      numbers.push_back(quantiles_of(length_of(corrected) / length_of(q_).clamp_min(1e-20)));
      numbers.push_back(mean_of(cosine_of(corrected, q_)));
      numbers.push_back(mean_of(inputs_.d));
    }
    numbers.push_back(key_coherence());
    numbers.push_back(quantiles_of(memory_of(log_decay_.mean(at::IntArrayRef{0, 1}), 1)));
    numbers.push_back(quantiles_of(memory()));
    for (at::Tensor& number : numbers) number = number.reshape({-1});
    return at::cat(numbers);
  }

 private:
  /// x [.., H] -> [.., HV]
  at::Tensor per_value_head(const at::Tensor& x) const {
    return x.repeat_interleave(inputs_.v.size(2) / inputs_.q.size(2), -1);
  }

  at::Tensor key_eigenvalue(const at::Tensor& decay) const {
    const at::Tensor squares = k_.square().sum(-1);  // [B, T, H]
    const at::Tensor square = options_.l2norm ? squares / (squares + options_.l2norm_eps) : squares;
    const at::Tensor beta = options_.beta_scale * at::sigmoid(inputs_.beta_logit.to(at::kFloat));
    const at::Tensor erased = beta * per_value_head(b_ * square);  // [B, T, HV]
    return options_.rule == Rule::comba ? decay - erased : decay * (1 - erased);
  }

  at::Tensor corrected_query() const {
    const bool is_paper = options_.convention == Convention::paper;
    const at::Tensor strength = is_paper ? inputs_.d : inputs_.d * raw_b_;
    return q_ - strength.unsqueeze(-1) * k_;
  }

  at::Tensor key_coherence() const {
    const std::int64_t num_tokens = k_.size(1), most = std::min(kNearKeys, num_tokens - 1);
    at::Tensor sum = at::zeros({}, k_.options().dtype(at::kDouble));
    const at::Tensor k = k_ / length_of(k_).clamp_min(1e-20).unsqueeze(-1);
    for (std::int64_t apart = 1; apart <= most; ++apart) {
      sum += mean_of((k.narrow(1, apart, num_tokens - apart) * k.narrow(1, 0, num_tokens - apart)).sum(-1).abs());
    }
    return sum / static_cast<double>(std::max<std::int64_t>(most, 1));
  }

  at::Tensor final_state() const {
    return delta_rule(inputs_, options_, /*output_final_state=*/true).final_state;  // [N, HV, K, V]
  }

  /// Each span of tokens by itself, from the state I and with nothing to write: then its last state is the product of
  /// its transitions.
  at::Tensor memory() const {
    const std::int64_t num_tokens = k_.size(1), span = std::min(kMemorySpan, num_tokens);
    const std::int64_t whole = num_tokens / span * span, num_spans = k_.size(0) * (num_tokens / span);
    const std::int64_t num_heads = inputs_.v.size(2), key_dim = k_.size(3);
    const auto cut = [&](const at::Tensor& x) {
      return x.narrow(1, 0, whole).unflatten(1, {num_tokens / span, span}).flatten(0, 1);
    };
    DeltaRuleTensors inputs = inputs_;
    inputs.q = cut(inputs_.q);
    inputs.k = cut(inputs_.k);
    inputs.v = at::zeros({num_spans, span, num_heads, key_dim}, inputs.k.options());
    inputs.beta_logit = cut(inputs_.beta_logit);
    inputs.a = cut(inputs_.a);
    inputs.d.reset();
    inputs.cu_seqlens.reset();
    inputs.initial_state =
        at::eye(key_dim, inputs_.A_log.options()).expand({num_spans, num_heads, key_dim, key_dim}).contiguous();
    const at::Tensor product = delta_rule(inputs, options_, /*output_final_state=*/true).final_state;
    const at::Tensor share =
        product.to(at::kDouble).square().sum({2, 3}) / static_cast<double>(key_dim);  // squared [N, HV]
    return memory_of(share.clamp_min(kLeastShare * kLeastShare).log().mean(0) / 2, static_cast<double>(span));
  }

  DeltaRuleTensors inputs_;
  DeltaRuleOptions options_;
  at::Tensor q_, k_;      // [B, T, H, K] f32, raw
  at::Tensor log_decay_;  // [B, T, HV] f32
  at::Tensor raw_b_, b_;  // [H] f32   of the layer; as it acts on p
};

/// Takes what measure() has put one behind the other.
class NumberReader {
 public:
  explicit NumberReader(const at::Tensor& numbers) : numbers_(numbers.cpu()) {}

  double number() { return numbers_.const_data_ptr<double>()[next_++]; }
  Quantiles quantiles() {
    Quantiles found;
    for (double& quantile : found) quantile = number();
    return found;
  }

  LoopDiagnostics loop(const std::string& module, bool corrects_queries) {
    LoopDiagnostics found{.module = module};
    found.state_norm = number();
    found.decay = quantiles();
    found.key_eigenvalue = quantiles();
    found.negative_share = number();
    found.feedback = number();
    if (corrects_queries) {
      found.query_ratio = quantiles();
      found.query_cosine = number();
      found.correction = number();
    }
    found.key_coherence = number();
    found.decay_memory = quantiles();
    found.memory = quantiles();
    return found;
  }

 private:
  at::Tensor numbers_;
  std::int64_t next_ = 0;
};

/// Shows loops to somebody as long as it lives.
class Observation {
 public:
  explicit Observation(std::vector<Loop> loops) : loops_(std::move(loops)) {}
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;
  ~Observation() {
    for (const Loop& loop : loops_) loop.mixer->observe({});
  }
  const std::vector<Loop>& loops() const { return loops_; }

 private:
  std::vector<Loop> loops_;
};

}  // namespace

bool has_control_loops(models::CausalLM& model) { return !loops_of(model).empty(); }

std::vector<LoopDiagnostics> diagnose_loops(models::CausalLM& model, const at::Tensor& input_ids,
                                            const at::Tensor& cu_seqlens, const models::PassOptions& pass) {
  const at::NoGradGuard no_grad;
  const Observation observation(loops_of(model));
  if (observation.loops().empty()) return {};
  std::vector<at::Tensor> numbers;
  for (const Loop& loop : observation.loops()) {
    loop.mixer->observe([&](const DeltaRuleTensors& inputs) {
      numbers.push_back(LoopMeasurement(inputs, loop.mixer->options().delta_rule, cu_seqlens).measure());
    });
  }
  model.loss(input_ids, input_ids, cu_seqlens, pass);
  NumberReader reader(at::cat(numbers));
  std::vector<LoopDiagnostics> found;
  for (const Loop& loop : observation.loops()) {
    found.push_back(reader.loop(loop.module, loop.mixer->options().use_output_correction));
  }
  return found;
}

}  // namespace comba::evaluation
