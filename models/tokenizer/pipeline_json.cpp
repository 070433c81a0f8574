#include "models/tokenizer/pipeline_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

std::string required_string(const JsonFields& fields, std::string_view key) {
  auto value = fields.string(key);
  if (!value) fields.wrong(key, "a string");
  return std::move(*value);
}

const JsonArray& required_list(const JsonFields& fields, std::string_view key) {
  const JsonValue* value = fields.find(key);
  if (value == nullptr || value->if_array() == nullptr) fields.wrong(key, "a list");
  return *value->if_array();
}

std::int32_t required_id(const JsonFields& fields, std::string_view key) {
  const auto id = fields.integer(key);
  if (!id || *id < 0 || *id > kMaxTokenId) fields.wrong(key, fmt::format("an id from 0 to {}", kMaxTokenId));
  return static_cast<std::int32_t>(*id);
}

[[noreturn]] void refuse(std::string_view stage, std::string_view type, const std::string& where) {
  throw UnsupportedError(fmt::format("the {} \"{}\" is not implemented", stage, type), where,
                         "Lomu reads BPE tokenizers such as those of Llama, Qwen, Mistral and SmolLM2");
}

// Calls `visit(fields, type)` for a stage, or for each member of a Sequence, in order; nothing for null.
template <class Visit>
void for_each_step(const JsonValue* stage, std::string_view members, const std::string& where,
                   const std::string& prefix, const Visit& visit) {
  if (stage == nullptr || stage->is_null()) return;
  const JsonFields fields(*stage, where, prefix + ".");
  const std::string type = required_string(fields, "type");
  if (type != "Sequence") return visit(fields, type);
  std::size_t i = 0;
  for (const JsonValue& member : required_list(fields, members)) {
    for_each_step(&member, members, where, fmt::format("{}.{}[{}]", prefix, members, i++), visit);
  }
}

Pattern read_pattern(const JsonFields& fields) {
  const auto pattern = fields.object("pattern");
  if (!pattern) fields.wrong("pattern", "an object {\"String\": ...} or {\"Regex\": ...}");
  if (auto text = pattern->string("String")) return {std::move(*text), false};
  return {required_string(*pattern, "Regex"), true};
}

template <class Enum, std::size_t N>
Enum read_enum(const JsonFields& fields, std::string_view key, const std::array<const char*, N>& names,
               Enum otherwise) {
  const auto name = fields.string(key);
  if (!name) return otherwise;
  for (std::size_t i = 0; i < N; ++i) {
    // The library writes behaviours in CamelCase, Python users in snake_case; files hold the former.
    if (*name == names[i]) return static_cast<Enum>(i);
  }
  throw UnsupportedError(fmt::format("{} \"{}\" is not known", key, *name), fields.where());
}

std::string one_character(const JsonFields& fields, std::string_view key) {
  std::string text = required_string(fields, key);
  if (text.empty() || utf8_lead(text).size != text.size()) fields.wrong(key, "one character");
  return text;
}

PrependScheme read_prepend_scheme(const JsonFields& fields) {
  const auto scheme = read_enum(fields, "prepend_scheme", kPrependSchemeNames, PrependScheme::kAlways);
  return fields.boolean("add_prefix_space").value_or(true) ? scheme : PrependScheme::kNever;  // spelling before 0.16
}

NormalizerStep read_normalizer(const JsonFields& fields, std::string_view type) {
  if (type == "NFC") return NfcNormalizer{};
  if (type == "NFD") return NfdNormalizer{};
  if (type == "Prepend") return PrependNormalizer{required_string(fields, "prepend")};
  if (type == "Replace") return ReplaceNormalizer{read_pattern(fields), required_string(fields, "content")};
  refuse("normalizer", type, fields.where());
}

