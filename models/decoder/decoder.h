// A decoder with hand-written forward and backward over the operations of kernels/ops.h, on packed batches, in buffers
// that are planned and allocated before step 1. It computes losses and adapter gradients; it knows nothing of ranks,
// optimizers or files. Generation with a cache is generation.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapted_model.h"
#include "models/decoder/buffers.h"
#include "models/decoder/recompute.h"
#include "models/labels.h"

namespace lomu {

/// Documents laid end to end. They never see each other.
struct PackedBatch {
  std::span<const std::int32_t> ids;         ///< [tokens]
  std::span<const std::int32_t> labels;      ///< [tokens], not shifted: the token at t, or -100 where not supervised
  std::span<const std::int32_t> positions;   ///< [tokens], 0, 1, ... in each document
  std::span<const std::int32_t> cu_seqlens;  ///< [documents + 1], from 0 to tokens
};

/// What the largest micro-batch needs.
struct DecoderCapacity {
  std::int64_t tokens = 0;
  std::int64_t supervised = 0;              ///< most rows that go through the head at once; at most `tokens`
  std::int64_t document = 0;                ///< longest document: positions are below this
  bool backward = true;                     ///< false: only forward() and logits() will be called
  Recompute recompute = Recompute::kNorms;  ///< what backward computes again; changes no result
};

/// What a decoder takes, before anything is allocated.
struct DecoderPlan {
  BufferPlan buffers;
  std::size_t scratch = 0;  ///< of its operations, in Scope::kWorkspace

  [[nodiscard]] std::size_t bytes(Scope scope) const {
    return buffers.bytes(scope) + (scope == Scope::kWorkspace ? scratch : 0);
  }
  [[nodiscard]] std::size_t bytes() const { return buffers.bytes() + scratch; }
};

/// A place in the forward pass, for observers.
enum class Stage : std::uint8_t {
  kEmbedding,
  kAttentionInput,  ///< normed input of q, k, v
  kQkv,             ///< q|k|v as projected
  kRotated,         ///< q|k after head norm and rotation
  kAttention,       ///< attention output, before o
  kAfterAttention,  ///< residual stream between the halves of a block
  kMlpInput,
  kGateUp,
  kMlpHidden,
  kBlock,      ///< residual stream after the block
  kFinalNorm,  ///< of the supervised rows
  kLosses,
};

/// "attention output", as error messages say it.
std::string_view name_of(Stage stage);

/// Hears that backward has come past the first `pairs` pairs of the adapters: their gradients are written, or on a
/// device queued to be.
using PairHook = std::function<void(std::size_t pairs)>;

/// Sees tensors as they are made, on the host. `layer` is -1 outside the blocks. The tensor is valid during the call
/// only.
using Observer = std::function<void(std::int64_t layer, Stage stage, const Tensor& tensor)>;

class Decoder {
 public:
  /// Allocates everything it will ever need. `model` and `ops` outlive the decoder.
  Decoder(const AdaptedModel& model, const Ops& ops, Memory& memory, const DecoderCapacity& capacity);
  ~Decoder();

  /// What the constructor allocates, without allocating it. `dropout`: of the adapters.
  static DecoderPlan plan(const ModelConfig& config, std::span<const PairInfo> pairs, double dropout, const Ops& ops,
                          const DecoderCapacity& capacity);

  /// Tokens whose prediction enters the loss: those with a label, except the first of each document.
  static std::int64_t supervised_tokens(const PackedBatch& batch);

  /// Evaluation, without dropout: the sum of the losses, added in token order. `per_token` [tokens], when not empty,
  /// receives the loss of predicting labels[t + 1] at t, and 0 where nothing is predicted.
  /// Throws Error if the batch is malformed or larger than the capacity.
  double forward(const PackedBatch& batch, std::span<double> per_token = {});

  /// Training: returns the sum of the losses and writes every element of the adapters' gradient buffer with the
  /// gradient of grad_scale * sum (AdaptedModel::gradients). `dropout_key` names this micro-batch (a function of seed,
  /// step and index, never of rank); it matters only if the adapters have dropout. `passed`, where given, is called as
  /// pairs are finished, and at last with all of them. Throws as forward() does.
  double forward_backward(const PackedBatch& batch, double grad_scale, std::uint64_t dropout_key = 0,
                          const PairHook& passed = {});

  /// Logits of the given tokens (row indices into the batch). out: [rows, vocab], Precision::residual, on the host.
  void logits(const PackedBatch& batch, std::span<const std::int32_t> rows, const Tensor& out);

  /// Runs the forward pass again and names the first tensor that holds NaN or infinity, "block 7, attention output".
  /// For the message after a loss that is not finite; slow.
  std::optional<std::string> find_nonfinite(const PackedBatch& batch);

  /// Lets `observer` see the following forward passes; an empty function ends that.
  void observe(Observer observer);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lomu
