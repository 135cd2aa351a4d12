// Chunked forward of one value head. Included once per instruction set.
#if defined(COMBA_CPU_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_CPU_FORWARD_INL_H_
#undef COMBA_CPU_FORWARD_INL_H_
#else
#define COMBA_CPU_FORWARD_INL_H_
#endif

#include "operators/delta_rule/cpu/chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

/// Memory of one worker.
struct ForwardScratch {
  Chunk chunk;
  Matrix state;   // [K, V]
  Matrix writes;  // [C, V]
  Matrix o;       // [C, V]
  Matrix scaled;  // [C, K]

  static ForwardScratch carve(const Problem& x, Arena& arena) {
    return {Chunk::carve(x, arena), arena.matrix(x.K, x.V), arena.matrix(kChunk, x.V), arena.matrix(kChunk, x.V),
            arena.matrix(kChunk, x.K)};
  }
};

/// O = scale diag(e^G) Q S + read writes, with the state before the chunk.
HWY_INLINE void read_state(const Problem& x, const Chunk& c, const ForwardScratch& s) {
  scale_rows(c, x.K, c.from_start, x.scale, c.q, s.scaled);
  multiply(c.rows, x.V, x.K, plain(s.scaled), s.state, s.o, Into::kSet);
  multiply_lower(c.rows, x.V, c.read, s.writes, s.o, Into::kAdd);
}

HWY_NOINLINE void forward_head(const Head& head, const DeltaRuleForward& args, ForwardScratch& s) {
  const Problem& x = head.x;
  load_state(x.in.initial_state, head, s.state);
  for (std::int64_t first = 0; first < head.num_tokens(); first += kChunk) {
    prepare(head, first, s.chunk);
    const Chunk& c = s.chunk;
    load_rows(x.in.v, head, head.value, first, c.rows, x.V, s.writes);
    solve_writes(x, c, s.state, s.scaled, s.writes, nullptr);
    read_state(x, c, s);
    store_rows(args.o, head, head.value, first, c.rows, x.V, s.o);
    advance_state(x, c, s.writes, s.scaled, s.state);
  }
  store_state(s.state, head, args.final_state);
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
