// What the attention kernels and the host code around them agree on.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/cuda/attention.h"

namespace lomu::cuda {

/// Rows a block owns: queries in the forward pass, queries and keys in the backward pass.
struct AttentionBlocks {
  int forward, queries, keys;
};
constexpr AttentionBlocks attention_blocks(AttentionPath path) {
  return path == AttentionPath::kTensorCores ? AttentionBlocks{128, 64, 64} : AttentionBlocks{32, 32, 32};
}

/// Throws Error unless the shape is a possible one and the plan was made for it.
void check_attention(const AttentionShape& shape, const AttentionPlan& plan, DType dtype, bool backward);
[[noreturn]] void refuse_unaligned(std::string_view name, std::int64_t ld);

}  // namespace lomu::cuda
