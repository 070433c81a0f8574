#include "engine/train/memory_plan.h"

#include <numeric>
#include <span>
#include <vector>

#include "comm/reduction_tree.h"
#include "engine/train/device_step.h"
#include "engine/train/job_options.h"
#include "models/decoder/decoder.h"
#include "models/decoder/weights.h"

namespace lomu {
namespace {

/// Sums of gradients over the micro-batches; a device keeps the sum of all apart from them.
std::size_t summing_bytes(const config::TrainConfig& job, std::size_t length, bool on_host) {
  const ReductionPlan tree(static_cast<std::size_t>(job.training.micro_batches), 1);
  const std::size_t floats = BufferPool::storage_floats(tree.buffers_needed(0), length) + (on_host ? 0 : length);
  return floats * sizeof(float);
}

std::size_t optimizer_bytes(const config::TrainConfig& job, const ModelConfig& model, std::span<const PairInfo> pairs,
                            DeviceSteps* steps) {
  const OptimizerOptions options = optimizer_options(job, model);
  const auto optimizer = make_optimizer(options);
  std::vector<ParameterShape> all;
  for (const PairInfo& p : pairs) all.push_back(parameter_shape(p));
  optimizer->check_all(all);
  std::size_t floats = 0;
  for (const PairInfo& p : pairs) floats += static_cast<std::size_t>(optimizer->state_size(parameter_shape(p)));
  const bool zero = job.adapter.init == config::AdapterInit::kZero;
  const std::size_t tables = steps == nullptr ? 0 : device_optimizer_bytes(*steps, options, pairs, zero);
  return floats * sizeof(float) + tables;
}

}  // namespace

std::size_t MemoryPlan::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0});
}

MemoryPlan plan_memory(const config::TrainConfig& job, const ModelConfig& model, const Ops& ops, DeviceSteps* steps,
                       Recompute level, std::int64_t longest) {
  const std::vector<PairInfo> pairs = plan_pairs(model, adapter_options(job, model));
  const std::int64_t tokens = job.training.micro_batch_tokens;
  const DecoderPlan decoder =
      Decoder::plan(model, pairs, job.adapter.dropout, ops, {tokens, tokens, longest, true, level});
  const auto length = static_cast<std::size_t>(flat_size(pairs));
  MemoryPlan plan;
  const auto set = [&](Scope scope, std::size_t bytes) { plan.bytes[static_cast<std::size_t>(scope)] = bytes; };
  set(Scope::kWeights, WeightsLayout(model, ops, true, pairs).bytes());
  set(Scope::kAdapters,
      adapter_set_bytes(pairs, ops.precision().gradient) + AdaptedModel::packed_bytes(model, pairs, ops));
  set(Scope::kOptimizer, optimizer_bytes(job, model, pairs, steps));
  set(Scope::kActivations, decoder.bytes(Scope::kActivations));
  set(Scope::kWorkspace, decoder.bytes(Scope::kWorkspace));
  set(Scope::kComm, summing_bytes(job, length, ops.storage().on_host()));
  for (const BufferPlan::Entry& entry : decoder.buffers.entries()) {
    // The last block has an adapter wherever one below it has, or passes a gradient on: it keeps what the others do.
    const bool of_last = entry.label.starts_with("block " + std::to_string(model.num_layers - 1) + ",");
    if (of_last) plan.kept_of_a_block += static_cast<std::size_t>(entry.cols + entry.spare) * size_of(entry.dtype);
  }
  return plan;
}

}  // namespace lomu
