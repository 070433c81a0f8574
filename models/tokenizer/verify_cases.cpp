#include "models/tokenizer/verify_cases.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <string_view>

#include "kernels/error.h"
#include "models/files/json_value.h"
#include "models/files/mapped_file.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

constexpr std::size_t kExcerpt = 8;  // entries or characters shown from a little before the first difference

template <class Sequence>
std::size_t excerpt_begin(const Sequence& got, const Sequence& expected) {
  const auto difference = static_cast<std::size_t>(
      std::mismatch(got.begin(), got.end(), expected.begin(), expected.end()).first - got.begin());
  return difference - std::min<std::size_t>(difference, 2);
}

std::string excerpt(const std::vector<std::int32_t>& ids, std::size_t begin) {
  begin = std::min(begin, ids.size());
  const std::size_t end = std::min(ids.size(), begin + kExcerpt);
  return fmt::format(
      "{}[{}]{}", begin > 0 ? "... " : "",
      fmt::join(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end), ", "),
      end < ids.size() ? " ..." : "");
}

std::string excerpt(const std::string& text, std::size_t begin) {
  begin = std::min(begin, text.size());
  const bool cut = begin + 6 * kExcerpt < text.size();
  return fmt::format("{}\"{}\"{}", begin > 0 ? "... " : "", utf8_repair(text.substr(begin, 6 * kExcerpt)),
                     cut ? " ..." : "");
}

template <class Sequence>
TokenizerCheck compare(std::string name, std::string quantity, const Sequence& got, const Sequence& expected) {
  TokenizerCheck check{std::move(name), std::move(quantity), got == expected, {}, {}};
  if (check.pass) return check;
  const std::size_t begin = excerpt_begin(got, expected);
  check.got = excerpt(got, begin);
  check.expected = excerpt(expected, begin);
  return check;
}

void check_line(const Tokenizer& tokenizer, std::string_view line, std::size_t number, const std::string& where,
                std::vector<TokenizerCheck>& checks) {
  const JsonValue value = parse_json(line, where);
  const JsonFields fields(value, where);
  const auto text = fields.string("text");
  if (!text) fields.wrong("text", "a string");
  const auto listed = fields.integers("ids");
  if (!listed) fields.wrong("ids", "a list of integers");
  std::vector<std::int32_t> expected;
  for (const std::int64_t id : *listed) {
    if (id < 0 || id > INT32_MAX) fields.wrong("ids", "a list of ids");
    expected.push_back(static_cast<std::int32_t>(id));
  }
  const std::string name = fmt::format("{}:{}", fields.string("kind").value_or("case"), number);
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(false);
  checks.push_back(compare(name, "ids", tokenizer.encode(*text, add_special_tokens), expected));
  const auto decoded = fields.string("decoded");
  if (!decoded || fields.boolean("lossy").value_or(false)) return;
  checks.push_back(compare(name, "decoded", tokenizer.decode(expected), *decoded));
}

}  // namespace

std::vector<TokenizerCheck> verify_tokenizer_cases(const Tokenizer& tokenizer, const std::filesystem::path& cases) {
  const MappedFile file(cases);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  std::vector<TokenizerCheck> checks;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    check_line(tokenizer, line, number, fmt::format("{}:{}", cases.string(), number), checks);
  }
  if (checks.empty()) throw FormatError("the file holds no cases", cases.string());
  return checks;
}

std::vector<TokenizerCheck> verify_tokenizer_folder(const std::filesystem::path& folder) {
  return verify_tokenizer_cases(Tokenizer::load(folder), folder / "cases.jsonl");
}

}  // namespace lomu
