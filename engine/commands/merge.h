// A model with an adapter merged into it, weight by weight: W + scale B A. Holds the adapter and reads the model's
// files as rows are asked for; writes nothing.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "models/files/model_files.h"
#include "models/files/peft_adapter.h"

namespace lomu {

class MergedWeights {
 public:
  /// Both must outlive this. The adapter was read for this model's configuration.
  MergedWeights(const ModelFiles& files, const AdapterFile& adapter);

  /// Rows [first, first + count) of a weight into `out` [count, cols], as models/files/model_writer.h asks for them.
  /// Where an adapter sits, W + scale B A is summed in double and rounded once to float; other weights are what the
  /// files hold. Throws what ModelFiles::read_rows throws.
  void read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) const;

 private:
  const ModelFiles* files_;
  std::map<std::pair<std::int64_t, Site>, const AdapterPair*> pairs_;
};

}  // namespace lomu
