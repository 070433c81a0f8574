#include "kernels/cuda/library_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <limits>

#include "kernels/cuda/padded_lse.h"

namespace lomu::cuda {
namespace {

/// A stretch of scratch memory in aligned pieces: first all their sizes, then the places.
class Pieces {
 public:
  /// Where a piece of so many bytes begins.
  std::size_t add(std::size_t bytes) {
    constexpr std::size_t kAlignment = 256;
    const std::size_t begin = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

/// Documented by cuDNN; its support check lets wider ones through.
constexpr std::int64_t kWidestHead = 256;

bool is_aligned16(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

/// Whether graphs take these matrices as they lie: bf16, 16-byte accesses, offsets that fit into 32 bits.
bool can_be_taken(std::initializer_list<Tensor> matrices) {
  return std::all_of(matrices.begin(), matrices.end(), [](const Tensor& m) {
    return m.dtype == DType::kBF16 && is_aligned16(m.data) && m.ld % 8 == 0 &&
           m.rows <= std::numeric_limits<std::int32_t>::max() / m.ld;
  });
}

bool is_dense(const Tensor& m) {
  return m.ld == m.cols;
}

AttentionGraph graph_of(const AttentionShape& shape, const AttentionGroup& group, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out) {
  AttentionGraph graph;
  graph.heads = shape.heads;
  graph.kv_heads = shape.kv_heads;
  graph.head_dim = shape.head_dim;
  graph.window = shape.window < group.max_length ? shape.window : 0;  // one that covers everything is none
  graph.scale = static_cast<float>(shape.scale);
  graph.sequences = static_cast<std::int64_t>(group.lengths.size());
  graph.max_length = group.max_length;
  graph.max_tokens = group.max_tokens;
  graph.q_ld = q.ld;
  graph.k_ld = k.ld;
  graph.v_ld = v.ld;
  graph.out_ld = out.ld;
  return graph;
}

const BF16* rows_of(const Tensor& m, const AttentionGroup& group) {
  return m.row<const BF16>(group.first_row);
}

}  // namespace

AttentionGraph forward_graph(const AttentionShape& shape, const AttentionGroup& group, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& out, bool lse) {
  AttentionGraph graph = graph_of(shape, group, q, k, v, out);
  if (lse) graph.lse = LseLayout::kByToken;
  return graph;
}

AttentionGraph backward_graph(const AttentionShape& shape, const AttentionGroup& group, const Tensor& q,
                              const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& dout, LseLayout lse,
                              bool deterministic) {
  AttentionGraph graph = graph_of(shape, group, q, k, v, out);
  graph.pass = deterministic ? AttentionPass::kDeterministicBackward : AttentionPass::kBackward;
  graph.lse = lse;
  graph.dout_ld = dout.ld;
  return graph;
}

std::size_t backward_workspace_bound(std::int64_t heads, std::int64_t head_dim, LseLayout lse, std::int64_t max_tokens,
                                     std::int64_t rectangle) {
  constexpr std::size_t kOfEngine = std::size_t{1} << 20;  // 0.03 MiB were seen
  const bool by_token = lse == LseLayout::kByToken && head_dim % 16 == 0;
  const std::int64_t rows = by_token ? max_tokens : rectangle;
  return static_cast<std::size_t>(rows * heads * (3 * head_dim + 1)) * sizeof(float) + kOfEngine;
}

/// Lengths and offsets of all groups in one array, sent to the device in one piece: layers of a batch share it.
class LibraryAttention::Tables {
 public:
  Tables(const std::vector<AttentionGroup>& groups, std::vector<std::int64_t> strides) : strides_(std::move(strides)) {
    std::sort(strides_.begin(), strides_.end());
    strides_.erase(std::unique(strides_.begin(), strides_.end()), strides_.end());
    for (const AttentionGroup& group : groups) {
      begins_.push_back(values_.size());
      append(group.lengths);
      for (const std::int64_t stride : strides_) {
        std::vector<std::int32_t> offsets = {0};
        for (const std::int64_t n : group.lengths) {
          offsets.push_back(offsets.back() + static_cast<std::int32_t>(n * stride));
        }
        append(offsets);
      }
    }
  }

  void send(Uploads& uploads) { on_device_ = uploads.on_device(std::span<const std::int32_t>(values_)); }

  [[nodiscard]] const std::int32_t* lengths(std::size_t group) const { return on_device_ + begins_[group]; }
  [[nodiscard]] std::vector<RaggedOffsets> offsets(std::size_t group, std::size_t sequences) const {
    std::vector<RaggedOffsets> result;
    const std::int32_t* next = lengths(group) + padded(sequences);
    for (const std::int64_t stride : strides_) {
      result.push_back({stride, next});
      next += padded(sequences + 1);
    }
    return result;
  }

 private:
  static std::size_t padded(std::size_t count) { return (count + 3) / 4 * 4; }  // 16-byte aligned
  void append(const std::vector<std::int32_t>& numbers) {
    values_.insert(values_.end(), numbers.begin(), numbers.end());
    values_.resize(padded(values_.size()));
  }

  std::vector<std::int64_t> strides_;
  std::vector<std::int32_t> values_;
  std::vector<std::size_t> begins_;
  const std::int32_t* on_device_ = nullptr;
};

LibraryAttention::LibraryAttention(AttentionGraphs& graphs, Storage& storage, Scratch& scratch, Uploads& uploads,
                                   Stream stream, bool deterministic)
    : graphs_(graphs),
      storage_(storage),
      scratch_(scratch),
      uploads_(uploads),
      stream_(stream),
      deterministic_(deterministic) {}

std::optional<std::size_t> LibraryAttention::workspace_of(const std::vector<AttentionGraph>& graphs) {
  std::size_t most = 0;
  for (const AttentionGraph& graph : graphs) {
    const AttentionGraphAnswer& answer = graphs_.ask(graph);
    if (answer.supported && answer.workspace <= kAttentionWorkspaceLimit) {
      most = std::max(most, answer.workspace);
      continue;
    }
    const std::string reason =
        answer.supported ? fmt::format("{} MiB of scratch memory are too much", answer.workspace >> 20) : answer.reason;
    const std::string text = fmt::format("attention {} of {} / {} heads of {} by {}: {}",
                                         graph.pass == AttentionPass::kForward ? "forward" : "backward", graph.heads,
                                         graph.kv_heads, graph.head_dim, graphs_.name(), reason);
    if (refusals_.insert(text).second) fmt::print(stderr, "lomu: {}; Lomu's own kernels do it\n", text);
    return {};
  }
  return most;
}

std::size_t LibraryAttention::scratch_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t document,
                                            bool backward) const {
  constexpr std::size_t kForward = std::size_t{1} << 20;  // 0.13 MiB were seen
  const AttentionGroupBounds bounds = bounds_of_groups(rows, document);
  const LseLayout layout = graphs_.backward_lse();
  const auto floats = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); };
  const std::size_t forward = kForward + floats(bounds.tokens * shape.heads);
  if (!backward || (deterministic_ && !graphs_.deterministic_backward())) return forward;
  const std::size_t workspace =
      backward_workspace_bound(shape.heads, shape.head_dim, layout, bounds.max_tokens, bounds.rectangle);
  const std::int64_t lse_rows = layout == LseLayout::kPadded ? bounds.rectangle : bounds.tokens;
  Pieces pieces;
  pieces.add(std::min(workspace, kAttentionWorkspaceLimit));
  pieces.add(floats(lse_rows * shape.heads));
  pieces.add(static_cast<std::size_t>(bounds.tokens * shape.heads * shape.head_dim) * sizeof(BF16));
  pieces.add(static_cast<std::size_t>(bounds.tokens * shape.kv_heads * shape.head_dim) * sizeof(BF16));
  pieces.add(static_cast<std::size_t>(bounds.tokens * shape.kv_heads * shape.head_dim) * sizeof(BF16));
  return std::max(forward, pieces.bytes());
}

/// Within the storage, one piece.
void LibraryAttention::move(void* to, const void* from, std::size_t bytes) {
  storage_.copy_rows(to, bytes, from, bytes, bytes, 1);
}

bool LibraryAttention::forward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                               const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse) {
  if (shape.head_dim > kWidestHead || !can_be_taken({q, k, v, out}) || (!lse.empty() && !is_dense(lse))) return false;
  const std::vector<AttentionGroup> groups = group_sequences(sequences, q.rows);
  if (groups.empty()) return false;
  std::vector<AttentionGraph> graphs;
  std::int64_t most_tokens = 0;
  for (const AttentionGroup& group : groups) {
    graphs.push_back(forward_graph(shape, group, q, k, v, out, !lse.empty()));
    most_tokens = std::max(most_tokens, group.tokens);
  }
  const auto workspace = workspace_of(graphs);
  if (!workspace) return false;

  Tables tables(groups, {q.ld, k.ld, v.ld, out.ld, shape.heads});
  tables.send(uploads_);
  const std::size_t row_bytes = static_cast<std::size_t>(shape.heads) * sizeof(float);
  Pieces pieces;
  pieces.add(*workspace);
  const std::size_t lse_at = pieces.add(lse.empty() ? 0 : static_cast<std::size_t>(most_tokens) * row_bytes);
  std::byte* const scratch = scratch_.bytes(Slot::kAttention, pieces.bytes());
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const AttentionGroup& group = groups[i];
    const auto offsets = tables.offsets(i, group.lengths.size());
    AttentionGraphTensors t;
    t.q = rows_of(q, group);
    t.k = rows_of(k, group);
    t.v = rows_of(v, group);
    t.out = out.row<BF16>(group.first_row);
    t.lengths = tables.lengths(i);
    t.offsets = offsets;
    float* const target = lse.empty() ? nullptr : lse.row<float>(group.first_row);
    // With 9 or 14 heads a group in the middle need not begin where a library may write.
    t.lse = is_aligned16(target) ? target : reinterpret_cast<float*>(scratch + lse_at);
    graphs_.run(graphs[i], t, scratch);
    if (t.lse != target) move(target, t.lse, static_cast<std::size_t>(group.tokens) * row_bytes);
  }
  return true;
}

