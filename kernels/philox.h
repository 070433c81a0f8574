// Counter-based random numbers: Philox4x32-10. A value is a pure function of (seed, purpose, counter), so any rank,
// thread or resumed run that asks for the same place gets the same bits, in any order. Not for cryptography, and never
// a stream that is passed around: whoever draws says which number it wants.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace lomu {

/// What a random number is for. Two purposes never share a key, so adding draws to one leaves the others as they were.
/// The numbers are part of every saved run's meaning: append, never renumber.
enum class Purpose : std::uint64_t {
  kTest = 0,
  kAdapterInit = 1,
  kDropout = 2,
  kShuffleExamples = 3,
  kShuffleBatches = 4,
  kValidationSplit = 5,
  kSampling = 6,
  kDemoData = 7,
  kModelInit = 8,
};

/// The bare generator: ten rounds over a 128-bit counter with a 64-bit key.
/// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); constants from the paper.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMul0 = 0xD2511F53u;
  constexpr std::uint64_t kMul1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u;  // golden ratio
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = kMul0 * counter[0];
    const std::uint64_t p1 = kMul1 * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64-bit words that spreads small differences.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// [0, 1) in steps of 2^-24: every value is a float exactly, and 1 cannot come out.
constexpr float unit_float(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

/// A uniform integer in [0, n), n >= 1, from 64 random bits. Its bias is below n / 2^64 (Lemire's multiply-shift).
constexpr std::uint64_t bounded(std::uint64_t bits, std::uint64_t n) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(bits) * n) >> 64);
}

/// Random numbers addressed by (stream, index), four at a time. `stream` names a place that numbers its own draws, for
/// example a tensor, an epoch, or a step and site packed by the caller; `index` counts inside it.
class Philox {
 public:
  constexpr Philox(std::uint64_t seed, Purpose purpose) {
    // mix64 is a bijection and the odd constant separates purposes: for one seed no two purposes have the same key.
    const std::uint64_t key = mix64(seed + 0x9E3779B97F4A7C15u * (static_cast<std::uint64_t>(purpose) + 1));
    key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
  }

  /// Four independent 32-bit words.
  [[nodiscard]] constexpr std::array<std::uint32_t, 4> words(std::uint64_t stream, std::uint64_t index) const {
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                      key_);
  }

  /// 64 bits: the first two of words().
  [[nodiscard]] constexpr std::uint64_t bits(std::uint64_t stream, std::uint64_t index) const {
    const auto w = words(stream, index);
    return (static_cast<std::uint64_t>(w[1]) << 32) | w[0];
  }

  /// Four uniform floats in [0, 1).
  [[nodiscard]] constexpr std::array<float, 4> uniforms(std::uint64_t stream, std::uint64_t index) const {
    const auto w = words(stream, index);
    return {unit_float(w[0]), unit_float(w[1]), unit_float(w[2]), unit_float(w[3])};
  }

  /// Four standard normals by Box and Muller, computed in double and rounded once. Largest magnitude 6.66.
  /// They call the C library's log, sin and cos: equal on every rank of a run, not promised equal between C libraries.
  [[nodiscard]] std::array<float, 4> normals(std::uint64_t stream, std::uint64_t index) const {
    const auto w = words(stream, index);
    std::array<float, 4> out{};
    for (std::size_t i = 0; i < 4; i += 2) {
      const double u = (static_cast<double>(w[i]) + 1.0) * 0x1p-32;  // (0, 1]: its logarithm is finite
      const double radius = std::sqrt(-2.0 * std::log(u));
      const double angle = 2.0 * std::numbers::pi * 0x1p-32 * static_cast<double>(w[i + 1]);
      out[i] = static_cast<float>(radius * std::cos(angle));
      out[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
    return out;
  }

 private:
  std::array<std::uint32_t, 2> key_{};
};

}  // namespace lomu
