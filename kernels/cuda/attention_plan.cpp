// Which path a shape takes, which block does which rows of a packed batch, and what a call must fulfil.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_blocks.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

struct Range {
  std::int64_t begin, length;
};

[[noreturn]] void refuse(std::size_t index, std::string_view why) {
  throw Error(fmt::format("attention: sequence {} {}", index, why), "plan_attention",
              "this is a fault of the program, please report it");
}

void check_span(std::size_t index, const SequenceSpan& s, std::int64_t query_rows, std::int64_t key_rows,
                bool backward) {
  const auto inside = [](std::int64_t begin, std::int64_t length, std::int64_t rows) {
    return begin >= 0 && length >= 0 && begin <= rows && length <= rows - begin;
  };
  if (!inside(s.query_begin, s.query_length, query_rows)) refuse(index, "has queries outside the matrix");
  if (!inside(s.key_begin, s.key_length, key_rows)) refuse(index, "has keys outside the matrix");
  if (s.query_length > s.key_length) refuse(index, "has more queries than keys");
  if (backward && (s.query_begin != s.key_begin || s.query_length != s.key_length)) {
    refuse(index, "has different ranges of queries and keys, which have no backward pass");
  }
}

/// The rows of [0, rows) in none of the ranges.
std::vector<Range> gaps(std::span<const SequenceSpan> sequences, std::int64_t rows) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].query_length > 0) order.push_back(i);
  }
  std::ranges::sort(order, {}, [&](std::size_t i) { return sequences[i].query_begin; });
  std::vector<Range> result;
  std::int64_t covered = 0;
  for (const std::size_t i : order) {
    const SequenceSpan& s = sequences[i];
    if (s.query_begin < covered) refuse(i, "shares query rows with another");
    if (s.query_begin > covered) result.push_back({covered, s.query_begin - covered});
    covered = s.query_begin + s.query_length;
  }
  if (covered < rows) result.push_back({covered, rows - covered});
  return result;
}

class TileList {
 public:
  TileList(int block, std::int64_t window) : block_(block), window_(window) {}

  /// Blocks of queries: each goes from the first key that its first query sees to its last query's position.
  void add_queries(const SequenceSpan& s) {
    for (std::int64_t first = 0; first < s.query_length; first += block_) {
      const std::int64_t position = s.key_length - s.query_length + first;
      const std::int64_t last = std::min<std::int64_t>(position + block_, s.key_length);
      const std::int64_t begin = window_ > 0 ? std::max<std::int64_t>(0, position - window_ + 1) : 0;
      add(s, first, std::max<std::int64_t>(0, last - begin));
    }
  }
  /// Blocks of keys: each goes from its own first position to the last query that sees its last key.
  void add_keys(const SequenceSpan& s) {
    for (std::int64_t first = 0; first < s.key_length; first += block_) {
      const std::int64_t reach = window_ > 0 ? std::min(s.query_length, first + block_ - 1 + window_) : s.query_length;
      add(s, first, std::max<std::int64_t>(0, reach - first));
    }
  }
  /// Moves the tiles to the end of `all`, the longest first. Returns how many.
  std::size_t finish(std::vector<AttentionTile>& all) {
    std::ranges::stable_sort(tiles_, std::ranges::greater{}, &AttentionTile::positions);
    all.insert(all.end(), tiles_.begin(), tiles_.end());
    return tiles_.size();
  }

 private:
  void add(const SequenceSpan& s, std::int64_t first, std::int64_t positions) {
    const auto narrow = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
    tiles_.push_back({narrow(s.query_begin), narrow(s.query_length), narrow(s.key_begin), narrow(s.key_length),
                      narrow(first), narrow(positions)});
  }

  std::int64_t block_, window_;
  std::vector<AttentionTile> tiles_;
};

}  // namespace

AttentionPath attention_path(DType dtype, std::int64_t head_dim) {
  if (dtype != DType::kBF16 && dtype != DType::kF32) {
    throw UnsupportedError(fmt::format("attention in {} on a GPU", name_of(dtype)), "attention", "use bf16 or f32");
  }
  if (head_dim < 1 || head_dim > 256) {
    throw UnsupportedError(fmt::format("attention with heads of {} features", head_dim), "attention",
                           "1 to 256 features are supported on a GPU; train this model on the CPU");
  }
  return dtype == DType::kBF16 && head_dim % 8 == 0 && head_dim <= 128 ? AttentionPath::kTensorCores
                                                                       : AttentionPath::kPlain;
}

AttentionPlan plan_attention(AttentionPath path, std::span<const SequenceSpan> sequences, std::int64_t query_rows,
                             std::int64_t key_rows, std::int64_t window, bool backward) {
  // Room for a block and a window beyond the last row, so that positions never overflow 32 bits.
  constexpr std::int64_t kMaxRows = (std::int64_t{1} << 30) - 256;
  if (query_rows < 0 || key_rows < 0 || query_rows > kMaxRows || key_rows > kMaxRows) {
    throw Error(fmt::format("attention over {} rows", std::max(query_rows, key_rows)), "plan_attention",
                "use smaller batches");
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) check_span(i, sequences[i], query_rows, key_rows, backward);

  AttentionPlan plan{path, window, query_rows, {}, 0, 0, 0};
  const AttentionBlocks blocks = attention_blocks(path);
  const std::vector<Range> uncovered = gaps(sequences, query_rows);
  const std::int64_t reach = window >= key_rows ? 0 : window;  // one that covers everything is none
  TileList forward(blocks.forward, reach), queries(blocks.queries, reach), keys(blocks.keys, reach);
  for (const SequenceSpan& s : sequences) {
    forward.add_queries(s);
    if (!backward) continue;
    queries.add_queries(s);
    keys.add_keys(s);
  }
  for (const Range& gap : uncovered) {
    forward.add_queries({gap.begin, gap.length, 0, 0});
    if (!backward) continue;
    queries.add_queries({gap.begin, gap.length, 0, 0});
    keys.add_keys({0, 0, gap.begin, gap.length});
  }
  plan.forward = forward.finish(plan.tiles);
  plan.queries = queries.finish(plan.tiles);
  plan.keys = keys.finish(plan.tiles);
  return plan;
}

void check_attention(const AttentionShape& shape, const AttentionPlan& plan, DType dtype, bool backward) {
  const auto refuse = [](const std::string& why) {
    throw Error("attention: " + why, "kernels/cuda/attention", "this is a fault of the program, please report it");
  };
  constexpr std::int64_t kMaxHeads = 1 << 20;
  if (shape.heads < 1 || shape.heads > kMaxHeads || shape.kv_heads < 1 || shape.heads % shape.kv_heads != 0) {
    refuse(fmt::format("{} heads over {} kv heads", shape.heads, shape.kv_heads));
  }
  if (!(shape.scale > 0)) refuse(fmt::format("a scale of {}", shape.scale));
  if (attention_path(dtype, shape.head_dim) != plan.path) refuse("the plan is for another type or head size");
  if (shape.window != plan.window) refuse("the plan is for another window");
  if (backward && plan.forward > 0 && plan.queries == 0) refuse("the plan has no backward pass");
}

void refuse_unaligned(std::string_view name, std::int64_t ld) {
  throw Error(fmt::format("attention: {} is not 16-byte aligned (row stride {})", name, ld), "kernels/cuda/attention",
              "this is a fault of the program, please report it");
}

}  // namespace lomu::cuda
