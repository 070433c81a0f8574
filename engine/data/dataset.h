// Tokenised examples in one memory-mapped file: made once, opened by every rank of a machine, read without copying.
//
// Layout, version 1, little-endian, every section at a multiple of 8 bytes:
//   head      magic "LOMUDATA", u32 version, u32 zero, u64 key
//   examples  for each example its ids then its labels, i32 each
//   offsets   u64[n + 1]: where in `examples` each begins, in i32
//   lengths   u32[n]      supervised  u32[n]      lines  u64[n]   (line numbers in the source)
//   report    JSON: what was read and what was left out
//   tail      u64 n, u64 bytes of the report, u64 XXH3 of all before the tail, magic "LOMUDATA"
//
// The key is a hash of everything the content depends on; a file of another key, version or checksum is not opened.
// Not a format to exchange: delete it and it is made again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "engine/data/data_report.h"
#include "models/files/mapped_file.h"

namespace lomu {

class Dataset {
 public:
  /// Maps the file and checks it whole. Throws FileError when it cannot be read, FormatError when it is damaged or has
  /// another key or version.
  static Dataset open(const std::filesystem::path& file, std::uint64_t key);

  [[nodiscard]] std::size_t size() const { return lengths_.size(); }
  [[nodiscard]] std::span<const std::int32_t> ids(std::size_t example) const;
  /// Not shifted; kNotSupervised or the id at that place.
  [[nodiscard]] std::span<const std::int32_t> labels(std::size_t example) const;
  /// The line of the source it came from, from 1.
  [[nodiscard]] std::uint64_t line(std::size_t example) const { return lines_[example]; }

  /// Tokens of each example.
  [[nodiscard]] std::span<const std::uint32_t> lengths() const { return lengths_; }
  /// Predicted tokens of each example: labels after the first that are not kNotSupervised.
  [[nodiscard]] std::span<const std::uint32_t> supervised() const { return supervised_; }
  [[nodiscard]] const DataReport& report() const { return report_; }

 private:
  explicit Dataset(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::span<const std::int32_t> examples_;
  std::span<const std::uint64_t> offsets_;
  std::span<const std::uint32_t> lengths_;
  std::span<const std::uint32_t> supervised_;
  std::span<const std::uint64_t> lines_;
  DataReport report_;
};

}  // namespace lomu
