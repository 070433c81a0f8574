// Many runs of floats copied in one launch: a rank's scattered shares of the gradient packed into one message, and
// back. A run is cut into tiles beforehand (append_tiles), so that a launch knows no runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/stream.h"

namespace lomu::cuda {

inline constexpr std::uint32_t kCopyTile = 4096;  ///< floats, at most: 16 KiB, one block's work

/// to[to_begin + i] = from[from_begin + i] for i < count.
struct CopyTile {
  std::uint64_t from_begin;
  std::uint64_t to_begin;
  std::uint32_t count;
  std::uint32_t unused;
};

/// Appends the tiles of a run of `count` floats.
inline void append_tiles(std::vector<CopyTile>& tiles, std::uint64_t from, std::uint64_t to, std::uint64_t count) {
  while (count > 0) {
    const auto part = static_cast<std::uint32_t>(count < kCopyTile ? count : kCopyTile);
    tiles.push_back({from, to, part, 0});
    from += part;
    to += part;
    count -= part;
  }
}

/// Copies all `count` tiles, which lie in device memory. No tile's target overlaps any other tile's source or target.
/// count = 0 does nothing. Tiles of which both ends are 16-byte aligned are fast.
void copy_tiles(const CopyTile* tiles, std::size_t count, const float* from, float* to, Stream stream);

}  // namespace lomu::cuda
