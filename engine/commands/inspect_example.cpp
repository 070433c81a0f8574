#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/commands/inspect_views.h"
#include "engine/config/load.h"
#include "engine/data/lines.h"
#include "engine/data/tokenize.h"
#include "engine/train/job_options.h"
#include "kernels/error.h"

namespace lomu {
namespace {

struct Found {
  std::string where;  ///< "PATH:LINE"
  Record record;
};

Found find_record(const config::TrainConfig& config, std::int64_t index) {
  std::int64_t seen = 0;
  for (const auto& source : config.data.train) {
    const MappedFile file(source);
    LineReader lines(file);
    while (const auto line = lines.next()) {
      if (is_blank(line->text)) continue;
      if (seen++ < index) continue;
      std::string where = fmt::format("{}:{}", source.string(), line->number);
      Record record = parse_record(line->text, where);
      return {std::move(where), std::move(record)};
    }
  }
  throw UsageError(fmt::format("there is no record {}: the training data has {}", index, seen), "--index",
                   "records are counted from 0");
}

/// Length of the well-formed UTF-8 character at the start of `text`; 0 if there is none.
std::size_t character_at(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const std::size_t length = first < 0x80   ? 1
                             : first < 0xc2 ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool beyond = (first == 0xed && byte(1) > 0x9f) || (first == 0xf4 && byte(1) > 0x8f);
  return overlong || beyond ? 0 : length;
}

/// In quotes, on one line: what a terminal would act on, and bytes that are part of a character, are spelled out.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = character_at(text);
    const auto first = static_cast<unsigned char>(text.front());
    // U+0080 to U+009F are control characters too.
    const bool control =
        first < 0x20 || first == 0x7f || (length == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    if (first == '\n')
      out += "\\n";
    else if (first == '\t')
      out += "\\t";
    else if (first == '"' || first == '\\')
      out += {'\\', text.front()};
    else if (length == 0 || control)
      out += fmt::format("\\x{:02x}", first);
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 || control ? 1 : length);
  }
  return out + "\"";
}

/// What training does with this record; empty if it simply learns it.
std::string fate_of(const Example& example, const TokenizeOptions& options) {
  std::string fate;
  if (example.ids.size() > options.max_length) {
    const char* action = options.too_long == TooLong::kSkip   ? "is skipped"
                         : options.too_long == TooLong::kStop ? "stops the run"
                                                              : "is cut";
    fate = fmt::format("longer than data.max_length ({}): it {}", options.max_length, action);
  } else if (count_supervised(example.labels) == 0) {
    fate = "nothing in it is learned: it is left out";
  }
  return fate;
}

std::string json_of(const std::string& where, const Example& example, const Tokenizer& tokenizer,
                    const std::string& fate) {
  nlohmann::ordered_json json;
  json["where"] = where;
  json["note"] = fate;
  json["tokens"] = nlohmann::ordered_json::array();
  for (std::size_t t = 0; t < example.ids.size(); ++t) {
    json["tokens"].push_back({{"id", example.ids[t]},
                              {"text", std::string(tokenizer.bytes_of(example.ids[t]))},
                              {"role", name_of(example.roles[t])},
                              {"supervised", example.labels[t] != kNotSupervised}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string text_of(const std::string& where, const Example& example, const Tokenizer& tokenizer,
                    const std::string& fate, const Style& style) {
  std::string text = fmt::format("{}\n  {} tokens, {} learned ({})\n", style.bold(where), example.ids.size(),
                                 count_supervised(example.labels), style.colour() ? "green" : "marked *");
  if (!fate.empty()) text += fmt::format("  {}\n", style.yellow(fate));
  text += style.bold(fmt::format("\n  {:>5} {:>7}  {:<10}   {}", "place", "id", "role", "text")) + "\n";
  for (std::size_t t = 0; t < example.ids.size(); ++t) {
    const bool learned = example.labels[t] != kNotSupervised;
    const std::string token = quoted(tokenizer.bytes_of(example.ids[t]));
    text += fmt::format("  {:>5} {:>7}  {:<10} {} {}\n", t, example.ids[t], name_of(example.roles[t]),
                        learned && !style.colour() ? '*' : ' ', learned ? style.green(token) : style.dim(token));
  }
  return text;
}

}  // namespace

std::string view_example(const std::filesystem::path& file, std::int64_t index, const ViewOptions& options) {
  const config::TrainConfig config = config::load_config(file);
  const Found found = find_record(config, index);
  const Tokenizer tokenizer = Tokenizer::load(config.model.path);
  const TokenizeOptions tokenize = tokenize_options(config);
  const RecordTokenizer records(tokenizer, chat_format(config, tokenizer), tokenize);
  const Example example = records.tokenize(found.record, found.where);
  const std::string fate = fate_of(example, tokenize);
  return options.json ? json_of(found.where, example, tokenizer, fate)
                      : text_of(found.where, example, tokenizer, fate, options.style);
}

}  // namespace lomu
