#include "comm/nccl/nccl_transport.h"

#include <cuda_runtime.h>
#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "comm/nccl/nccl_settings.h"
#include "comm/nccl/streams.h"
#include "comm/operation_watch.h"

namespace lomu {
namespace {

using std::chrono::steady_clock;

void check(ncclResult_t status, const char* call) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  throw Error(fmt::format("{} failed: {} ({})", call, ncclGetErrorString(status), ncclGetLastError(nullptr)), "NCCL",
              "NCCL_DEBUG=INFO makes NCCL say more");
}

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

int library_version() {
  int version = 0;
  check(ncclGetVersion(&version), "ncclGetVersion");
  return version;
}

/// A communicator whose calls return at once, and which another thread may abort at any time.
class NcclCommunicator {
 public:
  NcclCommunicator() = default;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() { abort(); }

  void start(const ncclUniqueId& id, int rank, int size, std::chrono::milliseconds deadline) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    {
      const std::lock_guard lock(mutex_);
      check(ncclCommInitRankConfig(&handle_, size, id, rank, &config), "ncclCommInitRankConfig");
    }
    settle("starting NCCL", steady_clock::now() + deadline);
  }

  /// Queues what `body` asks for as one operation, and returns when NCCL has taken it over.
  template <class Body>
  void group(std::string_view what, std::chrono::milliseconds deadline, Body body) {
    {
      const std::lock_guard lock(mutex_);
      if (handle_ == nullptr) throw Error(fmt::format("{}: NCCL has been stopped", what));
      check(ncclGroupStart(), "ncclGroupStart");
      std::exception_ptr failed;
      try {
        body(handle_);
      } catch (...) {
        failed = std::current_exception();
      }
      const ncclResult_t ended = ncclGroupEnd();
      if (failed) std::rethrow_exception(failed);
      check(ended, "ncclGroupEnd");
    }
    settle(what, steady_clock::now() + deadline);
  }

  /// What NCCL has to complain about.
  std::optional<std::string> trouble() {
    const std::lock_guard lock(mutex_);
    if (handle_ == nullptr) return std::nullopt;
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(handle_, &state);
    if (asked == ncclSuccess && (state == ncclSuccess || state == ncclInProgress)) return std::nullopt;
    return fmt::format("{} ({})", ncclGetErrorString(asked != ncclSuccess ? asked : state), ncclGetLastError(handle_));
  }

  void abort() noexcept {
    const std::lock_guard lock(mutex_);
    if (handle_ != nullptr) ncclCommAbort(handle_);
    handle_ = nullptr;
  }

  /// The ordinary end, which all ranks come to.
  void finish(std::chrono::milliseconds deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (handle_ == nullptr) return;
      check(ncclCommFinalize(handle_), "ncclCommFinalize");
    }
    settle("ending NCCL", steady_clock::now() + deadline);
    const std::lock_guard lock(mutex_);
    if (handle_ != nullptr) ncclCommDestroy(handle_);
    handle_ = nullptr;
  }

 private:
  // Waits until the last call has done its work on the host, which may need the other ranks the first time.
  void settle(std::string_view what, steady_clock::time_point until) {
    auto pause = std::chrono::microseconds(1);
    while (true) {
      ncclResult_t state = ncclSuccess;
      {
        const std::lock_guard lock(mutex_);
        if (handle_ == nullptr) throw Error(fmt::format("{}: NCCL has been stopped", what));
        check(ncclCommGetAsyncError(handle_, &state), "ncclCommGetAsyncError");
        if (state != ncclInProgress && state != ncclSuccess) {
          throw Error(fmt::format("{}: {} ({})", what, ncclGetErrorString(state), ncclGetLastError(handle_)), "NCCL",
                      "NCCL_DEBUG=INFO makes NCCL say more");
        }
      }
      if (state == ncclSuccess) return;
      if (steady_clock::now() >= until) throw Error(fmt::format("{}: the other ranks did not come in time", what));
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(1000));
    }
  }

  std::mutex mutex_;
  ncclComm_t handle_ = nullptr;
};

/// What ranks compare before they meet.
struct RankFacts {
  int version = 0;
  int host = 0;                   ///< its local leader
  std::array<char, 32> bus_id{};  ///< of the device
};

