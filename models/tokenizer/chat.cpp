#include "models/tokenizer/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/error.h"
#include "models/tokenizer/chat_layouts.h"

namespace lomu {
namespace {

bool has_tokens(const Tokenizer& tokenizer, std::span<const std::string_view> tokens) {
  return std::all_of(tokens.begin(), tokens.end(), [&](std::string_view t) { return tokenizer.id_of(t).has_value(); });
}

constexpr std::array<std::string_view, 2> kChatMlTokens = {"<|im_start|>", "<|im_end|>"};
constexpr std::array<std::string_view, 4> kLlama3Tokens = {"<|begin_of_text|>", "<|start_header_id|>",
                                                           "<|end_header_id|>", "<|eot_id|>"};

std::string missing_tokens(const Tokenizer& tokenizer, std::span<const std::string_view> tokens) {
  std::string missing;
  for (const std::string_view token : tokens) {
    if (!tokenizer.id_of(token)) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", token);
  }
  return missing;
}

void require_tokens(const Tokenizer& tokenizer, std::span<const std::string_view> tokens, std::string_view layout) {
  if (has_tokens(tokenizer, tokens)) return;
  throw UsageError(
      fmt::format("the chat layout \"{}\" needs tokens the model lacks: {}", layout, missing_tokens(tokenizer, tokens)),
      {}, "choose the layout the model was trained with, or records of prompt and completion");
}

// "chatml" or "llama3", by the template if the model has one, else by its tokens.
std::string_view recognise(const Tokenizer& tokenizer) {
  const std::string_view source = tokenizer.chat_template();
  const auto fits = [&](std::span<const std::string_view> tokens, std::string_view mark) {
    return has_tokens(tokenizer, tokens) && (source.empty() || source.find(mark) != std::string_view::npos);
  };
  if (fits(kChatMlTokens, "<|im_start|>")) return "chatml";
  if (fits(kLlama3Tokens, "<|start_header_id|>")) return "llama3";
  throw UnsupportedError(fmt::format("no built-in chat layout fits this model: chatml lacks {}; llama3 lacks {}",
                                     has_tokens(tokenizer, kChatMlTokens) ? "its mark in the chat template"
                                                                          : missing_tokens(tokenizer, kChatMlTokens),
                                     has_tokens(tokenizer, kLlama3Tokens) ? "its mark in the chat template"
                                                                          : missing_tokens(tokenizer, kLlama3Tokens)),
                         {}, "use records of prompt and completion, or name a layout whose tokens the model has");
}

}  // namespace

ChatFormat ChatFormat::choose(const Tokenizer& tokenizer, std::string_view name) {
  const std::string_view chosen = name == "auto" ? recognise(tokenizer) : name;
  std::shared_ptr<const ChatLayout> layout;
  if (chosen == "chatml") {
    require_tokens(tokenizer, kChatMlTokens, chosen);
    layout = make_chatml(tokenizer.chat_template());
  } else if (chosen == "llama3") {
    require_tokens(tokenizer, kLlama3Tokens, chosen);
    layout = make_llama3();
  } else {
    throw UsageError(fmt::format("there is no chat layout \"{}\"", name), {}, "choose auto, chatml or llama3");
  }
  std::vector<std::int32_t> stop_ids = {*tokenizer.id_of(layout->end_of_turn())};
  if (const auto eos = tokenizer.eos(); eos && *eos != stop_ids[0]) stop_ids.push_back(*eos);
  return {std::move(layout), std::move(stop_ids)};
}

RenderedChat ChatFormat::render(std::span<const Message> messages, bool add_generation_prompt) const {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role.empty()) throw UsageError(fmt::format("message {} of the conversation has no role", i));
  }
  return layout_->render(messages, add_generation_prompt);
}

SupervisedTokens tokenize_supervised(const Tokenizer& tokenizer, const RenderedChat& chat) {
  SupervisedTokens result;
  // Ranges and tokens both go forward: the range that could hold a position is the first one that ends after it.
  const auto advance = [](const std::vector<RenderedChat::Range>& ranges, std::size_t& i, std::size_t at) {
    while (i < ranges.size() && ranges[i].end <= at) ++i;
    return i < ranges.size() && ranges[i].begin <= at;
  };
  std::size_t supervised = 0;
  std::size_t message = 0;
  for (const TokenSpan& token : tokenizer.encode_with_offsets(chat.text)) {
    result.ids.push_back(token.id);
    result.labels.push_back(advance(chat.supervised, supervised, token.begin) ? token.id : kNotSupervised);
    const bool inside = advance(chat.messages, message, token.begin);
    result.messages.push_back(inside ? static_cast<std::int32_t>(chat.messages[message].message) : kNoMessage);
  }
  return result;
}

}  // namespace lomu
