// What was read from a source of records and what became of each line, for the user to see: nothing is left out in
// silence.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// Why a line of the source is no example.
enum class SkipReason : std::uint8_t { kBroken, kTooLong, kNothingToLearn };
inline constexpr std::size_t kSkipReasons = 3;

/// "broken", "too long", "nothing to learn".
std::string_view name_of(SkipReason reason);

struct SkippedLine {
  std::uint64_t line = 0;
  std::string what;
};

struct Skipped {
  std::uint64_t count = 0;
  std::vector<SkippedLine> first;  ///< the first few, in the order of the file
};

/// What was read from the source and what became of it.
struct DataReport {
  std::string source;       ///< path as it was given
  std::uint64_t lines = 0;  ///< blank ones included
  std::uint64_t blank = 0;
  std::uint64_t examples = 0;
  std::uint64_t truncated = 0;  ///< of the examples
  std::uint64_t tokens = 0;
  std::uint64_t supervised = 0;
  std::array<Skipped, kSkipReasons> skipped;

  [[nodiscard]] std::uint64_t total_skipped() const;
};

/// The report in words, a line each without line ends: counts, then every reason with its first examples.
std::vector<std::string> describe(const DataReport& report);

/// How many examples have a length of at most `up_to` tokens and more than the bucket before: powers of two.
struct LengthBucket {
  std::uint32_t up_to = 0;
  std::uint64_t examples = 0;
};
std::vector<LengthBucket> length_histogram(std::span<const std::uint32_t> lengths);

/// For the data set's file. Bytes of the report that are not UTF-8 are replaced.
std::string to_json(const DataReport& report);
/// The way back. Throws FormatError naming `where`.
DataReport report_from_json(std::string_view json, const std::string& where);

}  // namespace lomu
