#include "engine/config/train_config.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/error.h"

namespace lomu::config {

double AdapterConfig::scale() const {
  return alpha / (rslora ? std::sqrt(static_cast<double>(rank)) : rank);
}

std::vector<bool> AdapterConfig::layer_mask(int blocks) const {
  std::vector<bool> mask(static_cast<std::size_t>(blocks), layers.empty());
  for (const auto& [first, last] : layers) {
    if (last >= blocks) {
      throw UsageError(fmt::format("layer {} does not exist: the model has {} blocks", last, blocks), "adapter.layers",
                       fmt::format("blocks are counted from 0: the last one is {}", blocks - 1));
    }
    for (int i = first; i <= last; ++i) mask[static_cast<std::size_t>(i)] = true;
  }
  return mask;
}

}  // namespace lomu::config
