#include "engine/train/evaluation.h"

#include <vector>

#include "comm/gradient_reducer.h"
#include "comm/reduction_tree.h"

namespace lomu {

PackedBatch view_of(const Batch& batch) {
  return {batch.ids, batch.labels, batch.positions, batch.cu_seqlens};
}

double validation_loss(TrainingData& data, Decoder& decoder, Communicator& comm) {
  const EpochPlan& micro_batches = data.validation_plan();
  const ReductionPlan plan(micro_batches.size(), comm.size());
  const Block block = plan.block(comm.rank());
  std::vector<double> losses;
  for (std::size_t i = block.begin; i < block.end; ++i) {
    losses.push_back(decoder.forward(view_of(data.validation()->batch(micro_batches[i]))));
  }
  std::uint64_t supervised = 0;
  for (const std::uint32_t count : data.validation()->supervised()) supervised += count;
  return tree_sum(gather_micro_batch_values(comm, plan, losses)) / static_cast<double>(supervised);
}

}  // namespace lomu
