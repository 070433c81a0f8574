// Text generation for several sequences at once: prompts in packed chunks, then one token a sequence and call, with
// keys and values kept in a cache. It returns logits; choosing a token is sampler.h, text is the tokenizer's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapted_model.h"
#include "models/decoder/buffers.h"

namespace lomu {

struct GenerationCapacity {
  std::int64_t sequences = 1;
  std::int64_t tokens = 2048;       ///< of each sequence, prompt and continuation together
  std::int64_t chunk_tokens = 256;  ///< most tokens run through the model at once; at least `sequences`
};

/// New tokens of one sequence: its whole prompt, or the one token that was chosen last.
struct SequenceInput {
  std::int64_t sequence = 0;  ///< 0 ... sequences - 1
  std::span<const std::int32_t> ids;
};

class GenerationSession {
 public:
  /// `model` and `ops` outlive the session.
  GenerationSession(const AdaptedModel& model, const Ops& ops, Memory& memory, const GenerationCapacity& capacity);
  ~GenerationSession();

  /// The buffers that the constructor allocates.
  static BufferPlan plan(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops,
                         const GenerationCapacity& capacity);

  /// Appends tokens to distinct sequences and returns the logits that follow the last token of each:
  /// [inputs, vocab] Precision::residual on the host, in the order of `inputs`, valid until the next call. Long prompts
  /// are run in chunks. Throws Error: an id outside the vocabulary, an empty input, a sequence twice, or no room in the
  /// cache.
  Tensor append(std::span<const SequenceInput> inputs);

  /// Tokens of a sequence that are in the cache.
  [[nodiscard]] std::int64_t length(std::int64_t sequence) const;
  /// Forgets the tokens of a sequence from `length` on, so that its place can be used again.
  void truncate(std::int64_t sequence, std::int64_t length);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lomu
