// The inverse of pipeline_json.cpp: a TokenizerSpec as tokenizer.json and tokenizer_config.json.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "models/files/atomic_file.h"
#include "models/tokenizer/tokenizer_json.h"

namespace lomu {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Pattern& pattern) {
  return {{pattern.is_regex ? "Regex" : "String", pattern.text}};
}
const char* name_of(SplitBehavior behavior) {
  return kSplitBehaviorNames[static_cast<std::size_t>(behavior)];
}
const char* name_of(PrependScheme scheme) {
  return kPrependSchemeNames[static_cast<std::size_t>(scheme)];
}

Json to_json(const NfcNormalizer&) {
  return {{"type", "NFC"}};
}
Json to_json(const NfdNormalizer&) {
  return {{"type", "NFD"}};
}
Json to_json(const PrependNormalizer& step) {
  return {{"type", "Prepend"}, {"prepend", step.prepend}};
}
Json to_json(const ReplaceNormalizer& step) {
  return {{"type", "Replace"}, {"pattern", to_json(step.pattern)}, {"content", step.content}};
}

Json to_json(const ByteLevelStep& step) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", step.add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", step.use_regex}};
}
Json to_json(const SplitStep& step) {
  return {{"type", "Split"},
          {"pattern", to_json(step.pattern)},
          {"behavior", name_of(step.behavior)},
          {"invert", step.invert}};
}
Json to_json(const DigitsStep& step) {
  return {{"type", "Digits"}, {"individual_digits", step.individual}};
}
Json to_json(const PunctuationStep& step) {
  return {{"type", "Punctuation"}, {"behavior", name_of(step.behavior)}};
}
Json to_json(const WhitespaceSplitStep&) {
  return {{"type", "WhitespaceSplit"}};
}
Json to_json(const MetaspaceStep& step) {
  return {{"type", "Metaspace"},
          {"replacement", step.replacement},
          {"prepend_scheme", name_of(step.prepend)},
          {"split", step.split}};
}

Json to_json(const ByteLevelDecoder&) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
}
Json to_json(const ReplaceDecoder& step) {
  return {{"type", "Replace"}, {"pattern", to_json(step.pattern)}, {"content", step.content}};
}
Json to_json(const ByteFallbackDecoder&) {
  return {{"type", "ByteFallback"}};
}
Json to_json(const FuseDecoder&) {
  return {{"type", "Fuse"}};
}
Json to_json(const StripDecoder& step) {
  return {{"type", "Strip"}, {"content", step.content}, {"start", step.start}, {"stop", step.stop}};
}
Json to_json(const MetaspaceDecoder& step) {
  return {{"type", "Metaspace"},
          {"replacement", step.replacement},
          {"prepend_scheme", name_of(step.prepend)},
          {"split", true}};
}

// null, one step, or a Sequence of them.
Json wrap(Json::array_t steps, const char* members) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return std::move(steps[0]);
  return {{"type", "Sequence"}, {members, std::move(steps)}};
}

template <class Step>
Json steps_json(const std::vector<Step>& steps, const char* members) {
  Json::array_t list;
  for (const Step& step : steps) list.push_back(std::visit([](const auto& kind) { return to_json(kind); }, step));
  return wrap(std::move(list), members);
}

// Spellings by id, for the few that are written by name.
class Names {
 public:
  explicit Names(const TokenizerSpec& spec) : spec_(spec) {}

  [[nodiscard]] std::string operator()(std::int32_t id) const {
    for (const AddedToken& token : spec_.added_tokens) {
      if (token.id == id) return token.content;
    }
    const auto it = std::find_if(spec_.model.vocab.begin(), spec_.model.vocab.end(),
                                 [&](const auto& entry) { return entry.second == id; });
    return it == spec_.model.vocab.end() ? std::string() : it->first;
  }

 private:
  const TokenizerSpec& spec_;
};

