#include "engine/train/job_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "engine/config/resolved.h"
#include "kernels/error.h"
#include "models/files/hashing.h"
#include "models/tokenizer/byte_tokenizer.h"

namespace lomu {
namespace {

Site site_named(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Site>, 7> kNames = {{{"q", Site::kQ},
                                                                        {"k", Site::kK},
                                                                        {"v", Site::kV},
                                                                        {"o", Site::kO},
                                                                        {"gate", Site::kGate},
                                                                        {"up", Site::kUp},
                                                                        {"down", Site::kDown}}};
  const auto* found =
      std::find_if(kNames.begin(), kNames.end(), [&](const auto& entry) { return entry.first == name; });
  return found->second;  // the configuration holds no other names
}

/// The weights that a name of adapter.full stands for.
void add_full(std::string_view name, const ModelConfig& model, std::vector<WeightKind>& full) {
  if (name == "embedding") {
    full.push_back(WeightKind::kEmbed);
  } else if (name == "head") {
    full.push_back(WeightKind::kLmHead);
  } else if (name == "norms") {
    full.insert(full.end(), {WeightKind::kFinalNorm, WeightKind::kAttnNorm, WeightKind::kMlpNorm});
    if (model.qk_norm) full.insert(full.end(), {WeightKind::kQNorm, WeightKind::kKNorm});
  } else {
    full.push_back(weight_of(0, site_named(name)).kind);
  }
}

std::string_view chat_template_name(config::ChatTemplate chat) {
  switch (chat) {
    case config::ChatTemplate::kAuto: return "auto";
    case config::ChatTemplate::kChatML: return "chatml";
    case config::ChatTemplate::kLlama3: return "llama3";
  }
  return "auto";
}

OptimizerKind kind_of(config::OptimizerName name) {
  switch (name) {
    case config::OptimizerName::kLoraMuon: return OptimizerKind::kLoraMuon;
    case config::OptimizerName::kAdamW: return OptimizerKind::kAdamW;
    case config::OptimizerName::kMuon: return OptimizerKind::kMuon;
    case config::OptimizerName::kMuonFactors: return OptimizerKind::kMuonFactors;
    case config::OptimizerName::kSpectron: return OptimizerKind::kSpectron;
    case config::OptimizerName::kLoraRite: return OptimizerKind::kLoraRite;
    case config::OptimizerName::kLoraRiteCore: return OptimizerKind::kLoraRiteCore;
    case config::OptimizerName::kScaledAdamW: return OptimizerKind::kScaledAdamW;
    case config::OptimizerName::kLoraPlus: return OptimizerKind::kLoraPlus;
  }
  return OptimizerKind::kLoraMuon;
}

OptimizerOptions options_of(const config::OptimizerConfig& o, const ModelConfig& model) {
  OptimizerOptions options;
  options.name = kind_of(o.name);
  options.lr = o.lr;
  options.weight_decay = o.weight_decay;
  options.max_grad_norm = o.max_grad_norm.value_or(0.0);
  options.momentum = o.momentum;
  options.nesterov = o.nesterov;
  options.damping = o.damping;
  switch (o.orthogonalizer) {
    case config::Orthogonalizer::kExact: options.orthogonalizer = Orthogonalizer::kExact; break;
    case config::Orthogonalizer::kNewtonSchulz: options.orthogonalizer = Orthogonalizer::kNewtonSchulz; break;
    case config::Orthogonalizer::kPolarExpress: options.orthogonalizer = Orthogonalizer::kPolarExpress; break;
  }
  switch (o.filter) {
    case config::SpectralFilter::kSign: options.filter = SpectralFilter::kSign; break;
    case config::SpectralFilter::kDamped: options.filter = SpectralFilter::kDamped; break;
    case config::SpectralFilter::kPower: options.filter = SpectralFilter::kPower; break;
  }
  options.filter_tau = o.filter_tau;
  options.filter_power = o.filter_power;
  switch (o.multiplier) {
    case config::StepMultiplier::kNone: options.multiplier = StepMultiplier::kNone; break;
    case config::StepMultiplier::kFrobenius: options.multiplier = StepMultiplier::kFrobenius; break;
    case config::StepMultiplier::kSqrtMOverN: options.multiplier = StepMultiplier::kSqrtMOverN; break;
    case config::StepMultiplier::kRms: options.multiplier = StepMultiplier::kRms; break;
    case config::StepMultiplier::kRmsOverWidth: options.multiplier = StepMultiplier::kRmsOverWidth; break;
  }
  options.hidden_size = model.hidden_size;
  switch (o.scaling) {
    case config::MuonScaling::kOriginal: options.scaling = MuonScaling::kOriginal; break;
    case config::MuonScaling::kRms: options.scaling = MuonScaling::kRms; break;
    case config::MuonScaling::kNone: options.scaling = MuonScaling::kNone; break;
  }
  options.balance_every = o.balance_every;
  options.beta1 = o.beta1;
  options.beta2 = o.beta2;
  options.eps = o.eps;
  options.lr_ratio = o.lr_ratio;
  options.delta = o.delta;
  return options;
}

}  // namespace

SessionOptions session_options(const config::TrainConfig& config) {
  SessionOptions options;
  options.model = config.model.path;
  options.untrained = untrained_model(config);
  const config::RuntimeConfig& runtime = config.runtime;
  options.compute = {runtime.device, runtime.backend, runtime.dtype, runtime.threads, runtime.deterministic, true};
  options.future_pairs = [config](const ModelConfig& model) {
    return plan_pairs(model, adapter_options(config, model));
  };
  return options;
}

std::optional<UntrainedModel> untrained_model(const config::TrainConfig& config) {
  if (config.model.start == config::ModelStart::kFiles) return std::nullopt;
  const config::ScratchConfig& scratch = config.model.scratch;
  UntrainedModel model;
  model.layers = scratch.layers;
  model.hidden = scratch.hidden;
  model.heads = scratch.heads;
  model.kv_heads = scratch.kv_heads;
  model.intermediate = scratch.intermediate;
  model.vocab = kByteVocabulary;
  model.context = config.data.max_length;
  model.without_base = scratch.base == config::ScratchBase::kNone;
  model.seed = static_cast<std::uint64_t>(config.training.seed);
  return model;
}

AdapterOptions adapter_options(const config::TrainConfig& config, const ModelConfig& model) {
  AdapterOptions options;
  options.rank = config.adapter.rank;
  options.alpha = config.adapter.alpha;
  options.rslora = config.adapter.rslora;
  options.dropout = config.adapter.dropout;
  options.targets.clear();
  for (const std::string& target : config.adapter.targets) options.targets.push_back(site_named(target));
  for (const std::string& name : config.adapter.full) add_full(name, model, options.full);
  options.gauge = config.adapter.gauge;
  if (!config.adapter.layers.empty()) {
    const std::vector<bool> mask = config.adapter.layer_mask(static_cast<int>(model.num_layers));
    options.layers.emplace();
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (mask[i]) options.layers->push_back(static_cast<std::int64_t>(i));
    }
  }
  options.init = config.adapter.init == config::AdapterInit::kBalanced ? AdapterInit::kBalanced : AdapterInit::kZero;
  options.seed = static_cast<std::uint64_t>(config.training.seed);
  return options;
}

