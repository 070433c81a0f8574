// One training record as written in a JSONL file, in the forms that Hugging Face's TRL reads:
//
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
//   {"prompt": "...", "completion": "..."}            or both as lists of messages
//   {"text": "..."}
//
// Parsing alone: what is supervised, and tokens, are the matter of tokenize.h. Whatever would change the meaning of a
// record and is not implemented (tool calls, images, message weights) is refused by name; other keys are ignored.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/tokenizer/chat.h"

namespace lomu {

/// A conversation. Assistant turns from message `first_completion` on are what is to be learned: 0 for `messages`, the
/// number of the prompt's messages when the record had prompt and completion.
struct ChatRecord {
  std::vector<Message> messages;
  std::size_t first_completion = 0;
};

/// Plain text in two parts, joined as they are; only the second is to be learned.
struct CompletionRecord {
  std::string prompt;
  std::string completion;
};

/// Plain text, all of it to be learned.
struct TextRecord {
  std::string text;
};

using Record = std::variant<ChatRecord, CompletionRecord, TextRecord>;

/// Parses one line. Throws FormatError: `where` is "PATH:LINE", with ":COLUMN" (in bytes, from 1) where the JSON itself
/// is broken; what() says what was expected and what was found. Refused: invalid JSON or UTF-8, anything after the
/// object, a key twice in one object, none or several of the three forms, roles other than system, user, assistant,
/// content that is no string, and a conversation without messages.
Record parse_record(std::string_view line, const std::string& where);

}  // namespace lomu
