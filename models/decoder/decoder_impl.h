// What decoder.h hides: state of a decoder between construction and its calls. Private to models/decoder.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/decoder/decoder.h"
#include "models/decoder/decoder_layout.h"

namespace lomu {

struct Decoder::Impl {
  Impl(const AdaptedModel& model, const Ops& ops, Memory& memory, const DecoderCapacity& capacity);

  // forward.cpp
  /// Throws Error if the batch is malformed or too large (`losses`: also for the head); lists its sequences and
  /// supervised rows.
  void take(const PackedBatch& batch, bool losses);
  /// Runs all blocks on the batch taken last, with dropout where `key` is not null; returns the last residual stream.
  Tensor run_blocks(const PackedBatch& batch, const std::uint64_t* dropout_key);
  /// Final norm and cross entropy of the supervised rows; d_head_normed receives gradients where `backward`.
  void run_head(const Tensor& stream, double grad_scale, bool backward);
  /// Of the rows that run_head took, added in their order. Waits for a device, so backward is queued before.
  [[nodiscard]] double loss_sum() const;
  void set_dropout(const std::uint64_t* key);
  /// The batch taken last, in arrays of the decoder's own, which stay where they are.
  PackedBatch own_batch(const PackedBatch& batch);
  /// A number for all that decides which operations the batch taken last queues, and with which numbers.
  [[nodiscard]] std::uint64_t step_key(std::size_t tokens, double grad_scale) const;

  // backward.cpp
  void run_backward(const PackedBatch& batch, const PairHook& passed);
  void head_backward(std::int64_t tokens, const PairHook& finished);
  /// Where the gradient of the head goes; empty where it is frozen.
  [[nodiscard]] Tensor head_gradient() const;
  /// The gradient of a norm's own weight, where that is trained.
  void norm_backward(WeightId norm, const Tensor& dy, const Tensor& x, std::int64_t heads, const PairHook& finished);
  void embedding_backward(std::span<const std::int32_t> tokens, const PairHook& finished);
  /// Calls `finished` with the number of pairs of each group of the block, as its gradients are queued.
  void block_backward(const PackedBatch& batch, std::int64_t layer, const PairHook& finished);
  /// Computes what the forward pass did not keep of a block, from its beginning to the hidden of its MLP.
  void recompute(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t);
  void attention_backward(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t, const Tensor& d_qkv,
                          const PairHook& finished);

  [[nodiscard]] BlockTensors tensors(std::int64_t layer, std::int64_t tokens) const;
  [[nodiscard]] Tensor rows(std::size_t entry, std::int64_t count) const {
    return buffers.tensor(entry).row_range(0, count);
  }

  const AdaptedModel& model;
  const Ops& ops;
  Memory& memory;
  const DecoderCapacity capacity;
  const DecoderLayout layout;
  const Buffers buffers;
  std::vector<LayerWeights> layers;  ///< the model's, with the dropout of this call
  AdaptedLinear head;                ///< without adapters
  Observer observer;
  BlockContext context;
  const Observer no_observer;
  BlockContext unobserved;  ///< for what is computed again: observers see each tensor once

  const std::uint64_t number;  ///< of this decoder in the process: no other has its buffers
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> positions;
  std::vector<SequenceSpan> sequences;
  std::vector<std::int32_t> supervised;  ///< tokens that predict a supervised one
  std::vector<std::int32_t> targets;     ///< what they predict
};

}  // namespace lomu
