#include "engine/report/sample_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "engine/data/dataset_builder.h"
#include "engine/data/lines.h"
#include "engine/data/packing.h"
#include "engine/data/records.h"
#include "engine/data/tokenize.h"
#include "engine/train/job_options.h"
#include "kernels/error.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// Tokens of a prompt that the page shows: its end says what is asked for.
constexpr std::size_t kShownTokens = 256;

/// Some examples of a run, in the order of its data.
struct Chosen {
  std::string source;
  std::vector<fs::path> files;
  std::vector<Dataset> data;            ///< of each file
  std::vector<std::uint32_t> examples;  ///< counted through all data sets, ascending
};

Dataset open_data(const config::TrainConfig& config, const fs::path& source, const RecordTokenizer& tokenizer) {
  std::error_code error;
  if (!fs::exists(source, error)) {
    throw FileError("the run's data is not there any more", source.string(), hint_for_lost_path(source));
  }
  const DataOptions options = data_options(config, source);
  return open_or_build(locate_dataset(config.data.cache_dir, options, tokenizer), options, tokenizer);
}

Chosen choose(const config::TrainConfig& config, const RecordTokenizer& tokenizer, std::size_t count) {
  const config::DataConfig& data = config.data;
  const bool split = data.validation_split.has_value();
  Chosen chosen;
  std::size_t total = 0;
  for (const fs::path& source : data.validation.empty() ? data.train : std::vector{data.validation}) {
    chosen.files.push_back(source);
    chosen.data.push_back(open_data(config, source, tokenizer));
    total += chosen.data.back().size();
    if (!split && total >= count) break;
  }
  if (split) {
    chosen.examples = split_validation(static_cast<std::uint32_t>(total), *data.validation_split,
                                       static_cast<std::uint64_t>(config.training.seed))
                          .validation;
  } else {
    chosen.examples.resize(total);
    std::iota(chosen.examples.begin(), chosen.examples.end(), 0u);
  }
  chosen.examples.resize(std::min(count, chosen.examples.size()));

  const char* kind = split                     ? "that the run held out of its training data"
                     : data.validation.empty() ? "of the run's training data, for it has no validation data"
                                               : "of the run's validation data";
  std::string names;
  for (const fs::path& file : chosen.files) names += fmt::format("{}{}", names.empty() ? "" : ", ", file.string());
  chosen.source = fmt::format("The first {} examples {}: {}.", chosen.examples.size(), kind, names);
  return chosen;
}

Record record_at(const fs::path& source, std::uint64_t number, const std::string& where) {
  const MappedFile file(source);
  LineReader lines(file);
  std::optional<Line> line = lines.next();
  while (line && line->number < number) line = lines.next();
  if (!line) throw FileError("the file has become shorter while it was read", where);
  return parse_record(line->text, where);
}

/// The example with the labels of an answer, whatever the run learned from.
Example example_at(const fs::path& source, const Dataset& data, std::size_t index, const RecordTokenizer& answers,
                   std::size_t max_length) {
  Example example;
  if (is_plain_text(source)) {
    example.ids.assign(data.ids(index).begin(), data.ids(index).end());
    example.labels = example.ids;
    return example;
  }
  const std::string where = fmt::format("{}:{}", source.string(), data.line(index));
  example = answers.tokenize(record_at(source, data.line(index), where), where);
  const std::size_t length = std::min(example.ids.size(), max_length);  // data.too_long: truncate
  example.ids.resize(length);
  example.labels.resize(length);
  return example;
}

/// Where the answer begins and ends: the last tokens in a row that are learned.
std::pair<std::size_t, std::size_t> answer_in(const Example& example, bool begins_with_bos) {
  const auto learned = [&](std::size_t t) { return example.labels[t] != kNotSupervised; };
  std::size_t end = example.labels.size();
  while (end > 0 && !learned(end - 1)) --end;
  std::size_t begin = end;
  while (begin > 0 && learned(begin - 1)) --begin;
  if (end == 0) end = example.ids.size();
  const std::size_t nothing = begins_with_bos ? 1 : 0;
  if (begin <= nothing) begin = std::max<std::size_t>(1, end / 4);
  return {begin, end};
}

}  // namespace

std::string hint_for_lost_path(const fs::path& path) {
  return path.is_relative() ? "the path is meant from the folder where the run was started: call lomu report there"
                            : "put it back at this path";
}

SamplePrompts sample_prompts(const config::TrainConfig& config, const Tokenizer& tokenizer, std::size_t count,
                             std::size_t tokens) {
  const std::optional<ChatFormat> chat = chat_format(config, tokenizer);
  TokenizeOptions options = tokenize_options(config);
  const Chosen chosen = choose(config, RecordTokenizer(tokenizer, chat, options), count);
  options.train_on = TrainOn::kAnswers;
  const RecordTokenizer answers(tokenizer, chat, options);

  SamplePrompts samples{chosen.source, {}};
  std::size_t file = 0;
  std::size_t before = 0;  // examples of the files before it
  for (const std::uint32_t number : chosen.examples) {
    while (number - before >= chosen.data[file].size()) before += chosen.data[file++].size();
    const Example example =
        example_at(chosen.files[file], chosen.data[file], number - before, answers, options.max_length);
    const auto [begin, end] = answer_in(example, tokenizer.adds_bos());
    const std::span<const std::int32_t> ids(example.ids);
    const auto prompt = ids.first(begin);
    const auto wanted = ids.subspan(begin, end - begin);
    SamplePrompt& sample = samples.prompts.emplace_back();
    sample.ids.assign(prompt.begin(), prompt.end());
    if (chat) sample.stop_ids = chat->stop_ids();
    sample.shown = tokenizer.decode(prompt.last(std::min(prompt.size(), kShownTokens)));
    if (prompt.size() > kShownTokens) sample.shown = "... " + sample.shown;
    sample.wanted = tokenizer.decode(wanted.first(std::min(wanted.size(), tokens)), true);
    if (wanted.size() > tokens) sample.wanted += " ...";
  }
  return samples;
}

}  // namespace lomu
