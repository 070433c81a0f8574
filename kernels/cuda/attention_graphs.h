// Attention as a library runs it: by graphs, each made once for a bucket of batches and run many times. This is the
// interface between what decides (library_attention.h) and what knows the library (cudnn_attention.h); tests put plain
// loops in the library's place. No decisions and no memory here.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/dtype.h"

namespace lomu::cuda {

enum class AttentionPass : std::uint8_t { kForward, kBackward, kDeterministicBackward };

/// How the log-sum-exp lies in memory: not at all (a forward pass without a backward pass), a row of heads for each
/// token, or a row of max_length floats for each sequence and head.
enum class LseLayout : std::uint8_t { kNone, kByToken, kPadded };

/// All that a graph is made from. bf16, causal; queries and keys of a sequence are the same tokens. Strides are
/// elements from token to token. Gradients are dense: their stride is that of their heads, for a library's scratch
/// memory grows with it (cuDNN keeps float32 sums at the gradients' strides).
struct AttentionGraph {
  AttentionPass pass = AttentionPass::kForward;
  LseLayout lse = LseLayout::kNone;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t window = 0;  ///< 0: all earlier tokens; w: the token itself and w - 1 before it
  float scale = 0;
  std::int64_t sequences = 0;   ///< exactly so many, none of them empty
  std::int64_t max_length = 0;  ///< of a sequence
  std::int64_t max_tokens = 0;  ///< of all sequences together
  std::int64_t q_ld = 0, k_ld = 0, v_ld = 0, out_ld = 0;
  std::int64_t dout_ld = 0;  ///< 0 in the forward pass
  auto operator<=>(const AttentionGraph&) const = default;
};

/// Where each sequence begins, in elements of a matrix with `stride` elements a token; one entry more than there are
/// sequences. The first is 0: pointers are to the first token of the first sequence.
struct RaggedOffsets {
  std::int64_t stride = 0;
  const std::int32_t* offsets = nullptr;
};

/// What a graph works on, all on the device. Matrices are 16-byte aligned; those of the other pass are null.
struct AttentionGraphTensors {
  const BF16 *q = nullptr, *k = nullptr, *v = nullptr;
  BF16* out = nullptr;  ///< written by the forward pass, read by the backward pass, as is lse
  float* lse = nullptr;
  const BF16* dout = nullptr;
  BF16 *dq = nullptr, *dk = nullptr, *dv = nullptr;
  const std::int32_t* lengths = nullptr;   ///< of each sequence
  std::span<const RaggedOffsets> offsets;  ///< for every stride among the matrices', and for heads if lse is kByToken
};

struct AttentionGraphAnswer {
  bool supported = false;
  std::size_t workspace = 0;  ///< bytes that run() needs
  std::string reason;         ///< why not; empty if supported
};

class AttentionGraphs {
 public:
  virtual ~AttentionGraphs() = default;
  /// "cuDNN 9.19.0"
  [[nodiscard]] virtual std::string name() const = 0;
  /// Which lse the backward pass takes; the forward pass writes kByToken.
  [[nodiscard]] virtual LseLayout backward_lse() const = 0;
  /// Whether kDeterministicBackward needs memory in proportion to the tokens, not to their square.
  [[nodiscard]] virtual bool deterministic_backward() const = 0;
  /// Makes the graph if it is a new one, which takes a good part of a second. The answer stays valid.
  virtual const AttentionGraphAnswer& ask(const AttentionGraph& graph) = 0;
  /// Queues a supported graph's work. workspace: 256-byte aligned. Throws Error if the library fails.
  virtual void run(const AttentionGraph& graph, const AttentionGraphTensors& tensors, std::byte* workspace) = 0;
};

}  // namespace lomu::cuda
