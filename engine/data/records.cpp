#include "engine/data/records.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "kernels/error.h"

namespace lomu {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxDepth = 64;       // records are flat; deeper nesting is an attack or a mistake
constexpr std::size_t kMostKeysNamed = 12;  // in a message
constexpr const char* kFormsHint =
    R"(one of {"messages": [...]}, {"prompt": ..., "completion": ...} or {"text": ...} on each line)";

// Keys of a message that say how it is rendered or trained: to ignore them would be to train something else.
constexpr auto kRefusedKeys = std::to_array<std::string_view>(
    {"tool_calls", "tool_call_id", "function_call", "reasoning_content", "thinking", "images", "audio"});

// A key or value of the record as it may stand in a message: short, and without bytes that a terminal would act on.
std::string printable(std::string_view value, std::size_t longest = 40) {
  std::string text(value.substr(0, longest));
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) c = '?';
  }
  return value.size() > longest ? text + "..." : text;
}

/// Watches the parser for what a finished value no longer shows.
class Strictness {
 public:
  explicit Strictness(const std::string& where) : where_(where) {}

  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (static_cast<std::size_t>(depth) >= kMaxDepth) {
        throw FormatError(fmt::format("the record nests deeper than {} levels", kMaxDepth), where_, kFormsHint);
      }
      if (event == Event::object_start) keys_.emplace_back();
    } else if (event == Event::object_end) {
      keys_.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) {
        throw FormatError(fmt::format("the key \"{}\" stands twice in one object", printable(key)), where_,
                          "remove one of them");
      }
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects being read, outermost first
};

std::string kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "a boolean";
    case Json::value_t::string: return "a string";
    case Json::value_t::array: return "a list";
    case Json::value_t::object: return "an object";
    default: return "a number";
  }
}

std::string keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    if (keys.size() == kMostKeysNamed) {
      keys.emplace_back("...");
      break;
    }
    keys.push_back(printable(key));
  }
  return keys.empty() ? "no keys" : fmt::format("{}", fmt::join(keys, ", "));
}

// nlohmann's messages begin with "[json.exception.parse_error.101] parse error at line 1, column 5: ".
std::string reason_of(const Json::parse_error& error) {
  const std::string_view what = error.what();
  const std::size_t position = what.find("column ");
  const std::size_t colon = position == std::string_view::npos ? position : what.find(": ", position);
  if (colon == std::string_view::npos) return std::string(what);
  constexpr std::size_t kLongest = 160;  // it quotes what it read last, which may be a whole text
  const std::string_view reason = what.substr(colon + 2);
  if (reason.size() <= kLongest) return printable(reason, kLongest);
  return printable(reason, kLongest / 2) + printable(reason.substr(reason.size() - kLongest / 2), kLongest);
}

Json parse_object(std::string_view line, const std::string& where) {
  const std::size_t first = line.find_first_not_of(" \t");
  if (first != std::string_view::npos && line[first] == '[') {
    throw FormatError("expected one JSON object on the line, found a list", where,
                      "a file that is one JSON list becomes JSONL with: jq -c '.[]' old.json > new.jsonl");
  }
  // The parser takes a NUL byte for the end of its input and would not see what follows.
  if (const std::size_t nul = line.find('\0'); nul != std::string_view::npos) {
    throw FormatError("invalid JSON: a NUL byte", fmt::format("{}:{}", where, nul + 1),
                      "the file may be damaged, or be no text file");
  }
  Json value;
  try {
    value = Json::parse(line, Strictness(where));
  } catch (const Json::parse_error& error) {
    const bool cut = error.byte > line.size();
    throw FormatError(fmt::format("invalid JSON: {}", reason_of(error)), fmt::format("{}:{}", where, error.byte),
                      cut ? "the line ends inside the record: each record must stand on one line of its own"
                          : "each line must be one JSON object in UTF-8; data.on_error: skip leaves broken lines out");
  } catch (const Json::out_of_range&) {
    throw FormatError("a number in the record is too large for JSON readers", where,
                      "write it as a string, or leave it out");
  }
  if (!value.is_object()) {
    throw FormatError(fmt::format("expected a JSON object, found {}", kind_of(value)), where, kFormsHint);
  }
  return value;
}

const std::string& text_at(const Json& object, const char* key, const std::string& place, const std::string& where) {
  const Json& value = object.at(key);
  if (value.is_string()) return value.get_ref<const std::string&>();
  const char* hint = value.is_array() ? "content in parts (text, images) is not implemented: give one string"
                                      : "give a string; an empty one is allowed";
  throw FormatError(fmt::format("{} must be a string, found {}", place, kind_of(value)), where, hint);
}

