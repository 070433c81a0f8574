#include "engine/config/unknown_key.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "engine/config/nearest.h"

namespace lomu::config {
namespace {

struct Alias {
  std::string_view theirs;
  std::string_view ours;
  std::string_view note = {};
};

constexpr std::string_view kTokens = "it is counted in tokens";
constexpr std::string_view kAllRanks = "it counts the micro-batches of all ranks together";

// Names that Axolotl, torchtune, TRL, PEFT, Hugging Face's Trainer, LLaMA-Factory and MLX use for our keys and
// sections.
constexpr std::array kAliases = std::to_array<Alias>({
    {"base_model", "model.path"},
    {"model_name", "model.path"},
    {"model_name_or_path", "model.path"},
    {"model_path", "model.path"},
    {"checkpoint_dir", "model.path"},
    {"r", "adapter.rank"},
    {"lora_r", "adapter.rank"},
    {"lora_rank", "adapter.rank"},
    {"lora_alpha", "adapter.alpha"},
    {"lora_dropout", "adapter.dropout"},
    {"lora_target_modules", "adapter.targets"},
    {"target_modules", "adapter.targets"},
    {"lora_target_linear", "adapter.targets", "for every linear layer write all"},
    {"lora_target", "adapter.targets"},
    {"lora_attn_modules", "adapter.targets"},
    {"layers_to_transform", "adapter.layers"},
    {"lora_layers_to_transform", "adapter.layers"},
    {"lora_layers", "adapter.layers"},
    {"use_rslora", "adapter.rslora"},
    {"peft_use_rslora", "adapter.rslora"},
    {"init_lora_weights", "adapter.init"},
    {"peft_init_lora_weights", "adapter.init"},
    {"lora_model_dir", "adapter.from"},
    {"resume_adapter_file", "adapter.from"},
    {"adapter_path", "adapter.from"},
    {"dataset", "data.train"},
    {"datasets", "data.train"},
    {"data_files", "data.train"},
    {"dataset_name", "data.train"},
    {"train_file", "data.train"},
    {"train_data", "data.train"},
    {"train_dataset", "data.train"},
    {"test_datasets", "data.validation"},
    {"eval_dataset", "data.validation"},
    {"eval_file", "data.validation"},
    {"validation_file", "data.validation"},
    {"valid", "data.validation"},
    {"val_set_size", "data.validation_split"},
    {"val_size", "data.validation_split"},
    {"test_size", "data.validation_split"},
    {"template", "data.chat_template"},
    {"sequence_len", "data.max_length"},
    {"seq_len", "data.max_length"},
    {"seq_length", "data.max_length"},
    {"max_seq_len", "data.max_length"},
    {"max_seq_length", "data.max_length"},
    {"cutoff_len", "data.max_length"},
    {"sample_packing", "data.packing"},
    {"packed", "data.packing"},
    {"pad_to_sequence_len", "training.micro_batch_tokens"},
    {"train_on_inputs", "data.train_on", "write assistant or all"},
    {"train_on_input", "data.train_on", "write assistant or all"},
    {"assistant_only_loss", "data.train_on", "write assistant or all"},
    {"completion_only_loss", "data.train_on", "write assistant or all"},
    {"mask_prompt", "data.train_on", "write assistant or all"},
    {"dataset_prepared_path", "data.cache_dir"},
    {"num_epochs", "training.epochs"},
    {"num_train_epochs", "training.epochs"},
    {"max_steps", "training.steps"},
    {"num_steps", "training.steps"},
    {"iters", "training.steps"},
    {"batch_size", "training.micro_batch_tokens", kTokens},
    {"micro_batch_size", "training.micro_batch_tokens", kTokens},
    {"per_device_train_batch_size", "training.micro_batch_tokens", kTokens},
    {"batch_tokens", "training.micro_batches", "a step is micro_batches x micro_batch_tokens"},
    {"gradient_accumulation_steps", "training.micro_batches", kAllRanks},
    {"grad_accumulation_steps", "training.micro_batches", kAllRanks},
    {"eval_steps", "training.validation_every"},
    {"eval_every", "training.validation_every"},
    {"evals_per_epoch", "training.validation_every", "it is counted in steps"},
    {"steps_per_eval", "training.validation_every"},
    {"save_steps", "training.save_every"},
    {"saves_per_epoch", "training.save_every", "it is counted in steps"},
    {"random_seed", "training.seed"},
    {"data_seed", "training.seed"},
    {"learning_rate", "optimizer.lr"},
    {"betas", "optimizer.beta1"},
    {"adam_beta1", "optimizer.beta1"},
    {"adam_beta2", "optimizer.beta2"},
    {"epsilon", "optimizer.eps"},
    {"adam_epsilon", "optimizer.eps"},
    {"clip_grad_norm", "optimizer.max_grad_norm"},
    {"gradient_clipping", "optimizer.max_grad_norm"},
    {"grad_clip", "optimizer.max_grad_norm"},
    {"optim", "optimizer.name"},
    {"lr_scheduler", "training.schedule.name"},
    {"lr_scheduler_type", "training.schedule.name"},
    {"num_warmup_steps", "training.schedule.warmup_steps"},
    {"lr_warmup_steps", "training.schedule.warmup_steps"},
    {"cosine_min_lr_ratio", "training.schedule.min_lr_ratio"},
    {"min_lr", "training.schedule.min_lr_ratio", "it is a share of optimizer.lr"},
    {"bf16", "runtime.dtype"},
    {"fp16", "runtime.dtype"},
    {"fp32", "runtime.dtype"},
    {"precision", "runtime.dtype"},
    {"torch_dtype", "runtime.dtype"},
    {"num_threads", "runtime.threads"},
    {"output_dir", "output.dir"},
    {"out", "output.dir"},
    {"save_dir", "output.dir"},
    {"overwrite_output_dir", "output.overwrite"},
    {"lora", "adapter"},
    {"peft", "adapter"},
    {"lora_parameters", "adapter"},
    {"scheduler", "training.schedule"},
    {"engine", "runtime"},
    {"system", "runtime"},
});

std::string last_part(std::string_view path) {
  return std::string(path.substr(path.rfind('.') + 1));
}

std::string lowered(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return c == '-' ? '_' : static_cast<char>(std::tolower(c)); });
  return text;
}

