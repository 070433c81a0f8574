#include "models/tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/error.h"
#include "models/files/gguf.h"
#include "models/files/json_value.h"
#include "models/files/mapped_file.h"
#include "models/tokenizer/pipeline_json.h"
#include "models/tokenizer/tokenizer_gguf.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// The largest tokenizer.json of today's models has 35 MB.
constexpr std::uint64_t kLargestTokenizerJson = std::uint64_t{1} << 28;

std::optional<JsonValue> read_if_there(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  return read_json_file(path);
}

// A special token in tokenizer_config.json: its text, or an object with the text in "content".
std::optional<std::string> special_token(const std::optional<JsonValue>& config, std::string_view key) {
  const JsonValue* value = config ? config->find(key) : nullptr;
  if (value != nullptr && value->is_object()) value = value->find("content");
  if (value == nullptr || value->if_string() == nullptr) return std::nullopt;
  return *value->if_string();
}

std::optional<std::int32_t> find_token(const TokenizerSpec& spec, std::string_view token) {
  const auto added = std::find_if(spec.added_tokens.begin(), spec.added_tokens.end(),
                                  [&](const AddedToken& candidate) { return candidate.content == token; });
  if (added != spec.added_tokens.end()) return added->id;
  const auto known = std::find_if(spec.model.vocab.begin(), spec.model.vocab.end(),
                                  [&](const auto& entry) { return entry.first == token; });
  return known == spec.model.vocab.end() ? std::nullopt : std::optional(known->second);
}

// One template, or a list of {name, template} of which "default" is for conversations.
std::string chat_template_of(const JsonValue& config, const std::string& where) {
  const JsonValue* value = config.find("chat_template");
  if (value == nullptr || value->is_null()) return {};
  if (const auto* text = value->if_string()) return *text;
  if (const auto* list = value->if_array()) {
    for (const JsonValue& item : *list) {
      const JsonFields fields(item, where, "chat_template.");
      if (fields.string("name") == "default") return fields.string("template").value_or("");
    }
    return {};
  }
  JsonFields(config, where).wrong("chat_template", "a string or a list of named templates");
}

std::string read_text(const fs::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

void read_neighbours(const fs::path& folder, TokenizerSpec& spec) {
  const fs::path config_path = folder / "tokenizer_config.json";
  const auto config = read_if_there(config_path);
  const auto map = read_if_there(folder / "special_tokens_map.json");
  const auto id_of = [&](std::string_view key) -> std::optional<std::int32_t> {
    auto token = special_token(config, key);
    if (!token) token = special_token(map, key);
    return token ? find_token(spec, *token) : std::nullopt;
  };
  spec.bos = id_of("bos_token");
  spec.eos = id_of("eos_token");
  spec.pad = id_of("pad_token");
  spec.unk = id_of("unk_token");
  if (config) spec.chat_template = chat_template_of(*config, config_path.string());
  if (const fs::path file = folder / "chat_template.jinja"; fs::exists(file)) spec.chat_template = read_text(file);
}

}  // namespace

TokenizerSpec read_tokenizer_files(const fs::path& path) {
  const bool is_folder = fs::is_directory(path);
  const fs::path file = is_folder ? path / "tokenizer.json" : path;
  if (is_folder && !fs::exists(file)) {
    throw FileError("the folder has no tokenizer.json", path.string(),
                    "save the tokenizer with transformers' save_pretrained, which writes it");
  }
  TokenizerSpec spec = read_pipeline_json(read_json_file(file, kLargestTokenizerJson), file.string());
  read_neighbours(file.parent_path(), spec);
  return spec;
}

TokenizerSpec read_tokenizer_spec(const fs::path& model) {
  return model.extension() == ".gguf" ? read_tokenizer_gguf(GgufFile(model)) : read_tokenizer_files(model);
}

}  // namespace lomu
