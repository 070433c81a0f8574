#include "engine/data/demo_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "kernels/philox.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

// The draws of one sample, in the order in which they are asked for.
class Draws {
 public:
  Draws(std::uint64_t seed, DemoPart part, std::uint64_t index)
      : random_(seed, Purpose::kDemoData), stream_((static_cast<std::uint64_t>(part) << 56) | index) {}

  std::uint64_t below(std::uint64_t n) { return bounded(random_.bits(stream_, next_++), n); }
  int between(int low, int high) { return low + static_cast<int>(below(static_cast<std::uint64_t>(high - low) + 1)); }
  bool chance(std::uint64_t percent) { return below(100) < percent; }
  std::string_view one_of(std::span<const std::string_view> words) { return words[below(words.size())]; }

 private:
  Philox random_;
  std::uint64_t stream_;
  std::uint64_t next_ = 0;
};

/// Share of the training words that are made up.
constexpr std::uint64_t kMadeUpPercent = 10;

constexpr auto kCounts = std::to_array<std::string_view>(
    {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"});
constexpr auto kMonths =
    std::to_array<std::string_view>({"January", "February", "March", "April", "May", "June", "July", "August",
                                     "September", "October", "November", "December"});
constexpr auto kMonthDays = std::to_array<int>({31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31});

struct Currency {
  std::string_view code, sign, plural;
};
constexpr auto kCurrencies =
    std::to_array<Currency>({{"USD", "$", "dollars"}, {"EUR", "€", "euros"}, {"GBP", "£", "pounds"}});

// Words that no language has: a model can only copy them. Without them it learns which words the training data holds,
// and writes one of those in place of a new one that begins like it.
std::string made_up_word(Draws& draws) {
  constexpr auto kOnsets = std::to_array<std::string_view>(
      {"b", "br", "c",  "ch", "d", "dr", "f",  "fl", "g", "gl", "h",  "j", "k", "kr", "l", "m", "n",
       "p", "pl", "qu", "r",  "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "y",  "z", ""});
  constexpr auto kVowels =
      std::to_array<std::string_view>({"a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "ie", "ou"});
  constexpr auto kCodas =
      std::to_array<std::string_view>({"n", "r", "l", "m", "nt", "rd", "sk", "g", "t", "ck", "p", "x"});
  std::string word;
  for (int syllables = draws.chance(75) ? 2 : 3; syllables > 0; --syllables) {
    word += draws.one_of(kOnsets);
    word += draws.one_of(kVowels);
    if (draws.chance(35)) word += draws.one_of(kCodas);
  }
  return word;
}

// A word of the list, or, this many times in a hundred, a made-up one.
std::string pick(std::span<const std::string_view> words, std::uint64_t made_up_percent, Draws& draws) {
  return draws.chance(made_up_percent) ? made_up_word(draws) : std::string(draws.one_of(words));
}

std::string capitalised(std::string word) {
  if (word.front() >= 'a' && word.front() <= 'z') word.front() = static_cast<char>(word.front() - 'a' + 'A');
  return word;
}

std::string_view ordinal_suffix(int day) {
  if (day >= 11 && day <= 13) return "th";
  switch (day % 10) {
    case 1: return "st";
    case 2: return "nd";
    case 3: return "rd";
    default: return "th";
  }
}

// Single things lose the plural's s where the order is made, so here the goods are written as they are.
std::string write_goods(const DemoOrder& order, Draws& draws) {
  if (order.quantity == 1 && draws.chance(70)) {
    const bool vowel = std::string_view("aeiou").find(order.item.front()) != std::string_view::npos;
    return fmt::format("{} {}", vowel ? "an" : "a", order.item);
  }
  if (order.quantity == 12 && draws.chance(40)) return fmt::format("a dozen {}", order.item);
  const auto index = static_cast<std::size_t>(order.quantity) - 1;
  if (index < kCounts.size() && draws.chance(50)) return fmt::format("{} {}", kCounts[index], order.item);
  return fmt::format("{} {}", order.quantity, order.item);
}

std::string write_total(const DemoOrder& order, const Currency& currency, Draws& draws) {
  std::string amount = fmt::format("{}", order.cents / 100);
  if (order.cents % 100 != 0 || draws.chance(30)) amount += fmt::format(".{:02}", order.cents % 100);
  switch (draws.below(4)) {
    case 0: return fmt::format("{} {}", amount, currency.plural);
    case 1: return fmt::format("{} {}", amount, currency.code);
    default: return fmt::format("{}{}", currency.sign, amount);
  }
}

std::string write_date(const DemoOrder& order, Draws& draws) {
  const std::string_view month = kMonths[static_cast<std::size_t>(order.month) - 1];
  const std::string_view suffix = ordinal_suffix(order.day);
  switch (draws.below(8)) {
    case 0: return fmt::format("{} {} {}", order.day, month, order.year);
    case 1: return fmt::format("{}{} {} {}", order.day, suffix, month, order.year);
    case 2: return fmt::format("{} {}{}, {}", month, order.day, suffix, order.year);
    case 3: return fmt::format("{} {}, {}", month.substr(0, 3), order.day, order.year);
    case 4: return fmt::format("{} {} {}", order.day, month.substr(0, 3), order.year);
    case 5: return fmt::format("{:04}-{:02}-{:02}", order.year, order.month, order.day);
    default: return fmt::format("{} {}, {}", month, order.day, order.year);
  }
}

void replace(std::string& text, std::string_view slot, std::string_view value) {
  text.replace(text.find(slot), slot.size(), value);
}

std::string write_answer(const DemoOrder& order) {
  return fmt::format(R"({{"name":"{}","qty":{},"item":"{}","total":"{}.{:02} {}","date":"{:04}-{:02}-{:02}"}})",
                     order.name, order.quantity, order.item, order.cents / 100, order.cents % 100, order.currency,
                     order.year, order.month, order.day);
}

DemoOrder draw_order(const DemoWords& words, std::uint64_t made_up_percent, const Currency& currency, Draws& draws) {
  DemoOrder order;
  // Drawn one after the other: the order of evaluation of arguments is not fixed.
  const std::string first = capitalised(pick(words.first_names, made_up_percent, draws));
  order.name = first + ' ' + capitalised(pick(words.last_names, made_up_percent, draws));
  order.quantity = draws.chance(80) ? draws.between(1, 12) : draws.between(13, 60);
  const std::string quality = pick(words.qualities, made_up_percent, draws);
  order.item = quality + ' ' + pick(words.things, made_up_percent, draws) + (order.quantity == 1 ? "" : "s");
  order.cents = 100 * draws.between(3, 980);
  if (draws.chance(60)) order.cents += draws.chance(50) ? 10 * draws.between(1, 9) : draws.between(1, 99);
  order.currency = currency.code;
  order.year = draws.between(2024, 2028);
  order.month = draws.between(1, 12);
  order.day = draws.between(1, kMonthDays[static_cast<std::size_t>(order.month) - 1]);
  return order;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace

DemoSample demo_sample(std::uint64_t seed, DemoPart part, std::uint64_t index) {
  Draws draws(seed, part, index);
  const DemoWords words = demo_words(part);
  const Currency& currency = kCurrencies[draws.below(kCurrencies.size())];

  DemoSample sample;
  sample.order = draw_order(words, part == DemoPart::kTrain ? kMadeUpPercent : 0, currency, draws);
  // Held-out parts take turns: a pattern of their own, then one of the training's with words it has never held.
  const std::size_t own_first = part == DemoPart::kTrain        ? 0
                                : part == DemoPart::kValidation ? demo_words(DemoPart::kTrain).patterns.size()
                                                                : demo_words(DemoPart::kTrain).patterns.size() +
                                                                      demo_words(DemoPart::kValidation).patterns.size();
  const bool own = part == DemoPart::kTrain || index % 2 == 0;
  const auto patterns = own ? words.patterns : demo_words(DemoPart::kTrain).patterns;
  const std::size_t chosen = draws.below(patterns.size());
  sample.pattern = (own ? own_first : 0) + chosen;

  std::string text(patterns[chosen]);
  replace(text, "{goods}", write_goods(sample.order, draws));
  replace(text, "{total}", write_total(sample.order, currency, draws));
  replace(text, "{date}", write_date(sample.order, draws));
  replace(text, "{name}", sample.order.name);
  sample.sentence = capitalised(std::move(text));
  sample.answer = write_answer(sample.order);
  return sample;
}

std::string demo_line(const DemoSample& sample) {
  using Json = nlohmann::ordered_json;
  const Json messages = Json::array({Json{{"role", "system"}, {"content", kDemoSystem}},
                                     Json{{"role", "user"}, {"content", sample.sentence}},
                                     Json{{"role", "assistant"}, {"content", sample.answer}}});
  return Json{{"messages", messages}}.dump();
}

void write_demo_data(const std::filesystem::path& folder, std::uint64_t seed, const DemoSizes& sizes) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw FileError(fmt::format("cannot make the folder: {}", error.message()), folder.string(),
                    "choose a folder that you may write to");
  }
  const auto write_part = [&](const char* name, DemoPart part, std::size_t lines) {
    std::string text;
    for (std::size_t i = 0; i < lines; ++i) text += demo_line(demo_sample(seed, part, i)) + '\n';
    write_file(folder / name, text);
  };
  write_part("train.jsonl", DemoPart::kTrain, sizes.train);
  write_part("validation.jsonl", DemoPart::kValidation, sizes.validation);
  write_part("test.jsonl", DemoPart::kTest, sizes.test);
}

bool exact_match(std::string_view expected, std::string_view got) {
  return trim(expected) == trim(got);
}

double field_accuracy(std::string_view expected, std::string_view got) {
  using Json = nlohmann::json;
  const Json wanted = Json::parse(expected, nullptr, false);
  if (!wanted.is_object() || wanted.empty()) {
    throw FormatError("the expected answer is no JSON object with fields", std::string(expected.substr(0, 80)));
  }
  const Json answer = Json::parse(got, nullptr, false);
  if (!answer.is_object()) return 0.0;
  std::size_t right = 0;
  for (const auto& [key, value] : wanted.items()) right += answer.contains(key) && answer[key] == value ? 1 : 0;
  return static_cast<double>(right) / static_cast<double>(wanted.size());
}

}  // namespace lomu
