#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>
#include <vector>

#include "comm/nccl/nccl_transport.h"
#include "engine/commands/doctor_findings.h"
#include "engine/session/compute.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::size_t kFloats = std::size_t{1} << 20;  // 4 MB a message
// A rank whose GPU does not answer shall not keep the others for long.
constexpr std::chrono::seconds kPatience{30};

/// Whole numbers below 2^20, so that sums over a few ranks are exact in any order.
float pattern(int rank, std::size_t i) {
  return static_cast<float>((i * 7 + static_cast<std::size_t>(rank) * 131071) % (std::size_t{1} << 20));
}

std::vector<float> patterns(int rank, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = pattern(rank, i);
  return values;
}

class GpuRing {
 public:
  GpuRing(Communicator& comm, Memory& memory, DeviceTransport& transport)
      : comm_(comm), memory_(memory), transport_(transport), size_(static_cast<std::size_t>(comm.size())) {}

  /// Every rank's message goes once around; how many numbers arrived changed.
  std::size_t around() {
    const int next = (comm_.rank() + 1) % comm_.size();
    const int previous = (comm_.rank() + comm_.size() - 1) % comm_.size();
    Buffer mine = buffer(patterns(comm_.rank(), kFloats));
    Buffer incoming = buffer(std::vector<float>(kFloats));
    std::size_t wrong = 0;
    for (int hop = 1; hop <= comm_.size(); ++hop) {
      const std::array sends{Outgoing{next, mine.data(), mine.size()}};
      const std::array receives{Incoming{previous, incoming.data(), incoming.size()}};
      transport_.exchange(sends, receives, "messages around the ring of GPUs");
      std::swap(mine, incoming);
      const int from = (comm_.rank() + comm_.size() - hop % comm_.size()) % comm_.size();
      wrong += differences(mine, patterns(from, kFloats));
    }
    return wrong;
  }

  /// A sum over all ranks, shared out and gathered; how many numbers are not the sum.
  std::size_t sums() {
    const std::size_t share = kFloats / size_;
    const Buffer all = buffer(patterns(comm_.rank(), share * size_));
    const Buffer mine = buffer(std::vector<float>(share));
    transport_.reduce_scatter(all.as<float>(), mine.as<float>(), share, "a sum over the GPUs");
    transport_.all_gather(mine.as<float>(), all.as<float>(), share, "a sum to all GPUs");
    std::vector<float> expected(share * size_, 0.0F);
    for (int rank = 0; rank < comm_.size(); ++rank) {
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += pattern(rank, i);
    }
    return differences(all, expected);
  }

 private:
  Buffer buffer(const std::vector<float>& values) {
    Buffer place = memory_.allocate(Scope::kComm, values.size() * sizeof(float), "messages between GPUs");
    memory_.storage().upload(place.data(), values.data(), place.size());
    return place;
  }
  std::size_t differences(const Buffer& place, const std::vector<float>& expected) {
    transport_.drain();
    std::vector<float> got(expected.size());
    memory_.storage().download(got.data(), place.data(), got.size() * sizeof(float));
    std::size_t count = 0;
    for (std::size_t i = 0; i < got.size(); ++i) count += got[i] == expected[i] ? 0 : 1;
    return count;
  }

  Communicator& comm_;
  Memory& memory_;
  DeviceTransport& transport_;
  std::size_t size_;
};

}  // namespace

std::optional<Finding> examine_gpu_ring(Communicator& comm) {
  if (comm.size() == 1 || !built_with_nccl()) return std::nullopt;
  ComputeChoice choice;
  try {
    choice =
        choose_compute({config::DeviceName::kAuto, config::BackendName::kAuto, config::ComputeType::kF32, 1}, comm);
  } catch (const AgreedError& error) {
    return Finding{"ring of GPUs", Verdict::kWarning, error.what(), error.hint()};
  }
  if (!choice.cuda_device) return std::nullopt;
  try {
    const Backend backend = comm.together([&] { return open_backend(choice); }, "opening the GPUs");
    NcclOptions options;
    options.deadline = kPatience;
    options.start_deadline = kPatience;
    options.share_device = gpus_are_shared();
    const auto transport = make_nccl_transport(comm, *choice.cuda_device, *backend.memory, options);
    GpuRing ring(comm, *backend.memory, *transport);
    const auto start = std::chrono::steady_clock::now();
    std::array<double, 3> worst{static_cast<double>(ring.around()), static_cast<double>(ring.sums()), 0.0};
    worst[2] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    comm.all_reduce_max(worst, "what went around the ring of GPUs");
    if (worst[0] > 0 || worst[1] > 0) {
      return Finding{"ring of GPUs", Verdict::kBroken,
                     fmt::format("{:.0f} numbers arrived changed, and {:.0f} sums are wrong", worst[0], worst[1]),
                     "NCCL_DEBUG=INFO shows which way NCCL takes; try NCCL_P2P_DISABLE=1, then NCCL_NET=Socket"};
    }
    return Finding{"ring of GPUs",
                   Verdict::kOk,
                   fmt::format("{} messages of {} and a sum by NCCL {}, all exact", comm.size(),
                               human_bytes(kFloats * sizeof(float)), nccl_version()),
                   {},
                   worst[2]};
  } catch (const AgreedError& error) {
    return Finding{"ring of GPUs", Verdict::kBroken, error.what(), error.hint()};
  }
}

}  // namespace lomu
