// Host code only.
#include <algorithm>
#include <cstring>

#include "kernels/cuda/flat_tiles.h"

namespace lomu::cuda {

FlatTables flat_tables(std::span<const PairDesc> pairs) {
  FlatTables tables;
  for (const PairDesc& pair : pairs) {
    for (const bool wide : {false, true}) {
      const auto number = static_cast<std::int32_t>(tables.halves.size());
      tables.halves.push_back({wide ? pair.right : pair.left, wide ? pair.n : pair.r});
      const std::int64_t size = (wide ? pair.n : pair.m) * pair.r;
      for (std::int64_t first = 0; first < size; first += kFlatTile) {
        const std::int64_t count = std::min<std::int64_t>(kFlatTile, size - first);
        tables.tiles.push_back({first, static_cast<std::int32_t>(count), number});
      }
    }
  }
  return tables;
}

std::vector<std::byte> FlatTables::image() const {
  std::vector<std::byte> bytes(tiles_offset() + tiles.size() * sizeof(FlatTile));
  if (!halves.empty()) std::memcpy(bytes.data(), halves.data(), halves.size() * sizeof(FlatHalf));
  if (!tiles.empty()) std::memcpy(bytes.data() + tiles_offset(), tiles.data(), tiles.size() * sizeof(FlatTile));
  return bytes;
}

}  // namespace lomu::cuda
