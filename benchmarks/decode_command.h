#pragma once

namespace CLI {
class App;
}

namespace comba::benchmarks {

/// Adds `comba bench decode`.
void register_decode(CLI::App& program);

}  // namespace comba::benchmarks
