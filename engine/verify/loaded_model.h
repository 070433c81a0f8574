// A model read whole into this process's own memory, for checks. Private to engine/verify.
#pragma once

#include <filesystem>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/weights.h"
#include "models/files/model_files.h"
#include "models/files/peft_adapter.h"

namespace lomu::verify {

class LoadedModel {
 public:
  /// `adapter`: a PEFT folder for which room is left beside the weights (WeightsLayout); empty: none.
  LoadedModel(const std::filesystem::path& path, const std::filesystem::path& adapter, const Ops& ops, bool training,
              int threads, Memory& memory)
      : files_(ModelFiles::open(path)),
        layout_(files_.config(), ops, training, pairs_of(adapter, files_.config())),
        region_(memory.allocate(Scope::kWeights, layout_.bytes(), "weights")) {
    layout_.fill({region_.data(), region_.size()}, files_, ops, threads, memory);
    weights_ = layout_.bind(region_.data());
  }
  [[nodiscard]] const ModelFiles& files() const { return files_; }
  [[nodiscard]] const ModelConfig& config() const { return files_.config(); }
  [[nodiscard]] const ModelWeights& weights() const { return weights_; }

 private:
  static std::vector<PairInfo> pairs_of(const std::filesystem::path& adapter, const ModelConfig& config) {
    if (adapter.empty() || !std::filesystem::exists(adapter)) return {};
    return plan_pairs(config, read_peft_adapter(adapter, config));
  }

  ModelFiles files_;
  WeightsLayout layout_;
  Buffer region_;
  ModelWeights weights_;
};

}  // namespace lomu::verify
