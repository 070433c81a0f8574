// Which buffers a decoder has and which of them a block shares with others: the plan of decoder.h, made from shapes
// alone. Private to models/decoder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/adapter_set.h"
#include "models/decoder/block.h"
#include "models/decoder/buffers.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// Entries of the plan that one block works in: its own, or shared with other blocks.
struct BlockEntries {
  std::size_t stream_in = 0;
  std::size_t mid = 0;
  std::size_t stream_out = 0;
  std::size_t attn_normed = 0;
  std::size_t projected = 0;
  std::optional<std::size_t> rotated;  ///< with head norm; else columns of `projected`
  std::size_t attention = 0;
  std::optional<std::size_t> lse;  ///< where backward needs it
  std::size_t mlp_normed = 0;
  std::size_t gate_up = 0;
  std::size_t hidden = 0;
  std::array<std::optional<std::size_t>, 4> s;  ///< qkv, o, gate|up, down; none: beside the group's input
};

/// Sums of ranks of the groups qkv, o, gate|up, down: columns of a block's low-rank activations.
using GroupRanks = std::array<std::int64_t, 4>;
GroupRanks group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs, std::int64_t layer);
/// Which of the groups have a pair or a weight trained in full: their inputs are read again in backward.
using GroupTrained = std::array<bool, 4>;
GroupTrained trained_groups(std::span<const PairInfo> pairs, std::int64_t layer);
/// The largest rank of each group over all layers.
GroupRanks largest_group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs);

/// Columns that the inputs and gradients of group `g` have to spare (Ops::spare_columns).
std::int64_t group_spare(const ModelConfig& config, const Ops& ops, const GroupRanks& ranks, std::size_t g);

/// Adds the buffers of blocks to a plan, one block after the other. What a block keeps for backward is its own, in
/// Scope::kActivations; everything else exists once for all blocks, in Scope::kWorkspace, from the first block on that
/// needs it.
class BlockPlanner {
 public:
  /// `plan` outlives this. `widest`: ranks of no block are larger.
  BlockPlanner(BufferPlan& plan, const ModelConfig& config, const Ops& ops, std::int64_t tokens,
               const GroupRanks& widest)
      : plan_(plan), config_(config), ops_(ops), tokens_(tokens), widest_(widest) {}

  /// A block without backward pass: it keeps nothing and changes the residual stream `stream` in place.
  BlockEntries add_forward_only(std::size_t stream);
  /// A block that reads `stream` and keeps what `recompute` says of it.
  BlockEntries add_kept(std::int64_t layer, std::size_t stream, Recompute recompute, const GroupRanks& ranks,
                        const GroupTrained& trained);

 private:
  struct Kept {
    std::int64_t layer;
    Recompute recompute;
    GroupRanks ranks;
    GroupTrained trained;
  };
  BlockEntries add(std::size_t stream, const std::optional<Kept>& kept);
  std::size_t shared(std::string_view what, DType dtype, std::int64_t cols, std::int64_t spare);

  BufferPlan& plan_;
  const ModelConfig& config_;
  const Ops& ops_;
  std::int64_t tokens_;
  GroupRanks widest_;
  std::map<std::string, std::size_t, std::less<>> shared_;  ///< by name
};

/// The block's tensors for the first `tokens` rows. `weights` gives the ranks.
BlockTensors block_tensors(const Buffers& buffers, const BlockEntries& entries, const ModelConfig& config,
                           const LayerWeights& weights, std::int64_t tokens);

/// What the decoder's operations are, for their scratch memory.
Workload workload_of(const ModelConfig& config, std::span<const PairInfo> pairs, double dropout, const Ops& ops,
                     const DecoderCapacity& capacity);

struct DecoderLayout {
  DecoderLayout(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops,
                const DecoderCapacity& capacity);

  BufferPlan plan;
  bool backward = false;  ///< whether there is one, and anything to train
  /// Blocks from here on keep what backward needs: the lowest with anything to train. num_layers where none has.
  std::int64_t first_kept = 0;
  /// The group of block first_kept (0 qkv, 1 o, 2 gate|up, 3 down) below which no gradient is needed; -1: the stream
  /// that enters the block needs one.
  int last_group = -1;
  std::vector<BlockEntries> blocks;
  std::size_t stream = 0;  ///< residual stream before the first kept block
  std::size_t cos = 0, sin = 0;
  std::size_t head_rows = 0, head_normed = 0, losses = 0;
  /// Backward only.
  std::optional<std::size_t> d_logits;  ///< where the head is trained
  std::size_t d_stream = 0, d_normed = 0, d_hidden = 0, d_attention = 0, d_qkv = 0, d_head_normed = 0, d_head_rows = 0;
};

}  // namespace lomu
