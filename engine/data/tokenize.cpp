#include "engine/data/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/error.h"
#include "models/files/hashing.h"

namespace lomu {
namespace {

TokenRole role_of(const Message& message) {
  if (message.role == "system") return TokenRole::kSystem;
  return message.role == "user" ? TokenRole::kUser : TokenRole::kAssistant;
}

// What a layout does cannot be read from its name alone (default system lines differ by model), so conversations that
// touch each of its rules are laid out and hashed.
std::string layout_probe(const ChatFormat& chat) {
  const std::vector<Message> with_system{{"system", " s\n"}, {"user", " u\n"}, {"assistant", " a\n"}, {"user", ""}};
  const auto without_system = std::span(with_system).subspan(1);
  std::string probe(chat.name());
  for (const bool prompt : {false, true}) {
    for (const RenderedChat& chat_text : {chat.render(with_system, prompt), chat.render(without_system, prompt)}) {
      probe += chat_text.text;
      for (const auto& range : chat_text.supervised) probe += fmt::format("|{}-{}", range.begin, range.end);
    }
  }
  return probe;
}

}  // namespace

std::string_view name_of(TokenRole role) {
  constexpr auto kNames =
      std::to_array<std::string_view>({"system", "user", "assistant", "prompt", "completion", "text", "layout"});
  return kNames[static_cast<std::size_t>(role)];
}

std::uint32_t count_supervised(std::span<const std::int32_t> labels) {
  if (labels.empty()) return 0;
  const auto predicted = labels.subspan(1);
  return static_cast<std::uint32_t>(predicted.size()) -
         static_cast<std::uint32_t>(std::ranges::count(predicted, kNotSupervised));
}

RecordTokenizer::RecordTokenizer(Tokenizer tokenizer, std::optional<ChatFormat> chat, TokenizeOptions options)
    : tokenizer_(std::move(tokenizer)), chat_(std::move(chat)), options_(options) {
  if (options_.max_length < 2) {
    throw UsageError(fmt::format("a longest example of {} tokens leaves nothing to predict", options_.max_length),
                     "data.max_length", "at least 2");
  }
}

Example RecordTokenizer::chat_example(const ChatRecord& record, const std::string& where) const {
  if (!chat_) {
    throw FormatError("the record has messages, but this model has no chat layout", where,
                      "name a layout, or write records of prompt and completion, or text");
  }
  RenderedChat rendered = chat_->render(record.messages, false);
  std::erase_if(rendered.supervised, [&](const auto& range) { return range.message < record.first_completion; });
  SupervisedTokens tokens = tokenize_supervised(tokenizer_, rendered);

  Example example;
  example.ids = std::move(tokens.ids);
  example.labels = std::move(tokens.labels);
  example.roles.reserve(example.ids.size());
  for (const std::int32_t message : tokens.messages) {
    example.roles.push_back(message == kNoMessage ? TokenRole::kLayout
                                                  : role_of(record.messages[static_cast<std::size_t>(message)]));
  }
  return example;
}

Example RecordTokenizer::plain_example(std::string text, std::size_t learn_from, TokenRole before, TokenRole after,
                                       const std::string& where) const {
  const std::optional<std::int32_t> end = tokenizer_.eos();
  if (!end) {
    throw UnsupportedError("the tokenizer names no end-of-text token, which a plain text record must end with", where,
                           "set eos_token in tokenizer_config.json, or write records of messages");
  }
  Example example;
  const auto append = [&](std::int32_t id, bool learned, TokenRole role) {
    example.ids.push_back(id);
    example.labels.push_back(learned ? id : kNotSupervised);
    example.roles.push_back(role);
  };
  if (tokenizer_.adds_bos()) append(tokenizer_.bos().value(), false, TokenRole::kLayout);
  for (const TokenSpan& token : tokenizer_.encode_with_offsets(text)) {
    const bool learned = token.begin >= learn_from;
    append(token.id, learned, learned ? after : before);
  }
  if (example.ids.empty() || example.ids.back() != *end || example.labels.back() == kNotSupervised) {
    append(*end, true, after);
  }
  return example;
}

Example RecordTokenizer::tokenize(const Record& record, const std::string& where) const {
  Example example;
  try {
    if (const auto* chat = std::get_if<ChatRecord>(&record)) {
      example = chat_example(*chat, where);
    } else if (const auto* parts = std::get_if<CompletionRecord>(&record)) {
      example = plain_example(parts->prompt + parts->completion, parts->prompt.size(), TokenRole::kPrompt,
                              TokenRole::kCompletion, where);
    } else {
      example = plain_example(std::get<TextRecord>(record).text, 0, TokenRole::kText, TokenRole::kText, where);
    }
  } catch (const FormatError& error) {
    if (error.where() == where) throw;
    throw FormatError(error.what(), where, error.hint());  // the tokenizer does not know which record it was given
  }
  if (options_.train_on == TrainOn::kAll) example.labels = example.ids;
  return example;
}

std::variant<Example, Unusable> RecordTokenizer::example(const Record& record, const std::string& where) const {
  Example example = tokenize(record, where);
  const std::size_t tokens = example.ids.size();
  if (tokens > options_.max_length) {
    if (options_.too_long == TooLong::kSkip) return Unusable{Unusable::Reason::kTooLong, tokens};
    if (options_.too_long == TooLong::kStop) {
      throw FormatError(fmt::format("the record has {} tokens, at most {} are allowed", tokens, options_.max_length),
                        where, "raise data.max_length, or set data.too_long to skip or truncate");
    }
    example.cut = tokens - options_.max_length;
    example.ids.resize(options_.max_length);
    example.labels.resize(options_.max_length);
    example.roles.resize(options_.max_length);
  }
  if (count_supervised(example.labels) == 0) return Unusable{Unusable::Reason::kNothingToLearn, tokens};
  return example;
}

std::vector<Example> RecordTokenizer::windows(std::string_view text) const {
  constexpr std::size_t kShortest = 2;  // one token to learn from, one to learn
  const std::vector<std::int32_t> ids = tokenizer_.encode(text);
  std::vector<Example> examples;
  for (std::size_t first = 0; first + kShortest <= ids.size(); first += options_.max_length) {
    const std::size_t end = std::min(ids.size(), first + options_.max_length);
    Example& example = examples.emplace_back();
    example.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.begin() + static_cast<std::ptrdiff_t>(end));
    example.labels = example.ids;
    example.roles.assign(example.ids.size(), TokenRole::kText);
  }
  return examples;
}

std::uint64_t RecordTokenizer::fingerprint() const {
  FastHash hash;
  hash.add(tokenizer_.fingerprint());
  hash.add(std::uint64_t{tokenizer_.adds_bos()});
  hash.add(static_cast<std::uint64_t>(static_cast<std::int64_t>(tokenizer_.eos().value_or(-1))));
  hash.add(chat_ ? std::string_view(layout_probe(*chat_)) : std::string_view());
  hash.add(std::uint64_t{chat_.has_value()});
  hash.add(static_cast<std::uint64_t>(options_.train_on));
  hash.add(std::uint64_t{options_.max_length});
  hash.add(static_cast<std::uint64_t>(options_.too_long));
  return hash.value();
}

}  // namespace lomu