Message message_of(const Json& value, const std::string& place, const std::string& where) {
  if (!value.is_object()) {
    throw FormatError(fmt::format("{} must be an object, found {}", place, kind_of(value)), where,
                      R"(a message is {"role": "user", "content": "..."})");
  }
  for (const char* key : {"role", "content"}) {
    if (!value.contains(key)) {
      const bool share_gpt = value.contains("from") && value.contains("value");
      throw FormatError(fmt::format("{} has no \"{}\"; found {}", place, key, keys_of(value)), where,
                        share_gpt
                            ? "the from/value form is not read: rename from to role (human: user, gpt: assistant) "
                              "and value to content"
                            : R"(a message is {"role": "user", "content": "..."})");
    }
  }
  for (const std::string_view key : kRefusedKeys) {
    const auto found = value.find(key);
    if (found == value.end() || found->is_null() || found->empty()) continue;
    throw FormatError(fmt::format("{} has \"{}\", which is not implemented", place, key), where,
                      "remove the key, or write what it says into content");
  }
  if (const auto weight = value.find("weight"); weight != value.end() && *weight != Json(1)) {
    throw FormatError(fmt::format("{} has a \"weight\" other than 1, which is not implemented", place), where,
                      "turns that are not to be learned can go into prompt, those that are into completion");
  }
  Message message{text_at(value, "role", place + ".role", where), text_at(value, "content", place + ".content", where)};
  if (message.role != "system" && message.role != "user" && message.role != "assistant") {
    throw FormatError(fmt::format("{} has the role \"{}\", which is not implemented", place, printable(message.role)),
                      where, "roles are system, user and assistant");
  }
  return message;
}

void append_messages(std::vector<Message>& messages, const Json& record, const char* key, const std::string& where) {
  const Json& list = record.at(key);
  if (!list.is_array()) {
    throw FormatError(fmt::format("{} must be a list of messages, found {}", key, kind_of(list)), where, kFormsHint);
  }
  if (list.empty()) throw FormatError(fmt::format("{} is an empty list", key), where, "a conversation has messages");
  for (std::size_t i = 0; i < list.size(); ++i) {
    messages.push_back(message_of(list[i], fmt::format("{}[{}]", key, i), where));
  }
}

Record prompt_and_completion(const Json& record, const std::string& where) {
  const Json& prompt = record.at("prompt");
  const Json& completion = record.at("completion");
  if (prompt.is_array() && completion.is_array()) {
    ChatRecord chat;
    append_messages(chat.messages, record, "prompt", where);
    chat.first_completion = chat.messages.size();
    append_messages(chat.messages, record, "completion", where);
    return chat;
  }
  if (prompt.is_array() || completion.is_array()) {
    throw FormatError(fmt::format("prompt is {} and completion is {}", kind_of(prompt), kind_of(completion)), where,
                      "both must be strings, or both lists of messages");
  }
  return CompletionRecord{text_at(record, "prompt", "prompt", where),
                          text_at(record, "completion", "completion", where)};
}

bool has(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && !found->is_null();  // tables exported to JSONL spell an absent column null
}

}  // namespace

Record parse_record(std::string_view line, const std::string& where) {
  const Json record = parse_object(line, where);
  const bool chat = has(record, "messages");
  const bool completion = has(record, "prompt") && has(record, "completion");
  const bool text = has(record, "text");
  if (chat + completion + text > 1) {
    throw FormatError(fmt::format("the record has more than one form; found {}", keys_of(record)), where, kFormsHint);
  }
  for (const char* key : {"tools", "functions"}) {
    if (has(record, key) && !record.at(key).empty()) {
      throw FormatError(fmt::format("the record has \"{}\", which is not implemented", key), where, "remove the key");
    }
  }
  if (chat) {
    ChatRecord conversation;
    append_messages(conversation.messages, record, "messages", where);
    return conversation;
  }
  if (completion) return prompt_and_completion(record, where);
  if (text) return TextRecord{text_at(record, "text", "text", where)};
  throw FormatError(
      fmt::format("expected messages, prompt and completion, or text; found {}", keys_of(record)), where,
      record.contains("conversations") ? "the key is named messages here: rename conversations" : kFormsHint);
}

}  // namespace lomu
