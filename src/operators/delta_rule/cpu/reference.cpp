#include "operators/delta_rule/reference.h"

#include "operators/delta_rule/element.h"
#include "operators/delta_rule/implementation.h"

/// cpu.reference: the definition behind the operator's interface. Slow, serial, allocates; for tests and cross-checks.
namespace comba::delta_rule::cpu {
namespace {

/// Calls visit(offset in the view) for each element in row-major order.
template <class Void, class Visit>
void for_each_element(const BasicView<Void>& view, const Visit& visit) {
  std::array<std::int64_t, 4> size{1, 1, 1, 1};
  for (int i = 0; i < view.rank; ++i) size[i] = view.sizes[i];
  for (std::int64_t i = 0; i < size[0]; ++i) {
    for (std::int64_t j = 0; j < size[1]; ++j) {
      for (std::int64_t k = 0; k < size[2]; ++k) {
        for (std::int64_t l = 0; l < size[3]; ++l) visit(offset_of(view, i, j, k, l));
      }
    }
  }
}

reference::Vector read(const ConstView& view) {
  reference::Vector values;
  if (!view.given()) return values;
  values.reserve(view.numel());
  for_each_element(view, [&](std::int64_t offset) { values.push_back(load(view, offset)); });
  return values;
}

void write(const reference::Vector& values, const View& view) {
  if (!view.given()) return;
  std::size_t i = 0;
  for_each_element(view, [&](std::int64_t offset) { store(view, offset, static_cast<float>(values[i++])); });
}

reference::DeltaRule read(const Problem& x) {
  reference::DeltaRule r;
  r.gated_delta = x.options.rule == Rule::gated_delta;
  r.fla = x.options.convention == Convention::fla;
  r.l2norm = x.options.l2norm;
  r.l2norm_eps = x.options.l2norm_eps;
  r.scale = x.scale;
  r.beta_scale = x.options.beta_scale;
  r.H = x.H;
  r.HV = x.HV;
  r.P_heads = x.P_heads > 0 ? x.P_heads : x.H;
  r.K = x.K;
  r.V = x.V;
  for (std::int64_t n = 0; n < x.N; ++n) {
    const Problem::Sequence s = x.sequence(n);
    r.sequences.push_back({s.batch * x.T + s.begin, s.end - s.begin});
  }
  const DeltaRuleInputs& in = x.in;
  r.in = {read(in.q),
          read(in.k),
          read(in.v),
          read(in.p),
          read(in.b),
          read(in.d),
          read(in.beta),
          read(in.beta_logit),
          read(in.g),
          read(in.a),
          read(in.A_log),
          read(in.dt_bias),
          read(in.initial_state)};
  return r;
}

std::int64_t no_workspace(const Problem&) { return 0; }

void forward(const Problem& x, const DeltaRuleForward& args, Workspace) {
  const reference::DeltaRule::Outputs out = read(x).forward();
  write(out.o, args.o);
  write(out.final_state, args.final_state);
}

void backward(const Problem& x, const DeltaRuleBackward& args, Workspace) {
  const reference::Tensors grad = read(x).backward(read(args.do_), read(args.d_final_state));
  write(grad.q, args.dq);
  write(grad.k, args.dk);
  write(grad.v, args.dv);
  write(grad.p, args.dp);
  write(grad.b, args.db);
  write(grad.d, args.dd);
  write(grad.beta, args.dbeta);
  write(grad.beta_logit, args.dbeta_logit);
  write(grad.g, args.dg);
  write(grad.a, args.da);
  write(grad.A_log, args.dA_log);
  write(grad.dt_bias, args.ddt_bias);
  write(grad.initial_state, args.d_initial_state);
}

/// Entry n of a list of i32, or `absent` when there is none.
std::int64_t entry(const ConstView& list, std::int64_t n, std::int64_t absent) {
  return list.given() ? static_cast<const std::int32_t*>(list.data)[n * list.strides[0]] : absent;
}

/// Row n of the first dimension, as a tensor of one row.
View row(View view, std::int64_t n) {
  view.data = static_cast<char*>(view.data) + n * view.strides[0] * size_of(view.dtype);
  view.sizes[0] = 1;
  return view;
}

void decode_step(const Problem& x, const DeltaRuleDecode& args, Workspace) {
  const reference::DeltaRule all = read(x);
  for (std::int64_t n = 0; n < x.B; ++n) {
    const std::int64_t index = entry(args.state_indices, n, n), accepted = entry(args.num_accepted, n, x.T);
    if (index < 0 || index >= args.state.sizes[0]) continue;
    reference::DeltaRule r = all;
    r.sequences = {all.sequences[n]};
    r.in.initial_state = read(ConstView(row(args.state, index)));
    const reference::Vector o = r.forward().o;
    const std::size_t first = n * x.T * x.HV * x.V;
    write({o.begin() + first, o.begin() + first + x.T * x.HV * x.V}, row(args.o, n));
    if (accepted < 1 || accepted > x.T) continue;
    r.sequences[0].num_tokens = accepted;
    write(r.forward().final_state, row(args.state, index));
  }
}

}  // namespace

Implementation reference_implementation() {
  return {"cpu.reference", only_on_cpu, no_workspace, no_workspace, no_workspace, forward, backward, decode_step};
}

}  // namespace comba::delta_rule::cpu
