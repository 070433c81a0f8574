// Attention by a library's graphs: which graphs a batch takes, whether they can do it within bounded memory, and the
// way of the numbers there and back. Says no rather than failing: whoever asks has kernels of our own that do the same.
//
// Forward results are the same bits in every run. So are backward results if `deterministic`, which not every GPU's
// library can do in memory that a batch can afford (graphs.deterministic_backward()); there the answer is no.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/attention_graphs.h"
#include "kernels/cuda/attention_groups.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/uploads.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// Scratch memory of a graph at most. Twice what a micro-batch of 16384 tokens takes in a backward pass with 32 heads
/// of 128 features (0.8 GB); one document of 32768 tokens still fits (1.6 GB). Some graphs of cuDNN would take
/// terabytes.
inline constexpr std::size_t kAttentionWorkspaceLimit = std::size_t{2} << 30;

/// The graphs that a group takes, from the matrices of the operation. lse: whether the forward pass keeps it.
AttentionGraph forward_graph(const AttentionShape& shape, const AttentionGroup& group, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& out, bool lse);
AttentionGraph backward_graph(const AttentionShape& shape, const AttentionGroup& group, const Tensor& q,
                              const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& dout, LseLayout lse,
                              bool deterministic);

/// Workspace of a backward graph at most: float32 sums of three gradients for every query head, a float for each row
/// and head, and what an engine adds. Rows are max_tokens, or the whole rectangle of sequences and max_length where a
/// library does not use max_tokens: cuDNN with a padded lse, and for heads that are no multiple of 16.
std::size_t backward_workspace_bound(std::int64_t heads, std::int64_t head_dim, LseLayout lse, std::int64_t max_tokens,
                                     std::int64_t rectangle);

class LibraryAttention {
 public:
  /// What the graphs and the rest stand on outlives this.
  LibraryAttention(AttentionGraphs& graphs, Storage& storage, Scratch& scratch, Uploads& uploads, Stream stream,
                   bool deterministic);

  /// Ops::attention and Ops::attention_backward; false: nothing was done, for the shape, the batch, the alignment or
  /// the memory. The first time for a reason that is the library's, one line on stderr says it.
  bool forward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
               const Tensor& v, const Tensor& out, const Tensor& lse);
  bool backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q, const Tensor& k,
                const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dq,
                const Tensor& dk, const Tensor& dv);

  /// Bytes of Slot::kAttention that batches of so many rows take at most, the longest sequence of which is `document`.
  [[nodiscard]] std::size_t scratch_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t document,
                                          bool backward) const;

  /// Every reason told so far.
  [[nodiscard]] const std::set<std::string>& refusals() const { return refusals_; }

 private:
  class Tables;

  /// Bytes of workspace that the largest takes; none if one is refused.
  std::optional<std::size_t> workspace_of(const std::vector<AttentionGraph>& graphs);
  void move(void* to, const void* from, std::size_t bytes);

  AttentionGraphs& graphs_;
  Storage& storage_;
  Scratch& scratch_;
  Uploads& uploads_;
  Stream stream_;
  bool deterministic_;
  std::set<std::string> refusals_;
};

}  // namespace lomu::cuda
