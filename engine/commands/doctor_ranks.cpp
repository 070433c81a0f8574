#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <nlohmann/json.hpp>

#include "engine/commands/doctor_findings.h"
#include "engine/commands/doctor_machine.h"
#include "engine/session/cores.h"
#include "kernels/cuda/device_facts.h"
#include "kernels/philox.h"
#include "models/files/hashing.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

/// Of the program file itself: equal commits built by different compilers or for different processors differ.
std::string build_hash() {
  FastHash hash;
  hash.add(MappedFile("/proc/self/exe").bytes());
  return hash.hex();
}

json place_of_this_rank(const Communicator& comm) {
  const cuda::DeviceFacts facts = cuda::device_facts();
  const auto local = static_cast<std::size_t>(comm.local_rank());
  std::string gpu = "none";
  if (local < facts.gpus.size()) gpu = fmt::format("{} ({})", local, facts.gpus[local].bus);
  const std::vector<int> cores = allowed_cores();
  return {{"host", host_name()},  {"local", comm.local_rank()},  {"local_size", comm.local_size()},
          {"gpu", gpu},           {"cores", ranges_text(cores)}, {"count", cores.size()},
          {"build", build_hash()}};
}

/// Every rank's object, in rank order.
std::vector<json> gather(Communicator& comm, const json& mine) {
  const std::string text = mine.dump(-1, ' ', false, json::error_handler_t::replace);
  std::vector<std::size_t> sizes(static_cast<std::size_t>(comm.size()));
  const std::size_t size = text.size();
  comm.all_gather(std::as_bytes(std::span(&size, 1)), std::as_writable_bytes(std::span(sizes)), "sizes of places");
  std::size_t total = 0;
  for (const std::size_t one : sizes) total += one;
  std::string all(total, '\0');
  comm.all_gatherv(std::as_bytes(std::span(text)), std::as_writable_bytes(std::span(all)), sizes,
                   "places of the ranks");
  std::vector<json> objects;
  std::size_t at = 0;
  for (const std::size_t one : sizes) {
    objects.push_back(json::parse(std::string_view(all).substr(at, one)));
    at += one;
  }
  return objects;
}

Finding builds(const std::vector<json>& ranks) {
  const std::string first = ranks.front().at("build");
  std::vector<std::string> others;
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    const std::string build = ranks[rank].at("build");
    if (build != first) others.push_back(fmt::format("{} ({})", rank, build));
  }
  if (others.empty())
    return {"program", Verdict::kOk, fmt::format("the same on all {} ranks ({})", ranks.size(), first)};
  return {"program", Verdict::kBroken,
          fmt::format("rank 0 runs {}, and another build runs as rank{} {}", first, others.size() == 1 ? "" : "s",
                      fmt::join(others, ", ")),
          "start the same file on every machine"};
}

constexpr std::size_t kMessageWords = std::size_t{1} << 17;  // 1 MB: beyond what MPI sends without asking

std::uint64_t pattern(int rank, std::size_t word) {
  return mix64((static_cast<std::uint64_t>(rank) << 32) + word);
}

/// Every rank's message goes once around: each rank adds up what passes by, and in the end all hold the sum of all
/// patterns and their own message again.
Finding ring(Communicator& comm) {
  const int size = comm.size();
  const int next = (comm.rank() + 1) % size;
  const int previous = (comm.rank() + size - 1) % size;
  std::vector<std::uint64_t> mine(kMessageWords);
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = pattern(comm.rank(), i);
  std::vector<std::uint64_t> incoming(kMessageWords);
  std::vector<std::uint64_t> sums(kMessageWords, 0);
  const std::size_t bytes = kMessageWords * sizeof(std::uint64_t);

  comm.barrier("before the ring");
  const auto start = Clock::now();
  for (int hop = 0; hop < size; ++hop) {
    const std::array sends{Outgoing{next, mine.data(), bytes}};
    const std::array receives{Incoming{previous, incoming.data(), bytes}};
    comm.exchange(sends, receives, 0, "messages around the ring");
    std::swap(mine, incoming);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += mine[i];
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();

  double wrong = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    std::uint64_t want = 0;
    for (int rank = 0; rank < size; ++rank) want += pattern(rank, i);
    if (sums[i] != want || mine[i] != pattern(comm.rank(), i)) ++wrong;
  }
  std::array<double, 2> worst{wrong, seconds};
  comm.all_reduce_max(worst, "what went around the ring");
  if (worst[0] > 0) {
    return {"ring", Verdict::kBroken,
            fmt::format("{:.0f} of {} words arrived changed on a rank", worst[0], kMessageWords),
            "the network or its library is at fault: try mpirun --mca btl tcp,self"};
  }
  const double rate = static_cast<double>(bytes) * size / worst[1];
  return {"ring",
          Verdict::kOk,
          fmt::format("{} messages of {} by {}, sums exact, {} ({}/s each way)", size, human_bytes(bytes),
                      comm.backend(), human_duration(worst[1]), human_bytes(static_cast<std::uint64_t>(rate))),
          {},
          worst[1]};
}

}  // namespace

Section examine_ranks(Communicator& comm) {
  Section section{"ranks", {}};
  if (comm.size() == 1) return section;
  const std::vector<json> ranks =
      gather(comm, comm.together([&] { return place_of_this_rank(comm); }, "looking at this rank's place"));
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const json& place = ranks[rank];
    section.findings.push_back({fmt::format("rank {}", rank),
                                Verdict::kOk,
                                fmt::format("{}, {} of {} there, cores {}, GPU {}", place.at("host").get<std::string>(),
                                            place.at("local").get<int>(), place.at("local_size").get<int>(),
                                            place.at("cores").get<std::string>(), place.at("gpu").get<std::string>()),
                                {},
                                place.at("count").get<double>()});
  }
  section.findings.push_back(builds(ranks));
  section.findings.push_back(ring(comm));
  if (const auto gpus = examine_gpu_ring(comm)) section.findings.push_back(*gpus);
  return section;
}

}  // namespace lomu