PreTokenizerStep read_pre_tokenizer(const JsonFields& fields, std::string_view type) {
  if (type == "ByteLevel") {
    return ByteLevelStep{fields.boolean("add_prefix_space").value_or(true), fields.boolean("use_regex").value_or(true)};
  }
  if (type == "Split") {
    if (!fields.has("behavior")) fields.wrong("behavior", "a string");
    return SplitStep{read_pattern(fields), read_enum(fields, "behavior", kSplitBehaviorNames, SplitBehavior::kIsolated),
                     fields.boolean("invert").value_or(false)};
  }
  if (type == "Digits") return DigitsStep{fields.boolean("individual_digits").value_or(false)};
  if (type == "Punctuation") {
    return PunctuationStep{read_enum(fields, "behavior", kSplitBehaviorNames, SplitBehavior::kIsolated)};
  }
  if (type == "WhitespaceSplit") return WhitespaceSplitStep{};
  if (type == "Metaspace") {
    return MetaspaceStep{one_character(fields, "replacement"), read_prepend_scheme(fields),
                         fields.boolean("split").value_or(true)};
  }
  refuse("pre-tokenizer", type, fields.where());
}

DecoderStep read_decoder(const JsonFields& fields, std::string_view type) {
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "Replace") return ReplaceDecoder{read_pattern(fields), required_string(fields, "content")};
  if (type == "ByteFallback") return ByteFallbackDecoder{};
  if (type == "Fuse") return FuseDecoder{};
  if (type == "Strip") {
    return StripDecoder{one_character(fields, "content"), fields.integer("start").value_or(0),
                        fields.integer("stop").value_or(0)};
  }
  if (type == "Metaspace") return MetaspaceDecoder{one_character(fields, "replacement"), read_prepend_scheme(fields)};
  refuse("decoder", type, fields.where());
}

std::vector<std::int32_t> read_template_token(const JsonFields& special_tokens, const std::string& name) {
  const auto token = special_tokens.object(name);
  const auto ids = token ? token->integers("ids") : std::nullopt;
  if (!ids) special_tokens.wrong(name, "an object with ids, because the template uses it");
  std::vector<std::int32_t> result;
  for (const std::int64_t id : *ids) {
    if (id < 0 || id > kMaxTokenId) token->wrong("ids", fmt::format("ids from 0 to {}", kMaxTokenId));
    result.push_back(static_cast<std::int32_t>(id));
  }
  return result;
}

TemplateStep read_template(const JsonFields& fields) {
  const auto special_tokens = fields.object("special_tokens");
  TemplateStep step;
  for (const JsonValue& piece : required_list(fields, "single")) {
    const JsonFields kind(piece, fields.where(), "post_processor.single.");
    if (const auto sequence = kind.object("Sequence")) {
      if (required_string(*sequence, "id") != "A") sequence->wrong("id", "\"A\" in a template for one text");
      step.emplace_back();
    } else if (const auto token = kind.object("SpecialToken")) {
      if (!special_tokens) fields.wrong("special_tokens", "an object");
      step.emplace_back(read_template_token(*special_tokens, required_string(*token, "id")));
    } else {
      kind.wrong("Sequence", "there, or SpecialToken");
    }
  }
  return step;
}

// RobertaProcessing and BertProcessing: ["[CLS]", id] text ["[SEP]", id].
TemplateStep read_cls_sep(const JsonFields& fields) {
  const auto id_of = [&](std::string_view key) {
    const JsonArray& pair = required_list(fields, key);
    const auto* id = pair.size() == 2 ? pair[1].if_integer() : nullptr;
    if (id == nullptr || *id < 0 || *id > kMaxTokenId) fields.wrong(key, "a pair of token and id");
    return std::vector{static_cast<std::int32_t>(*id)};
  };
  return {id_of("cls"), std::nullopt, id_of("sep")};
}

void read_post_processor(const JsonFields& fields, std::string_view type, std::vector<TemplateStep>& steps) {
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "TemplateProcessing") {
    steps.push_back(read_template(fields));
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    steps.push_back(read_cls_sep(fields));
  } else {
    refuse("post-processor", type, fields.where());
  }
}

std::pair<std::string, std::string> read_merge(const JsonValue& merge, std::size_t rank, const std::string& where) {
  if (const auto* text = merge.if_string()) {
    const std::size_t space = text->find(' ');
    if (space != std::string::npos && text->find(' ', space + 1) == std::string::npos) {
      return {text->substr(0, space), text->substr(space + 1)};
    }
  } else if (const auto* pair = merge.if_array()) {
    if (pair->size() == 2 && (*pair)[0].if_string() != nullptr && (*pair)[1].if_string() != nullptr) {
      return {*(*pair)[0].if_string(), *(*pair)[1].if_string()};
    }
  }
  throw FormatError(fmt::format("model.merges[{}] is neither \"a b\" nor [\"a\", \"b\"]", rank), where);
}

