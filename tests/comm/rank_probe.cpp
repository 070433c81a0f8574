// A small program for mpirun and launch/ranks, with one behaviour for each test of mpi_test.cpp and tcp_test.cpp:
// prints what it computed, or fails as told.
//   rank_probe digest | traffic | region | fail | hang | kill | compute | mismatch | leave | agree
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "comm/bootstrap.h"
#include "comm/gradient_reducer.h"
#include "comm/shared_region.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

std::uint64_t digest_of(std::span<const std::byte> bytes, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const std::byte b : bytes) hash = (hash ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;  // FNV-1a
  return hash;
}

void print_from_rank_0(Communicator& comm, const std::string& line) {
  if (comm.rank() == 0) fmt::print("{}\n", line);
}

// Three steps: tree-sum gradients that depend on the factors, let owners step, gather. Every rank must agree on the
// digest.
void digest(Communicator& comm) {
  constexpr std::size_t kMicroBatches = 7;
  std::vector<PairShape> pairs;
  for (std::size_t i = 0; i < 11; ++i) pairs.push_back({"pair", 64 + 32 * (i % 3), 96, 8});
  const std::size_t length = lay_out(pairs);
  const ShardPlan shards = shard_by_pair(pairs, comm.size());
  const ReductionPlan plan(kMicroBatches, comm.size());
  const Block block = plan.block(comm.rank());
  std::vector<float> storage(BufferPool::storage_floats(plan.buffers_needed(comm.rank()), length));
  BufferPool pool(storage, length);
  TreeAccumulator accumulator(plan, comm.rank(), pool);
  std::vector<float> workspace(GradientReducer::workspace_floats(plan, shards.segments, comm.rank()));
  GradientReducer reducer(comm, plan, shards.segments, length, workspace);

  std::vector<float> factors(length, 1.0f), sum(length);
  std::uint64_t hash = 0;
  for (std::size_t step = 0; step < 3; ++step) {
    comm.set_context(fmt::format("step {}", step));
    std::vector<double> losses;
    for (std::size_t i = block.begin; i < block.end; ++i) {
      const std::span<float> gradient = accumulator.next_buffer();
      for (std::size_t j = 0; j < length; ++j) {
        gradient[j] = factors[j] * static_cast<float>(oracle::noise(i * length + j, step));
      }
      losses.push_back(oracle::noise(i, step) * factors[0]);
      accumulator.push(i);
    }
    reducer.reduce_to_owners(accumulator.partials(), sum);
    for (const Segment& segment : shards.segments[static_cast<std::size_t>(comm.rank())]) {
      for (std::size_t j = segment.begin; j < segment.begin + segment.count; ++j) factors[j] -= 1e-3f * sum[j];
    }
    reducer.gather_factors(factors);
    accumulator.reset();
    const double loss = tree_sum(gather_micro_batch_values(comm, plan, losses));
    hash = digest_of(std::as_bytes(std::span(&loss, 1)), digest_of(std::as_bytes(std::span(factors)), hash));
  }
  std::vector<std::uint64_t> all(static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(&hash, 1)), std::as_writable_bytes(std::span(all)));
  for (const std::uint64_t other : all) comm.agree(other == hash, "ranks ended with different factors");
  print_from_rank_0(comm, fmt::format("digest {:016x} backend {} ranks {}", hash, comm.backend(), comm.size()));
}

// "Rss Pss" in kB of the mapping that holds `address`.
std::pair<long, long> resident_of(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  long rss = -1;
  while (std::getline(maps, line)) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      const auto at = reinterpret_cast<unsigned long>(address);
      inside = begin <= at && at < end;
    }
    long value = 0;
    if (inside && std::sscanf(line.c_str(), "Rss: %ld", &value) == 1) rss = value;
    if (inside && std::sscanf(line.c_str(), "Pss: %ld", &value) == 1) return {rss, value};
  }
  return {-1, -1};
}

// One copy: each of n ranks that has touched all of it is charged 1/n of it.
void region(Communicator& comm) {
  constexpr std::size_t kBytes = std::size_t{16} << 20;
  const SharedRegion weights = SharedRegion::create(comm, kBytes, "weights", [](std::span<std::byte> bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 13 % 241);
  });
  bool right = true;
  for (std::size_t i = 0; i < kBytes; ++i) right = right && weights.bytes()[i] == static_cast<std::byte>(i * 13 % 241);
  comm.agree(right, "the contents differ");
  const auto [rss, pss] = resident_of(weights.bytes().data());
  comm.barrier();
  print_from_rank_0(comm,
                    fmt::format("shared {} rss_kb {} pss_kb {} ranks {}", weights.shared(), rss, pss, comm.size()));
}

