// Hashes of bytes and files: a fast one for cache keys, SHA-256 for checksums that people publish.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lomu {

/// Streaming 64-bit XXH3 (seed 0). For cache keys; not cryptographic.
class FastHash {
 public:
  FastHash();
  FastHash(const FastHash&) = delete;
  FastHash& operator=(const FastHash&) = delete;
  ~FastHash();

  void add(std::span<const std::byte> bytes);
  /// The length goes in too, so that ("ab", "c") and ("a", "bc") differ.
  void add(std::string_view text);
  void add(std::uint64_t value);
  [[nodiscard]] std::uint64_t value() const;
  /// 16 lower-case hex digits.
  [[nodiscard]] std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// SHA-256 as 64 lower-case hex digits.
std::string sha256(std::span<const std::byte> bytes);

/// Reads the whole file. Throws FileError.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace lomu