OptimizerOptions optimizer_options(const config::TrainConfig& config, const ModelConfig& model) {
  OptimizerOptions options = options_of(config.optimizer, model);
  for (const config::OptimizerGroup& group : config.optimizer_groups) {
    options.groups.push_back({group.match, options_of(group.optimizer, model)});
  }
  options.spectral_bound = config.adapter.spectral_bound;
  options.spectral_clip =
      config.adapter.spectral_clip == config::SpectralClip::kSoft ? SpectralClip::kSoft : SpectralClip::kHard;
  return options;
}

ScheduleOptions schedule_options(const config::TrainConfig& config, std::int64_t total_steps) {
  const config::ScheduleConfig& s = config.training.schedule;
  ScheduleOptions options;
  switch (s.name) {
    case config::ScheduleName::kConstant: options.kind = ScheduleKind::kConstant; break;
    case config::ScheduleName::kLinear: options.kind = ScheduleKind::kLinear; break;
    case config::ScheduleName::kCosine: options.kind = ScheduleKind::kCosine; break;
    case config::ScheduleName::kWsd: options.kind = ScheduleKind::kWarmupStableDecay; break;
  }
  options.warmup_steps =
      s.warmup_steps
          ? *s.warmup_steps
          : static_cast<std::int64_t>(std::llround(s.warmup_ratio.value_or(0.0) * static_cast<double>(total_steps)));
  options.decay_ratio = s.decay_ratio;
  options.min_lr_ratio = s.min_lr_ratio;
  return options;
}