// Messages that arrive before they are asked for, in another order, to oneself, of no bytes, and too long for any
// buffer of the system, in both directions at once.
void traffic(Communicator& comm) {
  constexpr std::size_t kLong = std::size_t{3} << 20;
  const auto value = [](int from, int to, int tag) {
    return static_cast<std::uint32_t>(from * 10000 + to * 100 + tag);
  };
  const auto ranks = static_cast<std::size_t>(comm.size());
  bool right = true;
  for (int round = 0; round < 5; ++round) {
    std::vector<std::vector<std::uint32_t>> out, in;
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    for (int other = 0; other < comm.size(); ++other) {
      const std::size_t length = round % 2 == 0 ? kLong : 1;
      out.emplace_back(length, value(comm.rank(), other, round));
      in.emplace_back(length, 0u);
    }
    for (std::size_t other = 0; other < ranks; ++other) {
      sends.push_back({static_cast<int>(other), out[other].data(), out[other].size() * 4});
      sends.push_back({static_cast<int>(other), nullptr, 0});
      receives.push_back({static_cast<int>(other), in[other].data(), in[other].size() * 4});
      receives.push_back({static_cast<int>(other), nullptr, 0});
    }
    comm.exchange(sends, receives, round, "long messages");
    for (std::size_t other = 0; other < ranks; ++other) {
      right = right && in[other].front() == value(static_cast<int>(other), comm.rank(), round) &&
              in[other].back() == in[other].front();
    }
  }
  // Rank 0 sends tags 9, 8, 7; the others ask for 7, 8, 9, and for 8 twice.
  std::vector<std::uint32_t> word(1);
  if (comm.rank() == 0) {
    for (int other = 1; other < comm.size(); ++other) {
      for (const int tag : {9, 8, 8, 7}) {
        word[0]++;
        comm.send(std::as_bytes(std::span(word)), other, tag);
      }
    }
  } else {
    const std::uint32_t first = 4u * static_cast<std::uint32_t>(comm.rank() - 1);
    for (const auto& [tag, place] : {std::pair{7, 4u}, {8, 2u}, {8, 3u}, {9, 1u}}) {
      comm.recv(std::as_writable_bytes(std::span(word)), 0, tag);
      right = right && word[0] == first + place;
    }
  }
  comm.agree(right, "a message came changed or in the wrong order");
  print_from_rank_0(comm, fmt::format("traffic is right, backend {} ranks {} local {}", comm.backend(), comm.size(),
                                      comm.local_size()));
}

// One rank dies; the one that waits for a third, which computes, must not wait for that.
void kill_while_another_computes(Communicator& comm) {
  comm.set_context("step 8");
  std::vector<int> word(1);
  const auto bytes = std::as_writable_bytes(std::span(word));
  if (comm.rank() == 2) std::raise(SIGKILL);
  if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  comm.recv(bytes, 1, 0, "figures");
}

void disagree_on_sizes(Communicator& comm) {
  std::vector<std::byte> bytes(comm.rank() == 0 ? 8 : 12);
  comm.broadcast(bytes, 0, "configuration");
  comm.barrier();
}

void fail_last(Communicator& comm) {
  comm.set_context("step 5");
  if (comm.rank() == comm.size() - 1)
    throw NumericError("the loss is not a number", "layer 3", "lower the learning rate");
  comm.barrier("metrics");
}

void hang_last(Communicator& comm) {
  comm.set_context("step 6");
  if (comm.rank() == comm.size() - 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  std::vector<int> value(1);
  comm.broadcast(std::as_writable_bytes(std::span(value)), comm.size() - 1, "configuration");
}

void kill_last(Communicator& comm) {
  if (comm.rank() == comm.size() - 1) std::raise(SIGKILL);
  comm.barrier();
}

// Passes by JobRanks while the others wait.
struct Stray {};

void agree_on_failure(Communicator& comm) {
  comm.together([&] {
    if (comm.rank() == 0) throw UsageError("unknown key", "job.yaml:3");
  });
}

int run(Communicator& comm, const std::string& mode) {
  try {
    if (mode == "digest") digest(comm);
    if (mode == "traffic") traffic(comm);
    if (mode == "compute") kill_while_another_computes(comm);
    if (mode == "mismatch") disagree_on_sizes(comm);
    if (mode == "region") region(comm);
    if (mode == "fail") fail_last(comm);
    if (mode == "hang") hang_last(comm);
    if (mode == "kill") kill_last(comm);
    if (mode == "agree") agree_on_failure(comm);
    if (mode == "leave") {
      if (comm.rank() == comm.size() - 1) throw Stray();
      comm.barrier();
    }
    return 0;
  } catch (const std::exception& error) {
    return conclude(comm, error);
  }
}

}  // namespace
}  // namespace lomu

int main(int argc, char** argv) {
  try {
    lomu::JobRanks ranks(lomu::CommOptions::from_environment());
    return lomu::run(ranks.world(), argc > 1 ? argv[1] : "digest");
  } catch (const std::exception& error) {
    fmt::print(stderr, "lomu: {}\n", error.what());
  } catch (...) {
    fmt::print(stderr, "lomu: a stray exception\n");
  }
  return 1;
}
