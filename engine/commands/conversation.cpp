#include "engine/commands/conversation.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

#include "engine/data/records.h"
#include "engine/session/text_generator.h"
#include "kernels/error.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

bool needs_chat(const GenerateOptions& options) {
  return options.system.has_value() || !options.messages.empty();
}

}  // namespace

PromptFormat::PromptFormat(const ModelSession& session, const GenerateOptions& options) : session_(session) {
  if (options.raw) return;
  try {
    chat_ = ChatFormat::choose(session.tokenizer(), "auto");
  } catch (const UnsupportedError& error) {
    if (needs_chat(options)) throw;
    note_ = fmt::format("plain text: {}", error.what());
  }
}

Prompt PromptFormat::of_messages(const std::vector<Message>& messages) const {
  Prompt prompt{session_.tokenizer().encode(chat_->render(messages, true).text), chat_->stop_ids()};
  const auto more = plain_stop_ids(session_);
  prompt.stop_ids.insert(prompt.stop_ids.end(), more.begin(), more.end());
  return prompt;
}

Prompt PromptFormat::of_text(const std::string& text) const {
  return {session_.tokenizer().encode(text, true), plain_stop_ids(session_)};
}

std::vector<Message> read_messages(const std::filesystem::path& path) {
  const MappedFile file(path);
  std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') text = fmt::format("{{\"messages\": {}}}", text);
  Record record = parse_record(text, path.string());
  auto* chat = std::get_if<ChatRecord>(&record);
  if (chat == nullptr) {
    throw FormatError("this holds no messages", path.string(), "a list of {\"role\": ..., \"content\": ...}");
  }
  if (chat->messages.back().role == "assistant") chat->messages.pop_back();
  if (chat->messages.empty()) throw FormatError("there is nothing to answer", path.string());
  return std::move(chat->messages);
}

void add_system(std::vector<Message>& messages, const std::optional<std::string>& system, const std::string& where) {
  if (!system) return;
  if (!messages.empty() && messages.front().role == "system") {
    throw UsageError("the messages have a system turn already", where, "leave out --system");
  }
  messages.insert(messages.begin(), {"system", *system});
}

}  // namespace lomu
