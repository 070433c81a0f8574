// A Linux machine's own description of itself, parsed: for `lomu doctor`. Text in, facts out, so that tests can bring
// machines that are not at hand.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

struct ProcessorText {
  std::string model;               ///< empty where the text does not say
  std::vector<std::string> flags;  ///< as the kernel spells them: "avx512_bf16"
  [[nodiscard]] bool has(std::string_view flag) const;
};

/// From the text of /proc/cpuinfo: the first processor.
ProcessorText parse_cpuinfo(std::string_view text);

/// "MemAvailable:  123 kB" in the text of /proc/meminfo, in bytes.
std::optional<std::uint64_t> parse_meminfo(std::string_view text, std::string_view key);

/// The word in brackets: "always [madvise] never" is "madvise". Empty without one.
std::string parse_choice(std::string_view text);

/// "0-3,8" for {0, 1, 2, 3, 8}; ascending numbers.
std::string ranges_text(const std::vector<int>& numbers);

}  // namespace lomu
