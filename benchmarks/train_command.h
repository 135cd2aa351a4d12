#pragma once

namespace CLI {
class App;
}

namespace comba::benchmarks {

/// Adds `comba bench train`.
void register_train(CLI::App& program);

}  // namespace comba::benchmarks
