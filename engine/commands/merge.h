// A model with an adapter merged into it, weight by weight: W + scale B A, or the weight that was trained in full.
// Holds the adapter and reads the model's files as rows are asked for; writes nothing. It computes where it is told to,
// through the operations of that backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "kernels/staging.h"
#include "models/files/model_files.h"
#include "models/files/peft_adapter.h"

namespace lomu {

class MergedWeights {
 public:
  /// All must outlive this. The adapter was read for this model's configuration. `ops` computes in f32, and `memory` is
  /// a ledger of ops.storage().
  MergedWeights(const ModelFiles& files, const AdapterFile& adapter, const Ops& ops, Memory& memory);

  /// Rows [first, first + count) of a weight into `out` [count, cols], as models/files/model_writer.h asks for them.
  /// Where an adapter sits they are W + (scale B) A, summed over the rank in float32; other weights are what the files
  /// hold. Fastest when the rows of one weight follow each other. Throws what ModelFiles::read_rows throws, and
  /// MemoryError.
  void read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out);

 private:
  /// Makes A the weight of `product_`: a linear layer from the rank to the columns of W.
  void take_right_factor(const AdapterPair& pair, std::int64_t cols);
  /// A tensor in the backend's storage, in `buffer`, which grows to the largest.
  Tensor matrix_in(Buffer& buffer, std::int64_t rows, std::int64_t cols);

  const ModelFiles& files_;
  const Ops& ops_;
  Memory& memory_;
  std::map<std::pair<std::int64_t, Site>, const AdapterPair*> pairs_;
  std::map<WeightId, const FullWeight*> full_;  ///< these replace what the files hold
  AdaptedLinear product_;
  const AdapterPair* taken_ = nullptr;  ///< whose A product_ has
  Buffer right_, left_, rows_;
  Staging staging_;
  std::vector<std::byte> space_;
};

}  // namespace lomu