TokenizeOptions tokenize_options(const config::TrainConfig& config) {
  TokenizeOptions options;
  options.train_on = config.data.train_on == config::TrainOn::kAll ? TrainOn::kAll : TrainOn::kAnswers;
  options.max_length = static_cast<std::uint32_t>(config.data.max_length);
  switch (config.data.too_long) {
    case config::OnLongRecord::kStop: options.too_long = TooLong::kStop; break;
    case config::OnLongRecord::kSkip: options.too_long = TooLong::kSkip; break;
    case config::OnLongRecord::kTruncate: options.too_long = TooLong::kTruncate; break;
  }
  return options;
}

DataOptions data_options(const config::TrainConfig& config, const std::filesystem::path& source) {
  DataOptions options;
  options.source = source;
  options.on_error = config.data.on_error == config::OnBadRecord::kSkip ? OnError::kSkip : OnError::kStop;
  options.threads = static_cast<unsigned>(std::max(0, config.runtime.threads));
  return options;
}

std::string job_hash(const config::TrainConfig& config, const Precision& precision) {
  config::TrainConfig job = config;
  job.runtime = {};
  // As computed, not as asked for: auto may mean something else on the machine where the run goes on.
  job.runtime.dtype = precision.activation == DType::kBF16 ? config::ComputeType::kBF16 : config::ComputeType::kF32;
  job.runtime.backend = config.runtime.backend;
  job.telemetry = {};
  job.output = {};
  job.output.dir = "-";
  job.data.cache_dir = "-";
  job.training.save_every = 0;
  job.training.recompute = config::RecomputeLevel::kAuto;
  FastHash hash;
  hash.add(config::resolved_yaml(job));
  return hash.hex();
}

StepOptions step_options(const config::TrainConfig& config) {
  StepOptions options;
  options.packing.seed = static_cast<std::uint64_t>(config.training.seed);
  options.packing.micro_batch_tokens = static_cast<std::uint32_t>(config.training.micro_batch_tokens);
  options.packing.shuffle = config.data.shuffle;
  options.packing.packing = config.data.packing;
  options.micro_batches = static_cast<std::uint32_t>(config.training.micro_batches);
  options.epochs = config.training.epochs.value_or(1.0);
  options.max_steps = static_cast<std::uint64_t>(config.training.steps.value_or(0));
  return options;
}

std::optional<ChatFormat> chat_format(const config::TrainConfig& config, const Tokenizer& tokenizer) {
  const std::string_view name = chat_template_name(config.data.chat_template);
  if (config.data.chat_template != config::ChatTemplate::kAuto) return ChatFormat::choose(tokenizer, name);
  try {
    return ChatFormat::choose(tokenizer, name);
  } catch (const UnsupportedError&) {
    return std::nullopt;
  }
}

DType stored_dtype(config::StoredType type) {
  switch (type) {
    case config::StoredType::kF32: return DType::kF32;
    case config::StoredType::kF16: return DType::kF16;
    case config::StoredType::kBF16: return DType::kBF16;
  }
  return DType::kF32;
}

}  // namespace lomu
