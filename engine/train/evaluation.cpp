#include "engine/train/evaluation.h"

#include <cmath>
#include <vector>

#include "comm/gradient_reducer.h"
#include "comm/reduction_tree.h"
#include "engine/train/nonfinite.h"

namespace lomu {

PackedBatch view_of(const Batch& batch) {
  return {batch.ids, batch.labels, batch.positions, batch.cu_seqlens};
}

double validation_loss(TrainingData& data, Decoder& decoder, Communicator& comm, std::string_view when) {
  const EpochPlan& micro_batches = data.validation_plan();
  const ReductionPlan plan(micro_batches.size(), comm.size());
  const Block block = plan.block(comm.rank());
  std::vector<double> losses;
  const auto batch = [&](std::size_t i) { return data.validation()->batch(micro_batches[i]); };
  for (std::size_t i = block.begin; i < block.end; ++i) losses.push_back(decoder.forward(view_of(batch(i))));
  std::uint64_t supervised = 0;
  for (const std::uint32_t count : data.validation()->supervised()) supervised += count;
  const double loss = tree_sum(gather_micro_batch_values(comm, plan, losses)) / static_cast<double>(supervised);
  if (!std::isfinite(loss)) refuse_loss("the validation loss", when, losses, block.begin, batch, decoder, comm);
  return loss;
}

}  // namespace lomu
