#include "gpu_clock.h"

#include <algorithm>
#include <cmath>

#include "runtime/cuda_check.h"

namespace comba::benchmarks {
namespace {

constexpr double kGraphSeconds = 0.3e-3;  ///< beside which the start of a graph is nothing
constexpr int kMostRounds = 64;

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  double seconds_since(const Event& start) const {
    float milliseconds = 0;
    check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize");
    check_cuda(cudaEventElapsedTime(&milliseconds, start.event_, event_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// All calls, `rounds` times.
class Graph {
 public:
  Graph(const std::vector<GpuCall>& calls, int rounds, cudaStream_t stream) : stream_(stream) {
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int round = 0; round < rounds; ++round) {
      for (const GpuCall& call : calls) call();
    }
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch() const { check_cuda(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t graph_ = nullptr;
  cudaStream_t stream_;
};

/// A run of the graph before the timed one keeps the GPU busy until that is queued.
double seconds_of(const Graph& graph, cudaStream_t stream) {
  Event start, end;
  graph.launch();
  start.record(stream);
  graph.launch();
  end.record(stream);
  return end.seconds_since(start);
}

}  // namespace

std::vector<double> time_on_gpu(const std::vector<GpuCall>& calls, cudaStream_t stream, int repetitions) {
  for (const GpuCall& call : calls) call();  // kernels are loaded by their first call, which is not for a capture
  check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  const double once = seconds_of(Graph(calls, 1, stream), stream);
  const int rounds = std::clamp(static_cast<int>(std::ceil(kGraphSeconds / once)), 1, kMostRounds);
  const Graph graph(calls, rounds, stream);
  std::vector<double> samples;
  for (int i = 0; i < repetitions; ++i) {
    samples.push_back(seconds_of(graph, stream) / (rounds * static_cast<double>(calls.size())));
  }
  return samples;
}

int num_buffers(double footprint) {
  int device = 0, l2 = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device), "cudaDeviceGetAttribute");
  return std::max(2, static_cast<int>(std::ceil(2.0 * l2 / footprint)));
}

double quantile(std::vector<double> samples, double share) {
  std::ranges::sort(samples);
  const double place = share * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (place - static_cast<double>(below)) * (samples[above] - samples[below]);
}

}  // namespace comba::benchmarks
