#include "models/tokenizer/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Writes a conversation and notes what is where.
class ChatWriter {
 public:
  void write(std::string_view text) { chat_.text += text; }

  /// `header`, `body` and `end` of message i, then `after`. What the assistant says and its end are supervised.
  void message(std::size_t i, bool supervised, std::string_view header, std::string_view body, std::string_view end,
               std::string_view after) {
    const std::size_t begin = chat_.text.size();
    write(header);
    const std::size_t body_begin = chat_.text.size();
    write(body);
    write(end);
    if (supervised) chat_.supervised.push_back({body_begin, chat_.text.size(), i});
    write(after);
    chat_.messages.push_back({begin, chat_.text.size(), i});
  }

  RenderedChat take() { return std::move(chat_); }

 private:
  RenderedChat chat_;
};

// What Python's str.strip (Jinja's trim) removes: white space, and the separators U+001C to U+001F.
bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string trimmed(std::string_view text) {
  const std::string valid = utf8_repair(text);
  std::size_t begin = valid.size();
  std::size_t end = 0;
  for (std::size_t at = 0, size = 0; at < valid.size(); at += size) {
    if (is_python_space(utf8_decode(std::string_view(valid).substr(at), size))) continue;
    begin = std::min(begin, at);
    end = at + size;
  }
  return begin < end ? valid.substr(begin, end - begin) : std::string();
}

// <|im_start|>role\ncontent<|im_end|>\n
class ChatMl : public ChatLayout {
 public:
  explicit ChatMl(std::string default_system) : default_system_(std::move(default_system)) {}

  [[nodiscard]] std::string_view name() const override { return "chatml"; }
  [[nodiscard]] std::string_view end_of_turn() const override { return "<|im_end|>"; }

  [[nodiscard]] RenderedChat render(std::span<const Message> messages, bool add_generation_prompt) const override {
    ChatWriter writer;
    if (!default_system_.empty() && (messages.empty() || messages[0].role != "system")) {
      writer.write(fmt::format("<|im_start|>system\n{}<|im_end|>\n", default_system_));
    }
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto& [role, content] = messages[i];
      writer.message(i, role == "assistant", fmt::format("<|im_start|>{}\n", role), content, end_of_turn(), "\n");
    }
    if (add_generation_prompt) writer.write("<|im_start|>assistant\n");
    return writer.take();
  }

 private:
  std::string default_system_;
};

// <|begin_of_text|> and then <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, contents trimmed. That is
// Llama 3's own template; those of 3.1 and 3.2 put a system header with dates in front, which this layout does not.
class Llama3 : public ChatLayout {
 public:
  [[nodiscard]] std::string_view name() const override { return "llama3"; }
  [[nodiscard]] std::string_view end_of_turn() const override { return "<|eot_id|>"; }

  [[nodiscard]] RenderedChat render(std::span<const Message> messages, bool add_generation_prompt) const override {
    ChatWriter writer;
    writer.write("<|begin_of_text|>");
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto& [role, content] = messages[i];
      writer.message(i, role == "assistant", header(role), trimmed(content), end_of_turn(), "");
    }
    if (add_generation_prompt) writer.write(header("assistant"));
    return writer.take();
  }

 private:
  static std::string header(std::string_view role) {
    return fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role);
  }
};

bool has_tokens(const Tokenizer& tokenizer, std::span<const std::string_view> tokens) {
  return std::all_of(tokens.begin(), tokens.end(), [&](std::string_view t) { return tokenizer.id_of(t).has_value(); });
}

constexpr std::array<std::string_view, 2> kChatMlTokens = {"<|im_start|>", "<|im_end|>"};
constexpr std::array<std::string_view, 4> kLlama3Tokens = {"<|begin_of_text|>", "<|start_header_id|>",
                                                           "<|end_header_id|>", "<|eot_id|>"};

// The system line a ChatML template writes when the conversation has none of its own: literal text between
// "<|im_start|>system\n" and "<|im_end|>". Templates spell the newline as itself or as "\n". The same header followed
// by anything computed (a quote that closes the literal) is the line of the conversation itself.
std::string default_system_of(std::string_view chat_template) {
  constexpr std::string_view kHeader = "<|im_start|>system";
  for (std::size_t at = chat_template.find(kHeader); at != std::string_view::npos;
       at = chat_template.find(kHeader, at + 1)) {
    std::string_view rest = chat_template.substr(at + kHeader.size());
    if (rest.starts_with("\n")) {
      rest.remove_prefix(1);
    } else if (rest.starts_with("\\n")) {
      rest.remove_prefix(2);
    } else {
      continue;
    }
    const std::string_view line = rest.substr(0, rest.find("<|im_end|>"));
    if (line.size() == rest.size() || line.empty()) continue;
    if (line.find_first_of("'\"{}\\") != std::string_view::npos) continue;
    return std::string(line);
  }
  return {};
}

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
    layout = std::make_shared<ChatMl>(default_system_of(tokenizer.chat_template()));
  } else if (chosen == "llama3") {
    require_tokens(tokenizer, kLlama3Tokens, chosen);
    layout = std::make_shared<Llama3>();
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
