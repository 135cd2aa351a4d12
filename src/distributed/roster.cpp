#include "distributed/roster.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <thread>
#include <vector>

#include "base/message.h"

namespace comba::distributed {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{10};
// A process that sees another's end is at most one collective call behind it.
constexpr std::chrono::seconds kSigningTime{3};

constexpr const char* kArrived = "arrived";
constexpr const char* kTold = "told";
constexpr const char* kSigned = "signed/";

/// `patience` for the first contact: rank 0, or its machine, may come later than this process.
c10::intrusive_ptr<c10d::Store> connect(const Launch& launch, std::chrono::milliseconds patience) {
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = launch.rank == 0 && !launch.launcher_has_store;
  options.waitWorkers = false;
  options.timeout = patience;
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    return c10::make_intrusive<c10d::PrefixStore>(concat("comba/", launch.attempt), std::move(store));
  } catch (const std::exception&) {
    throw Error(ErrorCode::io, concat("[distributed] the processes must be able to meet at MASTER_ADDR:MASTER_PORT; ",
                                      "process ", launch.rank, " cannot ", options.isServer ? "listen at " : "reach ",
                                      launch.address, ':', launch.port));
  }
}

}  // namespace

Roster::Roster(const Launch& launch, const StopFlag& stop, std::chrono::milliseconds patience)
    : launch_(launch), store_(connect(launch, patience)) {
  const auto deadline = steady_clock::now() + patience;
  std::int64_t arrived = store_->add(kArrived, 1);
  while (arrived < size()) {
    require(!stop.requested(), ErrorCode::interrupted, "[distributed] stopped while ", arrived, " of ", size(),
            " processes had come");
    require(steady_clock::now() < deadline, ErrorCode::io, "[distributed] all ", size(), " processes must come to ",
            launch.address, ':', launch.port, "; got ", arrived, " of them in ",
            std::chrono::duration_cast<std::chrono::seconds>(patience).count(), " s");
    std::this_thread::sleep_for(kPoll);
    arrived = store_->add(kArrived, 0);
  }
}

Roster::~Roster() = default;

bool Roster::tells_failure() {
  try {
    const bool first = store_->add(kTold, 1) == 1;
    store_->set(concat(kSigned, rank()), std::string("failed"));
    return first;
  } catch (const std::exception&) {
    return true;  // nobody can be asked: twice is better than never
  }
}

std::optional<std::string> Roster::tells_loss(const std::string& symptom) {
  try {
    store_->set(concat(kSigned, rank()), std::string("lost"));
    const auto deadline = steady_clock::now() + kSigningTime;
    while (!missing_processes().empty() && steady_clock::now() < deadline) {
      if (store_->add(kTold, 0) > 0) return std::nullopt;
      std::this_thread::sleep_for(kPoll);
    }
    if (store_->add(kTold, 1) > 1) return std::nullopt;
    const std::string missing = missing_processes();
    if (missing.empty()) return symptom;
    return concat(
        "[distributed] lost process ", missing, " of ", size(),
        " (ranks count from 0): it ended without a word, or does not answer; was it killed, or out of memory?");
  } catch (const std::exception&) {
    return concat("[distributed] process ", rank(), " lost the others, and ", launch_.address, ':', launch_.port,
                  " where they met");
  }
}

/// "1, 3": those that have not signed.
std::string Roster::missing_processes() const {
  std::string missing;
  for (int rank = 0; rank < size(); ++rank) {
    if (store_->check({concat(kSigned, rank)})) continue;
    missing += concat(missing.empty() ? "" : ", ", rank);
  }
  return missing;
}

}  // namespace comba::distributed