class NcclTransport final : public DeviceTransport {
 public:
  NcclTransport(Communicator& ranks, int device, Memory& memory, const NcclOptions& options)
      : ranks_(ranks),
        memory_(memory),
        options_(options),
        exceptions_at_start_(std::uncaught_exceptions()),
        device_(device) {
    if (options.deterministic) apply_settings(nccl_settings_deterministic());
    if (options.share_device) apply_settings(nccl_settings_loopback(ranks.rank()));
    compare();
    ncclUniqueId id{};
    ranks.together([&] {
      stream_.create();
      if (ranks.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    });
    ranks.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0, "NCCL id");
    ranks.together([&] { start(id); }, "starting NCCL");
    watch_ = std::make_unique<OperationWatch>(watch_options());
  }

  ~NcclTransport() override {
    const bool orderly = std::uncaught_exceptions() == exceptions_at_start_ && watch_ && !watch_->failed();
    try {
      if (orderly) {
        watch_->drain();
        comm_.finish(options_.deadline);
      }
    } catch (const std::exception& error) {
      ranks_.report(error.what());
    }
    comm_.abort();
  }

  [[nodiscard]] int rank() const override { return ranks_.rank(); }
  [[nodiscard]] int size() const override { return ranks_.size(); }
  [[nodiscard]] Memory& memory() override { return memory_; }

  void wait_for(cuda::Stream producer) override {
    StreamMark event;
    event.record(producer);
    event.hold(stream_.get());
  }
  void release_to(cuda::Stream consumer) override {
    StreamMark event;
    event.record(stream_.get());
    event.hold(consumer);
  }
  void check_queued() override {
    if (watch_->failed()) throw_failure();
  }
  void drain() override {
    try {
      watch_->drain();
      check_cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    } catch (const CommError&) {
      check_queued();
      throw;
    }
  }

  void copy_tiles(const cuda::CopyTile* tiles, std::size_t count, const float* from, float* to) override {
    check_queued();
    cuda::copy_tiles(tiles, count, from, to, stream_.get());
  }
  void ordered_add(const cuda::OrderedSource* sources, int count, int depth, float* out, std::size_t n) override {
    check_queued();
    cuda::ordered_add(sources, count, depth, out, n, stream_.get());
  }
  void zero(float* data, std::size_t n) override {
    check_cuda(cudaMemsetAsync(data, 0, n * sizeof(float), stream_.get()), "cudaMemsetAsync");
  }

