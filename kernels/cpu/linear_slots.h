// The scratch of the adapted linear layer: which slot holds what. Shared by linear.cpp, which uses it, and
// linear_scratch.cpp, which says how much that is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace lomu::cpu::linear_slots {

/// Columns of a tile of C. 64 x 768 x 4 bytes = 192 KB: a fifth of a 1 MB second-level cache.
inline constexpr std::int64_t kWideTile = 768;

/// Of a Worker, and of the Team.
enum Slot : std::size_t { kTile, kDropped, kSkinnyOut, kLeft, kLeftLowRank };
enum TeamSlot : std::size_t { kRounded, kLowRankGradient, kSkinnyLeft };

inline bool has_dropout(const AdaptedLinear& linear) {
  return std::any_of(linear.adapters.begin(), linear.adapters.end(),
                     [](const Adapter& a) { return a.rank > 0 && a.dropout.p > 0; });
}

}  // namespace lomu::cpu::linear_slots
