// The bytes of a data set's file, shared by its reader and its writer. The layout is described in dataset.h.
#pragma once

#include <array>
#include <cstdint>

namespace lomu::dataset_file {

inline constexpr std::array<char, 8> kMagic = {'L', 'O', 'M', 'U', 'D', 'A', 'T', 'A'};
inline constexpr std::uint32_t kVersion = 1;

struct Head {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t zero = 0;
  std::uint64_t key = 0;
};

struct Tail {
  std::uint64_t examples = 0;
  std::uint64_t report_bytes = 0;
  std::uint64_t checksum = 0;
  std::array<char, 8> magic = kMagic;
};

static_assert(sizeof(Head) == 24 && sizeof(Tail) == 32);

/// Sections begin at multiples of this.
inline constexpr std::uint64_t kAlignment = 8;
constexpr std::uint64_t padded(std::uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace lomu::dataset_file
