#pragma once

namespace CLI {
class App;
}

namespace comba::benchmarks {

/// Adds `comba bench claims`.
void register_claims(CLI::App& program);

}  // namespace comba::benchmarks
