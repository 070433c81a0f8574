// A model that nobody has trained yet: the configuration of a small Llama decoder on bytes, and the random weights it
// starts from. For studies that train from nothing; random_weights.h is for measurements of speed.
#pragma once

#include <cstdint>
#include <span>

#include "models/files/model_config.h"
#include "models/files/names.h"

namespace lomu {

struct UntrainedModel {
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t intermediate = 0;
  std::int64_t vocab = 0;
  std::int64_t context = 0;   ///< longest text it will see
  bool without_base = false;  ///< ModelConfig::without_base
  std::uint64_t seed = 0;
};

/// Embedding and head are not tied. Throws UsageError for sizes that do not fit together.
ModelConfig config_of(const UntrainedModel& model);

/// Elements [first, first + out.size()) of a weight: norms 1, the others normal. A function of seed and place alone.
///  - embedding: deviation 1, the scale at which the residual stream enters the first norm;
///  - projections [out, in]: 1 / sqrt(in), so that inputs of unit entries give outputs of unit entries;
///  - head: 1 / in, so that all bytes are about equally likely at first and the first loss is log(vocab).
void untrained_weight(const ModelConfig& config, std::uint64_t seed, WeightId id, std::int64_t first,
                      std::span<float> out);

}  // namespace lomu