std::string did_you_mean(const std::vector<std::string>& keys, std::string_view note = {}) {
  return fmt::format("did you mean `{}`?{}{}", fmt::join(keys, "` or `"), note.empty() ? "" : " ", note);
}

/// Every key or section whose last part is `name`.
std::vector<std::string> named(const Schema& schema, std::string_view name) {
  std::vector<std::string> paths;
  for (const auto& section : schema.sections()) {
    if (last_part(section.path) == name) paths.push_back(section.path);
  }
  for (const auto& field : schema.fields()) {
    if (field.name() == name) paths.push_back(field.path);
  }
  return paths;
}

/// The key or section right under `section` whose name is closest.
std::optional<std::string> nearest_under(const Schema& schema, std::string_view section, std::string_view name) {
  std::vector<std::string> names;
  const auto add = [&](std::string_view path) {
    const auto dot = path.rfind('.');
    const std::string_view parent = dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
    if (parent == section) names.push_back(last_part(path));
  };
  for (const auto& info : schema.sections()) add(info.path);
  for (const auto& field : schema.fields()) add(field.path);
  const auto close = nearest(name, names);
  if (!close) return {};
  return section.empty() ? *close : fmt::format("{}.{}", section, *close);
}

}  // namespace

std::string unknown_key_hint(const Schema& schema, std::string_view path) {
  if (path == "study") return "this file is a study: `lomu study` runs it";
  const std::string name = lowered(last_part(path));
  const std::string_view section = path.substr(0, path.size() - last_part(path).size());
  const auto alias = std::ranges::find(kAliases, name, &Alias::theirs);
  if (alias != kAliases.end()) {
    // In an item of a list our key may have another path.
    const auto here = named(schema, last_part(alias->ours));
    const bool elsewhere = schema.find(alias->ours) == nullptr && !schema.is_section(alias->ours);
    return did_you_mean(elsewhere && !here.empty() ? here : std::vector{std::string(alias->ours)}, alias->note);
  }
  if (const auto elsewhere = named(schema, name); !elsewhere.empty()) return did_you_mean(elsewhere);
  const std::string_view parent = section.empty() ? section : section.substr(0, section.size() - 1);
  if (const auto close = nearest_under(schema, parent, name)) return did_you_mean({*close});

  std::vector<std::string> names;
  for (const auto& info : schema.sections()) names.push_back(last_part(info.path));
  for (const auto& field : schema.fields()) names.emplace_back(field.name());
  for (const auto& known : kAliases) names.emplace_back(known.theirs);
  if (const auto close = nearest(name, names)) {
    const auto near_alias = std::ranges::find(kAliases, *close, &Alias::theirs);
    if (near_alias != kAliases.end()) return did_you_mean({std::string(near_alias->ours)}, near_alias->note);
    return did_you_mean(named(schema, *close));
  }
  return "`lomu schema` lists every key";
}

}  // namespace lomu::config