  void exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives, std::string_view what) override {
    collective("exchange", what, [&](ncclComm_t comm) {
      for (const Outgoing& message : sends) {
        check(ncclSend(message.data, message.bytes, ncclChar, message.to, comm, stream_.get()), "ncclSend");
      }
      for (const Incoming& message : receives) {
        check(ncclRecv(message.data, message.bytes, ncclChar, message.from, comm, stream_.get()), "ncclRecv");
      }
    });
  }
  void reduce_scatter(const float* all, float* mine, std::size_t n, std::string_view what) override {
    collective("reduce_scatter", what, [&](ncclComm_t comm) {
      check(ncclReduceScatter(all, mine, n, ncclFloat, ncclSum, comm, stream_.get()), "ncclReduceScatter");
    });
  }
  void all_gather(const float* mine, float* all, std::size_t n, std::string_view what) override {
    collective("all_gather", what, [&](ncclComm_t comm) {
      check(ncclAllGather(mine, all, n, ncclFloat, comm, stream_.get()), "ncclAllGather");
    });
  }

 private:
  // Agrees that the ranks can work together, with messages that NCCL would not give.
  void compare() {
    RankFacts mine;
    ranks_.together([&] {
      check_cuda(cudaSetDevice(device_), "cudaSetDevice");
      check_cuda(cudaDeviceGetPCIBusId(mine.bus_id.data(), static_cast<int>(mine.bus_id.size()), device_),
                 "cudaDeviceGetPCIBusId");
      mine.version = library_version();
      mine.host = ranks_.local_leader();
    });
    std::vector<RankFacts> all(static_cast<std::size_t>(ranks_.size()));
    ranks_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "GPUs of the ranks");
    std::map<std::pair<int, std::array<char, 32>>, int> users;
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      const RankFacts& facts = all[static_cast<std::size_t>(rank)];
      if (facts.version != all[0].version) {
        throw AgreedError(rank,
                          fmt::format("rank {} has NCCL {} and rank 0 has {}", rank, version_text(facts.version),
                                      version_text(all[0].version)),
                          {}, "start every rank from the same build and libraries", Exit::kFailed);
      }
      const auto [user, first] = users.emplace(std::pair(facts.host, facts.bus_id), rank);
      if (first || options_.share_device) continue;
      throw AgreedError(rank,
                        fmt::format("ranks {} and {} use the same GPU, {}", user->second, rank, facts.bus_id.data()),
                        {}, "start one rank for each GPU of a machine", Exit::kUsage);
    }
  }

  // The rank with the cause says it at once: the others learn only that it did not come.
  void start(const ncclUniqueId& id) {
    try {
      comm_.start(id, rank(), size(), options_.start_deadline);
    } catch (const Error& error) {
      ranks_.report(error.what());
      throw;
    }
  }

  WatchOptions watch_options() {
    WatchOptions options;
    options.deadline = options_.deadline;
    options.warn_after = options_.warn_after;
    options.health = [this]() -> std::optional<std::string> {
      // A thread without a device of its own would wake device 0, and take memory there.
      if (cudaSetDevice(device_) != cudaSuccess) return "the device cannot be used";
      if (auto trouble = comm_.trouble()) return trouble;
      const cudaError_t state = cudaStreamQuery(stream_.get());
      if (state == cudaSuccess || state == cudaErrorNotReady) return std::nullopt;
      return fmt::format("the device failed: {}", cudaGetErrorString(state));
    };
    options.stop = [this] { comm_.abort(); };
    options.warn = [this](const std::string& text) { ranks_.report(text); };
    options.give_up = [this](const std::string& text) {
      ranks_.report(text);
      std::_Exit(static_cast<int>(Exit::kFailed));
    };
    return options;
  }

  template <class Body>
  void collective(std::string_view name, std::string_view what, Body body) {
    check_queued();
    std::string text = fmt::format("rank {} of {} in {} ({})", rank(), size(), name, what);
    if (!ranks_.context().empty()) text += " at " + ranks_.context();
    const auto begun = std::make_shared<StreamMark>();
    const auto done = std::make_shared<StreamMark>();
    begun->record(stream_.get());
    // Ranks that share a device could wait for each other's kernels for ever.
    if (options_.share_device) check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    try {
      comm_.group(text, options_.deadline, body);
    } catch (const Error& error) {
      watch_->fail(error.what());
      throw_failure();
    }
    done->record(stream_.get());
    watch_->add({std::move(text), [begun] { return begun->passed(); }, [done] { return done->passed(); }});
    if (options_.share_device) drain();
  }

  // Says what the watch saw, and asks the ranks over their other channel how far they are: the one that is late does
  // not answer, or has finished fewer collectives.
  [[noreturn]] void throw_failure() {
    try {
      watch_->check();
    } catch (const CommError& error) {
      throw CommError(fmt::format("{}; {}", error.what(), where_ranks_are()), error.where(), error.hint());
    }
    throw CommError("NCCL has been stopped");
  }

  std::string where_ranks_are() {
    constexpr auto kPatience = std::chrono::seconds(3);
    const ScopedDeadline patience(ranks_, std::min<std::chrono::milliseconds>(kPatience, ranks_.deadline()));
    try {
      const std::uint64_t mine = watch_->completed();
      std::vector<std::uint64_t> all(static_cast<std::size_t>(size()));
      ranks_.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                        "how far the ranks are");
      return fmt::format("collectives that ranks 0 to {} have finished: {}", size() - 1, fmt::join(all, ", "));
    } catch (const CommError& error) {
      return error.what();
    }
  }

  Communicator& ranks_;
  Memory& memory_;
  NcclOptions options_;
  int exceptions_at_start_;
  int device_;
  UrgentStream stream_;
  NcclCommunicator comm_;
  std::unique_ptr<OperationWatch> watch_;
};

}  // namespace

bool built_with_nccl() {
  return true;
}

std::string nccl_version() {
  return version_text(library_version());
}

void check_nccl_ids() {
  ncclUniqueId id{};
  static_assert(sizeof id == 128);
  check(ncclGetUniqueId(&id), "ncclGetUniqueId");
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Communicator& ranks, int device, Memory& memory,
                                                     const NcclOptions& options) {
  return std::make_unique<NcclTransport>(ranks, device, memory, options);
}

}  // namespace lomu
