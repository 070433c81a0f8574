// A rank of a job on GPUs, for nccl_test.cpp: reduces and gathers by NCCL and checks every bit, or fails as told. Where
// there are fewer GPUs than ranks, all use the first one by the loopback recipe.
//   nccl_probe devices | tree | library | hang | slow | kill | same
#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "comm/bootstrap.h"
#include "comm/bucket_reducer.h"
#include "comm/nccl/nccl_settings.h"
#include "comm/nccl/nccl_transport.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

constexpr std::size_t kMicroBatches = 7;

std::vector<float> downloaded(Memory& memory, const Buffer& buffer) {
  std::vector<float> values(buffer.size() / sizeof(float));
  memory.storage().download(values.data(), buffer.data(), buffer.size());
  return values;
}

Buffer uploaded(Memory& memory, const std::vector<float>& values) {
  Buffer buffer = memory.allocate(Scope::kComm, values.size() * sizeof(float), "test");
  memory.storage().upload(buffer.data(), values.data(), buffer.size());
  return buffer;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b, Segment where) {
  for (std::size_t i = where.begin; i < where.begin + where.count; ++i) {
    if (std::bit_cast<unsigned>(a[i]) != std::bit_cast<unsigned>(b[i])) return false;
  }
  return true;
}

void misbehave(const std::string& mode, const Communicator& comm, std::size_t bucket) {
  if (bucket != 1 || comm.rank() != comm.size() - 1) return;
  if (mode == "hang") std::this_thread::sleep_for(std::chrono::seconds(60));
  if (mode == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  if (mode == "kill") std::raise(SIGKILL);
}

void run(Communicator& comm, const std::string& mode) {
  const bool share = static_cast<int>(cuda::device_buses().size()) < comm.size();
  const int device = share ? 0 : comm.local_rank();
  NcclOptions options;
  options.share_device = share && mode != "same";
  if (options.share_device) apply_settings(nccl_settings_loopback(comm.rank()));
  if (mode == "hang") options.deadline = std::chrono::seconds(2);
  if (mode == "slow") options.warn_after = std::chrono::milliseconds(500);
  if (mode == "kill") options.deadline = std::chrono::seconds(5);
  const AdditionOrder order = mode == "library" ? AdditionOrder::kLibrary : AdditionOrder::kTree;
  options.deterministic = order == AdditionOrder::kTree;

  const std::unique_ptr<cuda::Device> gpu = cuda::make_cuda_device(device);
  Memory memory(gpu->storage());
  std::vector<PairShape> pairs;
  for (std::size_t i = 0; i < 40; ++i) pairs.push_back({"pair", 64 + 32 * (i % 3), 97, 8});
  lay_out(pairs);
  const BucketPlan buckets = plan_buckets(pairs, comm.size(), {1, 3});
  const ReductionPlan plan(kMicroBatches, comm.size());
  auto gradients = oracle::gradients(kMicroBatches, buckets.length, 3);
  if (order == AdditionOrder::kLibrary) {
    // Whole numbers: any order of additions gives the same sum.
    for (auto& g : gradients) {
      for (float& x : g) x = std::round(x) + 0.0f;
    }
  }
  const std::vector<float> want = oracle::node_sum(gradients, 0, 3);

  const std::unique_ptr<DeviceTransport> transport = make_nccl_transport(comm, device, memory, options);
  BucketReducer reducer(*transport, buckets, plan, order);
  std::vector<Buffer> sums;
  std::vector<float> own;
  for (const TreeNode& node : plan.partials(comm.rank())) {
    auto sum = oracle::node_sum(gradients, node.start, node.level);
    if (order == AdditionOrder::kTree) {
      sums.push_back(uploaded(memory, sum));
    } else {
      own = own.empty() ? sum : oracle::add(own, sum);
    }
  }
  if (!own.empty()) sums.push_back(uploaded(memory, own));
  std::vector<const float*> partials;
  for (const Buffer& sum : sums) partials.push_back(sum.as<float>());

  bool right = true;
  const Buffer flat = uploaded(memory, std::vector<float>(buckets.length, -1.0f));
  for (int step = 0; step < 3; ++step) {
    comm.set_context(fmt::format("step {}", step));
    transport->wait_for(gpu->stream());
    for (std::size_t b = 0; b < buckets.buckets.size(); ++b) {
      if (step == 1) misbehave(mode, comm, b);
      reducer.reduce(b, partials, flat.as<float>());
      if (share) transport->drain();
    }
    transport->drain();
    const std::vector<float> sum = downloaded(memory, flat);
    for (const Segment& s : buckets.shards.segments[static_cast<std::size_t>(comm.rank())]) {
      right = right && same_bits(sum, want, s);
    }
    for (std::size_t b = 0; b < buckets.buckets.size(); ++b) {
      reducer.gather(b, flat.as<float>());
      if (share) transport->drain();
    }
    transport->release_to(gpu->stream());
    transport->drain();
    right = right && same_bits(downloaded(memory, flat), want, {0, buckets.length});
  }
  comm.agree(right, "a sum differs");
  if (comm.rank() == 0) {
    fmt::print("every bit is right, {} ranks on {} GPU{}, NCCL {}\n", comm.size(), share ? 1 : comm.size(),
               share || comm.size() == 1 ? "" : "s", nccl_version());
  }
}

}  // namespace
}  // namespace lomu

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "tree";
  if (mode == "devices") {
    fmt::print("{}\n", lomu::cuda::device_buses().size());
    return 0;
  }
  try {
    lomu::JobRanks ranks(lomu::CommOptions::from_environment());
    try {
      lomu::run(ranks.world(), mode);
      return 0;
    } catch (const std::exception& error) {
      return lomu::conclude(ranks.world(), error);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "lomu: {}\n", error.what());
  }
  return 1;
}
