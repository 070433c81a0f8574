// What it costs to sum gradients over ranks along the fixed tree and to spread the factors, beside plain messages of
// the same size. Run it under mpirun for MPI, or with --threads N for ranks in one process; prints one JSON object.
//   mpirun -np 2 bench_collectives [--floats N] [--micro-batches M] [--repeat N]
// Every sum is checked: gradients are small integers, so the right sum is known exactly in any order.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string_view>
#include <vector>

#include "comm/bootstrap.h"
#include "comm/gradient_reducer.h"
#include "comm/thread_communicator.h"

namespace lomu {
namespace {

struct Settings {
  std::size_t floats = 4'884'480;  // SmolLM2-135M, rank 16 at all sites
  std::size_t micro_batches = 4;
  std::size_t repeat = 20;
  int threads = 0;
};

// Seconds of one call: the slowest rank's, best and median over the repetitions.
struct Timing {
  double best = 0.0;
  double median = 0.0;
};

Timing time(Communicator& comm, std::size_t repeat, const std::function<void()>& work) {
  std::vector<double> seconds(repeat);
  work();
  for (double& taken : seconds) {
    comm.barrier();
    const auto start = std::chrono::steady_clock::now();
    work();
    taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  comm.all_reduce_max(seconds);
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[repeat / 2]};
}

// GB/s of what one rank moves in and out: `bytes` in each direction.
std::string row(std::string_view name, const Timing& timing, double bytes) {
  return fmt::format(
      R"("{}": {{"best_ms": {:.3f}, "median_ms": {:.3f}, "bytes_each_way": {:.0f}, "gb_per_s": {:.2f}}})", name,
      timing.best * 1e3, timing.median * 1e3, bytes, bytes / timing.median * 1e-9);
}

// Pairs interleaved over owners as layers are: the shards are many segments.
std::vector<std::vector<Segment>> interleaved_shards(std::size_t floats, int ranks) {
  constexpr std::size_t kPairFloats = 23'000;  // the mean pair of the default size
  std::vector<std::vector<Segment>> shards(static_cast<std::size_t>(ranks));
  for (std::size_t at = 0, owner = 0; at < floats; at += kPairFloats, owner = (owner + 1) % shards.size()) {
    shards[owner].push_back({at, std::min(kPairFloats, floats - at)});
  }
  return shards;
}

void measure(Communicator& comm, const Settings& settings) {
  const ReductionPlan plan(settings.micro_batches, comm.size());
  const auto shards = interleaved_shards(settings.floats, comm.size());
  std::vector<float> workspace(GradientReducer::workspace_floats(plan, shards, comm.rank()));
  GradientReducer reducer(comm, plan, shards, settings.floats, workspace);
  std::vector<float> storage(
      BufferPool::storage_floats(std::max<std::size_t>(1, plan.buffers_needed(comm.rank())), settings.floats));
  BufferPool pool(storage, settings.floats);
  TreeAccumulator accumulator(plan, comm.rank(), pool);
  const Block block = plan.block(comm.rank());
  std::vector<float> sum(settings.floats);

  const auto accumulate = [&] {
    accumulator.reset();
    for (std::size_t i = block.begin; i < block.end; ++i) {
      accumulator.next_buffer();
      accumulator.push(i);
    }
  };
  const Timing local = time(comm, settings.repeat, accumulate);

  accumulator.reset();
  for (std::size_t i = block.begin; i < block.end; ++i) {
    const std::span<float> gradient = accumulator.next_buffer();
    for (std::size_t j = 0; j < gradient.size(); ++j) gradient[j] = static_cast<float>((i + 1) * (j % 7));
    accumulator.push(i);
  }
  const Timing reduce = time(comm, settings.repeat, [&] { reducer.reduce_to_owners(accumulator.partials(), sum); });
  bool right = true;
  const auto weight = static_cast<double>(settings.micro_batches * (settings.micro_batches + 1) / 2);
  for (const Segment& segment : shards[static_cast<std::size_t>(comm.rank())]) {
    for (std::size_t j = segment.begin; j < segment.begin + segment.count; ++j) {
      right = right && sum[j] == static_cast<float>(weight * static_cast<double>(j % 7));
    }
  }
  const Timing gather = time(comm, settings.repeat, [&] { reducer.gather_factors(sum); });
  for (std::size_t j = 0; j < sum.size(); ++j) {
    right = right && sum[j] == static_cast<float>(weight * static_cast<double>(j % 7));
  }
  comm.agree(right, "a sum is wrong");
  const Timing step = time(comm, settings.repeat, [&] {
    reducer.reduce_to_owners(accumulator.partials(), sum);
    reducer.gather_factors(sum);
  });

  // The floor: the same bytes as one message from each rank to the next, nothing packed and nothing added.
  const std::size_t message = settings.floats * sizeof(float) / static_cast<std::size_t>(comm.size());
  std::vector<std::byte> out(message), in(message);
  const Outgoing send{(comm.rank() + 1) % comm.size(), out.data(), message};
  const Incoming receive{(comm.rank() + comm.size() - 1) % comm.size(), in.data(), message};
  const Timing plain = time(comm, settings.repeat, [&] { comm.exchange({&send, 1}, {&receive, 1}, 0); });
  const Timing barrier = time(comm, settings.repeat, [&] {
    for (int i = 0; i < 100; ++i) comm.barrier();
  });
  const Timing agree = time(comm, settings.repeat, [&] {
    for (int i = 0; i < 100; ++i) comm.agree(true, "");
  });

  if (comm.rank() != 0) return;
  const double total = static_cast<double>(settings.floats) * sizeof(float);
  const double others = total * (comm.size() - 1) / comm.size();
  fmt::print("{{\"backend\": \"{}\", \"ranks\": {}, \"floats\": {}, \"micro_batches\": {}, \"repeat\": {},\n",
             comm.backend(), comm.size(), settings.floats, settings.micro_batches, settings.repeat);
  fmt::print(" \"barrier_us\": {:.2f}, \"agree_us\": {:.2f},\n", barrier.median * 1e4, agree.median * 1e4);
  fmt::print(" {},\n", row("plain_exchange", plain, static_cast<double>(message)));
  fmt::print(" {},\n", row("accumulate_block", local, 0.0));
  fmt::print(" {},\n", row("reduce_to_owners", reduce, others));
  fmt::print(" {},\n", row("gather_factors", gather, others));
  fmt::print(" {}}}\n", row("reduce_and_gather", step, 2.0 * others));
}

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view key = argv[i];
    const std::string_view text = i + 1 < argc ? argv[i + 1] : "";
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1'000'000'000) {
      throw UsageError(fmt::format("{} needs a number of at least 1", key));
    }
    if (key == "--floats") {
      settings.floats = value;
    } else if (key == "--micro-batches") {
      settings.micro_batches = value;
    } else if (key == "--repeat") {
      settings.repeat = value;
    } else if (key == "--threads") {
      settings.threads = static_cast<int>(value);
    } else {
      throw UsageError(fmt::format("unknown option {}", key), {}, "--floats, --micro-batches, --repeat, --threads");
    }
  }
  return settings;
}

}  // namespace
}  // namespace lomu

int main(int argc, char** argv) {
  try {
    lomu::JobRanks ranks(lomu::CommOptions::from_environment());
    try {
      const lomu::Settings settings = lomu::parse(argc, argv);
      if (settings.threads > 0) {
        lomu::run_threads(settings.threads, [&](lomu::Communicator& comm) { lomu::measure(comm, settings); });
      } else {
        lomu::measure(ranks.world(), settings);
      }
      return 0;
    } catch (const std::exception& error) {
      return lomu::conclude(ranks.world(), error);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "lomu: {}\n", error.what());
    return 1;
  }
}
