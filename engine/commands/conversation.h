// A conversation as `generate` holds it: messages, laid out for the model as chat, or plain text where that is asked
// for or all the model knows. It reads no terminal and prints nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/commands/generate.h"
#include "engine/session/model_session.h"
#include "models/tokenizer/chat.h"

namespace lomu {

/// Tokens to continue, and those that end the answer.
struct Prompt {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> stop_ids;
};

class PromptFormat {
 public:
  /// The chat layout that the model's tokenizer speaks, or plain text: with options.raw, and where the model has no
  /// layout and the options do not need one; note() then says so. Throws UnsupportedError where they do.
  PromptFormat(const ModelSession& session, const GenerateOptions& options);

  [[nodiscard]] bool chat() const { return chat_.has_value(); }
  [[nodiscard]] const std::string& note() const { return note_; }

  /// The assistant's turn is opened at the end. Only with chat().
  [[nodiscard]] Prompt of_messages(const std::vector<Message>& messages) const;
  /// Text as it is, with the beginning-of-text token of tokenizers that add one.
  [[nodiscard]] Prompt of_text(const std::string& text) const;

 private:
  const ModelSession& session_;
  std::optional<ChatFormat> chat_;
  std::string note_;
};

/// Reads a JSON list of {role, content}, or a record with `messages`; an answer at its end is left out. Throws
/// FileError, FormatError.
std::vector<Message> read_messages(const std::filesystem::path& path);

/// Puts the system turn of the command line in front. Throws UsageError when the messages begin with another one.
void add_system(std::vector<Message>& messages, const std::optional<std::string>& system, const std::string& where);

}  // namespace lomu
