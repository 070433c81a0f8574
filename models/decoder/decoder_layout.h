// Which buffers a decoder has and which of them a block shares with others: the plan of decoder.h, made from shapes
// alone. Private to models/decoder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/decoder/adapter_set.h"
#include "models/decoder/block.h"
#include "models/decoder/buffers.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// Entries of the plan that belong to one block, or to all blocks that keep nothing.
struct BlockEntries {
  std::size_t stream_in = 0;
  std::size_t mid = 0;
  std::size_t stream_out = 0;
  std::size_t projected = 0;
  std::optional<std::size_t> rotated;  ///< with head norm; else columns of `projected`
  std::size_t attention = 0;
  std::optional<std::size_t> lse;  ///< where backward needs it
  std::size_t gate_up = 0;
  std::array<std::size_t, 4> s{};  ///< qkv, o, gate|up, down
};

/// Adds the buffers of one block. `stream` is the residual stream it reads; `keep`: give it buffers for backward.
/// `ranks`: columns of its four low-rank activations.
BlockEntries add_block(BufferPlan& plan, const ModelConfig& config, const Precision& precision, std::string name,
                       std::int64_t tokens, std::size_t stream, bool keep, const std::array<std::int64_t, 4>& ranks);

/// Sums of ranks of the groups qkv, o, gate|up, down of one layer.
std::array<std::int64_t, 4> group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs, std::int64_t layer);
/// The largest of each over layers [0, end).
std::array<std::int64_t, 4> largest_group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs,
                                                std::int64_t end);

/// The block's tensors for the first `tokens` rows. `weights` gives the ranks.
BlockTensors block_tensors(const Buffers& buffers, const BlockEntries& entries, const ModelConfig& config,
                           const LayerWeights& weights, std::size_t normed, std::size_t hidden, std::int64_t tokens);

struct DecoderLayout {
  DecoderLayout(const ModelConfig& config, std::span<const PairInfo> pairs, const Precision& precision,
                const DecoderCapacity& capacity);

  BufferPlan plan;
  /// Blocks from here on keep what backward needs: the lowest with an adapter. num_layers when there is no backward.
  std::int64_t first_kept = 0;
  /// The group of block first_kept (0 qkv, 1 o, 2 gate|up, 3 down) below which no gradient is needed.
  std::size_t last_group = 0;
  std::vector<BlockEntries> blocks;
  std::size_t stream = 0;  ///< residual stream before the first kept block
  std::size_t normed = 0, hidden = 0, cos = 0, sin = 0;
  std::size_t head_rows = 0, head_normed = 0, losses = 0;
  /// Backward only.
  std::size_t d_stream = 0, d_normed = 0, d_hidden = 0, d_attention = 0, d_qkv = 0, d_head_normed = 0, d_head_rows = 0;
};

}  // namespace lomu
