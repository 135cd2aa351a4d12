// Chunked forward of one value head, or of a slice of its columns. Included once per instruction set.
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
HWY_INLINE void read_state(const Head& head, const Chunk& c, const ForwardScratch& s) {
  scale_rows(c, head.x.K, c.from_start, head.x.scale, c.q, s.scaled);
  multiply(c.rows, head.V, head.x.K, plain(s.scaled), s.state, s.o, Into::kSet);
  multiply_lower(c.rows, head.V, c.read, s.writes, s.o, Into::kAdd);
}

inline HWY_NOINLINE void forward_head(const Head& head, const DeltaRuleForward& args, ForwardScratch& s) {
  load_state(head.x.in.initial_state, head, s.state);
  for (std::int64_t first = 0; first < head.num_tokens(); first += kChunk) {
    prepare(head, first, s.chunk);
    const Chunk& c = s.chunk;
    load_rows(head.x.in.v, head, head.value, first, c.rows, head.V, s.writes, head.column);
    solve_writes(head, c, s.state, s.scaled, s.writes, nullptr);
    read_state(head, c, s);
    store_rows(args.o, head, head.value, first, c.rows, head.V, s.o, head.column);
    advance_state(head, c, s.writes, s.scaled, s.state);
  }
  store_state(s.state, head, args.final_state);
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
