#include "models/tokenizer/chat_layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Writes a conversation and notes what is where.
class ChatWriter {
 public:
  void write(std::string_view text) { chat_.text += text; }

  // `header`, `body` and `end` of message i, then `after`. What the assistant says and its end are supervised.
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

std::string_view strip_left(std::string_view text, char c) {
  return text.substr(std::min(text.find_first_not_of(c), text.size()));
}

std::string_view strip_right(std::string_view text, char c) {
  return text.substr(0, text.find_last_not_of(c) + 1);
}

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

// What Qwen3's template makes of an assistant's content: thoughts apart from the answer, in a block of their own after
// the last question (where the last message has one even when it is empty), and dropped before it.
class ThinkingBlocks {
 public:
  explicit ThinkingBlocks(std::span<const Message> messages) : messages_(messages) {
    for (std::size_t i = messages.size(); i-- > 0;) {
      const Message& message = messages[i];
      const bool tool_response =
          message.content.starts_with("<tool_response>") && message.content.ends_with("</tool_response>");
      if (message.role != "user" || tool_response) continue;
      after_last_question_ = i + 1;
      return;
    }
    after_last_question_ = messages.size();
  }

  [[nodiscard]] std::string content(std::size_t i) const {
    const std::string_view whole = messages_[i].content;
    std::string_view answer = whole;
    std::string_view thoughts;
    if (const std::size_t first = whole.find(kClose); first != std::string_view::npos) {
      answer = strip_left(whole.substr(whole.rfind(kClose) + kClose.size()), '\n');
      thoughts = strip_right(whole.substr(0, first), '\n');
      if (const std::size_t open = thoughts.rfind(kOpen); open != std::string_view::npos) {
        thoughts.remove_prefix(open + kOpen.size());
      }
      thoughts = strip_left(thoughts, '\n');
    }
    const bool last = i + 1 == messages_.size();
    if (i < after_last_question_ || (!last && thoughts.empty())) return std::string(answer);
    return fmt::format("{}\n{}\n{}\n\n{}", kOpen, strip_right(thoughts, '\n'), kClose, strip_left(answer, '\n'));
  }

 private:
  static constexpr std::string_view kOpen = "<think>";
  static constexpr std::string_view kClose = "</think>";

  std::span<const Message> messages_;
  std::size_t after_last_question_ = 0;
};

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

class ChatMl : public ChatLayout {
 public:
  explicit ChatMl(std::string_view chat_template)
      : default_system_(default_system_of(chat_template)),
        thinks_(chat_template.find("loop.last or (not loop.last and reasoning_content)") != std::string_view::npos) {}

  [[nodiscard]] std::string_view name() const override { return "chatml"; }
  [[nodiscard]] std::string_view end_of_turn() const override { return "<|im_end|>"; }

  [[nodiscard]] RenderedChat render(std::span<const Message> messages, bool add_generation_prompt) const override {
    ChatWriter writer;
    if (!default_system_.empty() && (messages.empty() || messages[0].role != "system")) {
      writer.write(fmt::format("<|im_start|>system\n{}<|im_end|>\n", default_system_));
    }
    const ThinkingBlocks thinking(messages);
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto& [role, content] = messages[i];
      const bool assistant = role == "assistant";
      const std::string body = assistant && thinks_ ? thinking.content(i) : content;
      writer.message(i, assistant, fmt::format("<|im_start|>{}\n", role), body, end_of_turn(), "\n");
    }
    if (add_generation_prompt) writer.write("<|im_start|>assistant\n");
    return writer.take();
  }

 private:
  std::string default_system_;
  bool thinks_;
};

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

}  // namespace

std::shared_ptr<const ChatLayout> make_chatml(std::string_view chat_template) {
  return std::make_shared<ChatMl>(chat_template);
}

std::shared_ptr<const ChatLayout> make_llama3() {
  return std::make_shared<Llama3>();
}

}  // namespace lomu
