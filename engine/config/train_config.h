// One finetuning job as plain data: what a YAML file says once every default has been filled in.
// No parsing, no checks, no text: train_schema.cpp names the keys and their limits, load.h reads them, resolved.h
// writes them back. The rooms that do the work take the values they need from here and never see YAML.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lomu::config {

enum class ModelStart { kFiles, kScratch };
enum class ScratchBase { kRandom, kNone };
enum class AdapterInit { kZero, kBalanced };
enum class SpectralClip { kHard, kSoft };
enum class ChatTemplate { kAuto, kChatML, kLlama3 };
enum class OnBadRecord { kStop, kSkip };
enum class OnLongRecord { kStop, kSkip, kTruncate };
enum class TrainOn { kAssistant, kAll };
enum class RecomputeLevel { kAuto, kNone, kNorms, kMlp, kBlock };
enum class ScheduleName { kConstant, kLinear, kCosine, kWsd };
enum class OptimizerName {
  kLoraMuon,
  kAdamW,
  kMuon,
  kMuonFactors,
  kSpectron,
  kLoraRite,
  kLoraRiteCore,
  kScaledAdamW,
  kLoraPlus,
};
enum class Orthogonalizer { kExact, kNewtonSchulz, kPolarExpress };
enum class SpectralFilter { kSign, kDamped, kPower };
enum class MuonScaling { kOriginal, kRms, kNone };
enum class StepMultiplier { kNone, kFrobenius, kSqrtMOverN, kRms, kRmsOverWidth };
enum class DeviceName { kAuto, kCpu, kCuda };
enum class BackendName { kAuto, kCpu, kReference };
enum class ComputeType { kAuto, kF32, kBF16 };
enum class StoredType { kF32, kF16, kBF16 };

/// A model made from nothing: a Llama decoder on bytes.
struct ScratchConfig {
  int layers = 2;
  int hidden = 128;
  int heads = 4;
  int kv_heads = 4;
  int intermediate = 384;
  ScratchBase base = ScratchBase::kRandom;
  bool operator==(const ScratchConfig&) const = default;
};

struct ModelConfig {
  ModelStart start = ModelStart::kFiles;
  std::filesystem::path path;  ///< of kFiles
  ScratchConfig scratch;       ///< of kScratch
  bool operator==(const ModelConfig&) const = default;
};

/// Blocks first..last of the decoder, both included, counted from 0.
struct LayerRange {
  int first = 0;
  int last = 0;
  bool operator==(const LayerRange&) const = default;
};

struct AdapterConfig {
  int rank = 16;
  double alpha = 32;
  bool rslora = false;
  double dropout = 0;
  std::vector<std::string> targets = {"q", "k", "v", "o", "gate", "up", "down"};  ///< a subset, in this order
  std::vector<LayerRange> layers;                                                 ///< empty: every block
  std::vector<std::string> full;  ///< trained in full: any of embedding, head, norms and the sites
  AdapterInit init = AdapterInit::kZero;
  double gauge = 1;
  std::optional<double> spectral_bound;  ///< unset: none
  SpectralClip spectral_clip = SpectralClip::kHard;
  std::filesystem::path from;  ///< empty: a fresh adapter
  bool operator==(const AdapterConfig&) const = default;

  /// s of W = W0 + s P Q^T: alpha / rank, or alpha / sqrt(rank) with rslora.
  [[nodiscard]] double scale() const;
  /// One flag a block, for a model of `blocks` blocks. UsageError if a range ends beyond the last block.
  [[nodiscard]] std::vector<bool> layer_mask(int blocks) const;
};

struct DataConfig {
  std::vector<std::filesystem::path> train;
  std::filesystem::path validation;  ///< empty: none
  std::optional<double> validation_split;
  ChatTemplate chat_template = ChatTemplate::kAuto;
  TrainOn train_on = TrainOn::kAssistant;
  int max_length = 1024;  ///< tokens
  OnLongRecord too_long = OnLongRecord::kSkip;
  OnBadRecord on_error = OnBadRecord::kStop;
  bool packing = true;
  bool shuffle = true;
  std::filesystem::path cache_dir = "cache/tokenized";
  bool operator==(const DataConfig&) const = default;
};

struct ScheduleConfig {
  ScheduleName name = ScheduleName::kLinear;
  std::optional<std::int64_t> warmup_steps;  ///< exactly one of this and warmup_ratio is set
  std::optional<double> warmup_ratio = 0.03;
  double decay_ratio = 0.2;
  double min_lr_ratio = 0;
  bool operator==(const ScheduleConfig&) const = default;
};

struct TrainingConfig {
  std::optional<std::int64_t> steps;  ///< exactly one of this and epochs is set
  std::optional<double> epochs = 1;
  int micro_batch_tokens = 1024;
  int micro_batches = 8;  ///< a step, over all ranks together
  RecomputeLevel recompute = RecomputeLevel::kAuto;
  int validation_every = 100;
  int save_every = 500;
  std::int64_t seed = 0;
  ScheduleConfig schedule;
  bool operator==(const TrainingConfig&) const = default;
};

struct OptimizerConfig {
  OptimizerName name = OptimizerName::kLoraMuon;
  double lr = 0.05;
  double weight_decay = 0;
  double momentum = 0.9;
  bool nesterov = false;
  std::optional<double> damping = 0.1;  ///< rho; unset: off
  Orthogonalizer orthogonalizer = Orthogonalizer::kExact;
  SpectralFilter filter = SpectralFilter::kSign;
  double filter_tau = 0.1;
  double filter_power = 0.5;
  StepMultiplier multiplier = StepMultiplier::kRmsOverWidth;
  MuonScaling scaling = MuonScaling::kOriginal;
  int balance_every = 100;  ///< steps; 0: never
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double lr_ratio = 16;
  double delta = 1e-6;
  std::optional<double> max_grad_norm = 0.1;  ///< unset: no clipping
  bool operator==(const OptimizerConfig&) const = default;
};

/// Parameters that are stepped otherwise than `optimizer` says.
struct OptimizerGroup {
  std::vector<std::string> match;       ///< site names, or full names with *
  OptimizerConfig optimizer;            ///< whole: what the group leaves out is filled in; max_grad_norm is the job's
  std::optional<double> lr_multiplier;  ///< while it is read: becomes optimizer.lr
  bool operator==(const OptimizerGroup&) const = default;
};

struct RuntimeConfig {
  DeviceName device = DeviceName::kAuto;
  BackendName backend = BackendName::kAuto;
  ComputeType dtype = ComputeType::kAuto;
  int threads = 0;  ///< a rank; 0: the machine's cores shared among its ranks
  int ranks_in_process = 1;
  bool deterministic = true;
  double comm_timeout = 300;  ///< seconds
  bool operator==(const RuntimeConfig&) const = default;
};

struct TelemetryConfig {
  int every = 0;  ///< steps; 0: never
  bool tensorboard = false;
  bool operator==(const TelemetryConfig&) const = default;
};

struct OutputConfig {
  std::filesystem::path dir;
  bool overwrite = false;
  StoredType adapter_dtype = StoredType::kF32;
  bool operator==(const OutputConfig&) const = default;
};

struct TrainConfig {
  ModelConfig model;
  AdapterConfig adapter;
  DataConfig data;
  TrainingConfig training;
  OptimizerConfig optimizer;
  std::vector<OptimizerGroup> optimizer_groups;
  RuntimeConfig runtime;
  TelemetryConfig telemetry;
  OutputConfig output;
  bool operator==(const TrainConfig&) const = default;
};

}  // namespace lomu::config