bool LibraryAttention::backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                                const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                                const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  if (deterministic_ && !graphs_.deterministic_backward()) return false;
  if (shape.head_dim > kWidestHead || !can_be_taken({q, k, v, out, dout, dq, dk, dv}) || !is_dense(lse)) return false;
  const std::vector<AttentionGroup> groups = group_sequences(sequences, q.rows);
  if (groups.empty()) return false;
  const LseLayout layout = graphs_.backward_lse();
  std::vector<AttentionGraph> graphs;
  std::int64_t most_tokens = 0;
  std::int64_t most_padded = 0;
  for (const AttentionGroup& group : groups) {
    graphs.push_back(backward_graph(shape, group, q, k, v, out, dout, layout, deterministic_));
    most_tokens = std::max(most_tokens, group.tokens);
    most_padded = std::max(most_padded, graphs.back().sequences * group.max_length);
  }
  const auto workspace = workspace_of(graphs);
  if (!workspace) return false;

  const std::int64_t q_size = shape.heads * shape.head_dim;
  const std::int64_t kv_size = shape.kv_heads * shape.head_dim;
  Tables tables(groups, {q.ld, k.ld, v.ld, out.ld, dout.ld, q_size, kv_size, shape.heads});
  tables.send(uploads_);
  const std::size_t row_bytes = static_cast<std::size_t>(shape.heads) * sizeof(float);
  const auto gradient_bytes = [&](const Tensor& gradient) {
    return is_dense(gradient) ? 0 : static_cast<std::size_t>(most_tokens * gradient.cols) * sizeof(BF16);
  };
  Pieces pieces;
  pieces.add(*workspace);
  const std::size_t lse_at =
      pieces.add(static_cast<std::size_t>(layout == LseLayout::kPadded ? most_padded : most_tokens) * row_bytes);
  const std::size_t dq_at = pieces.add(gradient_bytes(dq));
  const std::size_t dk_at = pieces.add(gradient_bytes(dk));
  const std::size_t dv_at = pieces.add(gradient_bytes(dv));
  std::byte* const scratch = scratch_.bytes(Slot::kAttention, pieces.bytes());

  for (std::size_t i = 0; i < groups.size(); ++i) {
    const AttentionGroup& group = groups[i];
    const auto offsets = tables.offsets(i, group.lengths.size());
    const auto dense = [&](const Tensor& gradient, std::size_t at) {
      return is_dense(gradient) ? gradient.row<BF16>(group.first_row) : reinterpret_cast<BF16*>(scratch + at);
    };
    AttentionGraphTensors t;
    t.q = rows_of(q, group);
    t.k = rows_of(k, group);
    t.v = rows_of(v, group);
    t.out = out.row<BF16>(group.first_row);
    t.dout = rows_of(dout, group);
    t.dq = dense(dq, dq_at);
    t.dk = dense(dk, dk_at);
    t.dv = dense(dv, dv_at);
    t.lengths = tables.lengths(i);
    t.offsets = offsets;
    float* const source = lse.row<float>(group.first_row);
    t.lse = reinterpret_cast<float*>(scratch + lse_at);
    if (layout == LseLayout::kPadded) {
      const auto by_token =
          std::find_if(offsets.begin(), offsets.end(), [&](const RaggedOffsets& o) { return o.stride == shape.heads; });
      pad_lse(source, by_token->offsets, t.lengths, graphs[i].sequences, shape.heads, group.max_length, t.lse, stream_);
    } else if (is_aligned16(source)) {
      t.lse = source;
    } else {
      move(t.lse, source, static_cast<std::size_t>(group.tokens) * row_bytes);
    }
    graphs_.run(graphs[i], t, scratch);
    const auto spread = [&](const Tensor& gradient, const BF16* from) {
      if (is_dense(gradient)) return;
      const std::size_t width = static_cast<std::size_t>(gradient.cols) * sizeof(BF16);
      storage_.copy_rows(gradient.row<BF16>(group.first_row), static_cast<std::size_t>(gradient.ld) * sizeof(BF16),
                         from, width, width, static_cast<std::size_t>(group.tokens));
    };
    spread(dq, t.dq);
    spread(dk, t.dk);
    spread(dv, t.dv);
  }
  return true;
}

}  // namespace lomu::cuda