// Options of BPE that change ids and are not implemented.
void refuse_options(const JsonFields& fields) {
  if (fields.number("dropout").value_or(0.0) != 0.0) refuse("BPE option", "dropout", fields.where());
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.string(key).value_or("").empty()) refuse("BPE option", key, fields.where());
  }
}

BpeSpec read_model(const JsonFields& root) {
  const auto fields = root.object("model");
  if (!fields) root.wrong("model", "an object");
  const std::string type = fields->string("type").value_or(fields->has("merges") ? "BPE" : "unnamed");
  if (type != "BPE") refuse("tokenizer model", type, root.where());
  refuse_options(*fields);

  BpeSpec model;
  const JsonValue* vocab = fields->find("vocab");
  if (vocab == nullptr || vocab->if_object() == nullptr) fields->wrong("vocab", "an object of tokens and ids");
  model.vocab.reserve(vocab->if_object()->size());
  for (const auto& [token, id] : *vocab->if_object()) {
    const auto* value = id.if_integer();
    if (value == nullptr || *value < 0 || *value > kMaxTokenId) {
      throw FormatError(fmt::format("model.vocab: token \"{}\" needs an id from 0 to {}", token, kMaxTokenId),
                        root.where());
    }
    model.vocab.emplace_back(token, static_cast<std::int32_t>(*value));
  }
  const JsonArray& merges = required_list(*fields, "merges");
  model.merges.reserve(merges.size());
  for (const JsonValue& merge : merges) {
    const auto* text = merge.if_string();
    if (text != nullptr && text->starts_with("#version")) continue;
    model.merges.push_back(read_merge(merge, model.merges.size(), root.where()));
  }
  model.unk_token = fields->string("unk_token");
  model.fuse_unk = fields->boolean("fuse_unk").value_or(false);
  model.byte_fallback = fields->boolean("byte_fallback").value_or(false);
  model.ignore_merges = fields->boolean("ignore_merges").value_or(false);
  return model;
}

std::vector<AddedToken> read_added_tokens(const JsonFields& root) {
  std::vector<AddedToken> tokens;
  if (!root.has("added_tokens")) return tokens;
  for (const JsonValue& item : required_list(root, "added_tokens")) {
    const JsonFields fields(item, root.where(), fmt::format("added_tokens[{}].", tokens.size()));
    AddedToken token;
    token.content = required_string(fields, "content");
    token.id = required_id(fields, "id");
    token.special = fields.boolean("special").value_or(false);
    token.lstrip = fields.boolean("lstrip").value_or(false);
    token.rstrip = fields.boolean("rstrip").value_or(false);
    token.single_word = fields.boolean("single_word").value_or(false);
    token.normalized = fields.boolean("normalized").value_or(!token.special);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

TokenizerSpec read_pipeline_json(const JsonValue& root_value, const std::string& where) {
  const JsonFields root(root_value, where);
  TokenizerSpec spec;
  spec.model = read_model(root);
  spec.added_tokens = read_added_tokens(root);
  for_each_step(
      root.find("normalizer"), "normalizers", where, "normalizer",
      [&](const JsonFields& f, const std::string& type) { spec.normalizers.push_back(read_normalizer(f, type)); });
  for_each_step(root.find("pre_tokenizer"), "pretokenizers", where, "pre_tokenizer",
                [&](const JsonFields& f, const std::string& type) {
                  spec.pre_tokenizers.push_back(read_pre_tokenizer(f, type));
                });
  for_each_step(
      root.find("post_processor"), "processors", where, "post_processor",
      [&](const JsonFields& f, const std::string& type) { read_post_processor(f, type, spec.post_processors); });
  for_each_step(root.find("decoder"), "decoders", where, "decoder",
                [&](const JsonFields& f, const std::string& type) { spec.decoders.push_back(read_decoder(f, type)); });
  return spec;
}

}  // namespace lomu
