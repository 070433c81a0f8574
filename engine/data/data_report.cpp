#include "engine/data/data_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/error.h"

namespace lomu {
namespace {

using Json = nlohmann::json;

std::string plural(std::uint64_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

}  // namespace

std::string_view name_of(SkipReason reason) {
  switch (reason) {
    case SkipReason::kBroken: return "broken";
    case SkipReason::kTooLong: return "too long";
    case SkipReason::kNothingToLearn: return "nothing to learn";
  }
  return "?";
}

std::uint64_t DataReport::total_skipped() const {
  return std::accumulate(skipped.begin(), skipped.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Skipped& reason) { return sum + reason.count; });
}

std::vector<std::string> describe(const DataReport& report) {
  std::vector<std::string> text;
  text.push_back(fmt::format("{}: {}, {}, {} of them learned", report.source, plural(report.examples, "example"),
                             plural(report.tokens, "token"), report.supervised));
  if (report.truncated != 0)
    text.push_back(fmt::format("cut to the longest length: {}", plural(report.truncated, "example")));
  for (std::size_t reason = 0; reason < kSkipReasons; ++reason) {
    const Skipped& skipped = report.skipped[reason];
    if (skipped.count == 0) continue;
    text.push_back(
        fmt::format("left out, {}: {}", name_of(static_cast<SkipReason>(reason)), plural(skipped.count, "line")));
    for (const SkippedLine& line : skipped.first) text.push_back(fmt::format("  line {}: {}", line.line, line.what));
    if (skipped.count > skipped.first.size()) {
      text.push_back(fmt::format("  and {} more", skipped.count - skipped.first.size()));
    }
  }
  return text;
}

std::vector<LengthBucket> length_histogram(std::span<const std::uint32_t> lengths) {
  std::array<std::uint64_t, 33> counts{};
  for (const std::uint32_t length : lengths) {
    ++counts[static_cast<std::size_t>(std::bit_width(std::max(length, 1u) - 1))];  // 2^(b-1) < length <= 2^b
  }
  std::vector<LengthBucket> histogram;
  for (std::size_t b = 0; b < counts.size(); ++b) {
    if (counts[b] == 0) continue;
    const std::uint64_t up_to = std::min<std::uint64_t>(std::uint64_t{1} << b, 0xffffffffu);
    histogram.push_back({static_cast<std::uint32_t>(up_to), counts[b]});
  }
  return histogram;
}

std::string to_json(const DataReport& report) {
  Json skipped = Json::array();
  for (const Skipped& reason : report.skipped) {
    Json first = Json::array();
    for (const SkippedLine& line : reason.first) first.push_back({{"line", line.line}, {"what", line.what}});
    skipped.push_back({{"count", reason.count}, {"first", first}});
  }
  const Json json{{"source", report.source},         {"lines", report.lines},
                  {"blank", report.blank},           {"examples", report.examples},
                  {"truncated", report.truncated},   {"tokens", report.tokens},
                  {"supervised", report.supervised}, {"skipped", skipped}};
  // Paths and quoted input need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

DataReport report_from_json(std::string_view text, const std::string& where) {
  try {
    const Json json = Json::parse(text);
    DataReport report;
    json.at("source").get_to(report.source);
    json.at("lines").get_to(report.lines);
    json.at("blank").get_to(report.blank);
    json.at("examples").get_to(report.examples);
    json.at("truncated").get_to(report.truncated);
    json.at("tokens").get_to(report.tokens);
    json.at("supervised").get_to(report.supervised);
    for (std::size_t reason = 0; reason < kSkipReasons; ++reason) {
      const Json& skipped = json.at("skipped").at(reason);
      skipped.at("count").get_to(report.skipped[reason].count);
      for (const Json& line : skipped.at("first")) {
        report.skipped[reason].first.push_back(
            {line.at("line").get<std::uint64_t>(), line.at("what").get<std::string>()});
      }
    }
    return report;
  } catch (const Json::exception& error) {
    throw FormatError(fmt::format("the tokenised data cannot be used: its report is unreadable ({})", error.what()),
                      where, "remove the file; it is made again from the source");
  }
}

}  // namespace lomu
