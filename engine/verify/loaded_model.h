// A model read whole into this process's own memory, for checks. Private to engine/verify.
#pragma once

#include <filesystem>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/weights.h"
#include "models/files/model_files.h"

namespace lomu::verify {

class LoadedModel {
 public:
  LoadedModel(const std::filesystem::path& path, const Ops& ops, bool training, int threads, Memory& memory)
      : files_(ModelFiles::open(path)),
        layout_(files_.config(), ops, training),
        region_(memory.allocate(Scope::kWeights, layout_.bytes(), "weights")) {
    layout_.fill({region_.data(), region_.size()}, files_, ops, threads);
    weights_ = layout_.bind(region_.data());
  }
  [[nodiscard]] const ModelFiles& files() const { return files_; }
  [[nodiscard]] const ModelConfig& config() const { return files_.config(); }
  [[nodiscard]] const ModelWeights& weights() const { return weights_; }

 private:
  ModelFiles files_;
  WeightsLayout layout_;
  Buffer region_;
  ModelWeights weights_;
};

}  // namespace lomu::verify