Json template_json(const TemplateStep& step, const Names& names) {
  Json single = Json::array();
  Json special = Json::object();
  for (const auto& piece : step) {
    if (!piece) {
      single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
      continue;
    }
    for (const std::int32_t id : *piece) {
      const std::string name = names(id);
      single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    }
  }
  // Lomu encodes one text at a time; for two, each keeps what the template puts around one.
  Json pair = single;
  for (Json item : single) {
    if (item.contains("Sequence")) item["Sequence"] = {{"id", "B"}, {"type_id", 1}};
    if (item.contains("SpecialToken")) item["SpecialToken"]["type_id"] = 1;
    pair.push_back(std::move(item));
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

Json added_token_json(const AddedToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

// Vocabulary and merges are written by hand: a JSON object of 150,000 members in file order would be quadratic to
// build.
void append_vocab(std::string& out, const BpeSpec& model) {
  auto entries = model.vocab;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const char* separator = "";
  for (const auto& [token, id] : entries) {
    out += fmt::format("{}\n      {}: {}", separator, Json(token).dump(), id);
    separator = ",";
  }
}

void append_merges(std::string& out, const BpeSpec& model) {
  const char* separator = "";
  for (const auto& [left, right] : model.merges) {
    out += fmt::format("{}\n      [{}, {}]", separator, Json(left).dump(), Json(right).dump());
    separator = ",";
  }
}

std::string tokenizer_json(const TokenizerSpec& spec) {
  const Names names(spec);
  Json added = Json::array();
  for (const AddedToken& token : spec.added_tokens) added.push_back(added_token_json(token));
  Json::array_t templates;
  for (const TemplateStep& step : spec.post_processors) templates.push_back(template_json(step, names));

  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null";
  const auto member = [&](const char* key, const Json& value) {
    out += fmt::format(",\n  \"{}\": {}", key, value.dump());
  };
  member("added_tokens", added);
  member("normalizer", steps_json(spec.normalizers, "normalizers"));
  member("pre_tokenizer", steps_json(spec.pre_tokenizers, "pretokenizers"));
  member("post_processor", wrap(std::move(templates), "processors"));
  member("decoder", steps_json(spec.decoders, "decoders"));
  const BpeSpec& model = spec.model;
  out += fmt::format(
      ",\n  \"model\": {{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": {},\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": {},\n"
      "    \"byte_fallback\": {},\n    \"ignore_merges\": {},\n    \"vocab\": {{",
      model.unk_token ? Json(*model.unk_token).dump() : "null", model.fuse_unk, model.byte_fallback,
      model.ignore_merges);
  append_vocab(out, model);
  out += "\n    },\n    \"merges\": [";
  append_merges(out, model);
  out += "\n    ]\n  }\n}\n";
  return out;
}

std::string tokenizer_config_json(const TokenizerSpec& spec) {
  const Names names(spec);
  Json config = Json::object();
  Json decoder = Json::object();
  for (const AddedToken& token : spec.added_tokens) {
    Json entry = added_token_json(token);
    entry.erase("id");
    decoder[std::to_string(token.id)] = std::move(entry);
  }
  config["added_tokens_decoder"] = std::move(decoder);
  const auto name = [&](const char* key, const std::optional<std::int32_t>& id) {
    config[key] = id ? Json(names(*id)) : Json(nullptr);
  };
  name("bos_token", spec.bos);
  name("eos_token", spec.eos);
  name("pad_token", spec.pad);
  name("unk_token", spec.unk);
  config["clean_up_tokenization_spaces"] = false;
  // The class that reads tokenizer.json as it is; those named after models rebuild parts of the pipeline.
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (!spec.chat_template.empty()) config["chat_template"] = spec.chat_template;
  return config.dump(2) + "\n";
}

}  // namespace

void write_tokenizer_files(const TokenizerSpec& spec, const std::filesystem::path& folder) {
  std::string tokenizer;
  std::string config;
  try {
    tokenizer = tokenizer_json(spec);
    config = tokenizer_config_json(spec);
  } catch (const nlohmann::json::exception& e) {  // the only thing that can fail: text that is not UTF-8
    throw FormatError(fmt::format("the tokenizer cannot be written as JSON: {}", e.what()), folder.string());
  }
  write_file(folder / "tokenizer.json", tokenizer);
  write_file(folder / "tokenizer_config.json", config);
}

}  // namespace lomu
