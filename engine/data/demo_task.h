// The quickstart's task: a sentence about an order in, one line of JSON out. Anybody sees at a glance whether an answer
// is right, a small model can learn it in minutes, and no model knows it beforehand, because the record's layout is
// ours. Names, goods, amounts and dates are made up by a seeded generator; nothing here is data about anyone.
//
//   two copper kettles for Maria Lopez, $45.50 in all, needed by March 3rd, 2026
//   {"name":"Maria Lopez","qty":2,"item":"copper kettles","total":"45.50 USD","date":"2026-03-03"}
//
// What must be learned: to copy names and goods as written, to write counts as digits, amounts with two decimals and a
// currency code, and dates as year-month-day. The three parts share no name, no word of the goods, and the held-out
// parts have sentence patterns of their own for every other line. Part of the training words are made up of syllables,
// so that names and goods must be copied and cannot be learned by heart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lomu {

enum class DemoPart : std::uint32_t { kTrain, kValidation, kTest };

/// One record, as the answer has it.
struct DemoOrder {
  std::string name;
  int quantity = 0;
  std::string item;  ///< plural when there are several, as in the sentence
  int cents = 0;
  std::string_view currency;  ///< "USD", "EUR" or "GBP"
  int year = 0;
  int month = 0;
  int day = 0;
};

struct DemoSample {
  DemoOrder order;
  std::string sentence;
  std::string answer;       ///< the JSON record, one line without spaces between fields
  std::size_t pattern = 0;  ///< which sentence pattern, counted over all parts
};

/// The instruction that stands before every sentence. Short: it is paid for in every example.
inline constexpr std::string_view kDemoSystem = "Write the order as JSON.";

/// Sample `index` of a part: a pure function of its arguments, the same on every machine.
DemoSample demo_sample(std::uint64_t seed, DemoPart part, std::uint64_t index);

/// The sample as one JSONL line of system, user and assistant messages, without the newline.
std::string demo_line(const DemoSample& sample);

/// How many lines each file gets.
struct DemoSizes {
  std::size_t train = 3000;
  std::size_t validation = 100;
  std::size_t test = 200;
};

/// Writes train.jsonl, validation.jsonl and test.jsonl into `folder`, which is made when missing. Each file is written
/// under another name and renamed, so an interrupted run leaves no half file. Throws FileError.
void write_demo_data(const std::filesystem::path& folder, std::uint64_t seed, const DemoSizes& sizes);

/// Equal but for white space at the ends.
bool exact_match(std::string_view expected, std::string_view got);

/// The share of the expected record's fields that `got`, read as JSON, has with the same value; 0 when `got` is no JSON
/// object. Throws FormatError when `expected` is none.
double field_accuracy(std::string_view expected, std::string_view got);

/// Names and words of a part, for the checks that the parts are disjoint.
struct DemoWords {
  std::span<const std::string_view> first_names, last_names, qualities, things, patterns;
};
DemoWords demo_words(DemoPart part);

}  // namespace lomu
