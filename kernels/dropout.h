// Which elements dropout keeps: a pure function of key and position, so forward, backward, any rank and any thread
// agree without a mask in memory.
#pragma once

#include <cstdint>

namespace lomu {

/// True with probability 1 - p. SplitMix64's finaliser (Steele, Lea, Flood 2014) over the element's index: one multiply
/// chain per element, which is what an inner loop can afford.
inline bool dropout_keep(std::uint64_t key, std::int64_t row, std::int64_t col, float p) {
  std::uint64_t z = key + 0x9e3779b97f4a7c15ull * (static_cast<std::uint64_t>(row) * 0x100000001b3ull +
                                                   static_cast<std::uint64_t>(col) + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53 >= static_cast<double>(p);
}

}  // namespace lomu
