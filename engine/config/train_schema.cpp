// The rows of the key table: every key of a training job, once. Those of the optimizer are in optimizer_schema.cpp.
#include <fmt/format.h>

#include "engine/config/optimizer_schema.h"
#include "engine/config/schema.h"
#include "engine/config/section.h"
#include "engine/config/sites.h"

namespace lomu::config {
namespace {

// An int member must hold whatever its row allows.
constexpr double kIntMax = 2147483647;
// The largest integer that every JSON reader keeps exactly.
constexpr double kExactMax = 9007199254740991;

void add_scratch(Table& table) {
  constexpr const char* kStart = "model.start";
  auto scratch = table.section(
      "model.scratch", "a Llama decoder on bytes (no tokenizer to learn), with random weights drawn from training.seed",
      [](auto& config) -> auto& { return config.model.scratch; });
  scratch.key("layers", &ScratchConfig::layers, "decoder blocks").range(1, 4096).when(kStart, "scratch");
  scratch.key("hidden", &ScratchConfig::hidden, "width of the residual stream")
      .range(2, 1 << 16)
      .when(kStart, "scratch");
  scratch.key("heads", &ScratchConfig::heads, "attention heads; hidden / heads must be even")
      .range(1, 1 << 12)
      .when(kStart, "scratch");
  scratch.key("kv_heads", &ScratchConfig::kv_heads, "key and value heads; a divisor of heads")
      .range(1, 1 << 12)
      .when(kStart, "scratch")
      .default_from("model.scratch.heads", [](const TrainConfig& config) -> Value {
        return static_cast<std::int64_t>(config.model.scratch.heads);
      });
  scratch.key("intermediate", &ScratchConfig::intermediate, "width inside the MLP")
      .range(1, 1 << 18)
      .when(kStart, "scratch")
      .default_from("3 x model.scratch.hidden",
                    [](const TrainConfig& config) -> Value { return std::int64_t{3} * config.model.scratch.hidden; });
  scratch
      .key("base", &ScratchConfig::base,
           {{"random", ScratchBase::kRandom, "random weights, which stay what they are unless trained in full"},
            {"none", ScratchBase::kNone, "no weights: the product of the two factors is the whole layer"}},
           "what lies under the pairs")
      .when(kStart, "scratch");
}

void add_model(Table& table) {
  auto model = table.section(
      "model", "the model that is finetuned; it is never changed", [](auto& config) -> auto& { return config.model; });
  model.key("start", &ModelConfig::start,
            {{"files", ModelStart::kFiles, "a model that somebody trained"},
             {"scratch", ModelStart::kScratch, "a small new one, described by model.scratch: for studies"}},
            "where it comes from");
  model.key("path", &ModelConfig::path, "a Hugging Face folder, or a GGUF file")
      .required()
      .when("model.start", "files");
  add_scratch(table);
}

void add_adapter(Table& table) {
  auto adapter = table.section(
      "adapter", "what is trained: a LoRA pair at every chosen linear layer",
      [](auto& config) -> auto& { return config.adapter; });
  adapter.key("rank", &AdapterConfig::rank, "rank r of every pair").range(1, 256);
  adapter.key("alpha", &AdapterConfig::alpha, "the adapter is scaled by alpha / rank")
      .above(0, 1e6)
      .default_from("2 x adapter.rank", [](const TrainConfig& config) -> Value { return 2.0 * config.adapter.rank; });
  adapter.key("rslora", &AdapterConfig::rslora, "scale by alpha / sqrt(rank) instead");
  adapter.key("dropout", &AdapterConfig::dropout, "share of the adapter's inputs set to zero in training")
      .from_below(0, 1);
  adapter.key(
      "targets", Type::kTextList, [](const AdapterConfig& a) -> Value { return names_text(a.targets); },
      [](AdapterConfig& a, const Value& value) { a.targets = read_sites(std::get<std::vector<std::string>>(value)); },
      "linear layers with a pair, any of q, k, v, o, gate, up, down (q_proj etc. also), or all, or none");
  adapter
      .key(
          "full", Type::kTextList, [](const AdapterConfig& a) -> Value { return names_text(a.full); },
          [](AdapterConfig& a, const Value& value) { a.full = read_full(std::get<std::vector<std::string>>(value)); },
          "weights trained themselves, without a pair: any of embedding, head, norms and the linear layers, or all, or "
          "none; by default none, of a scratch model embedding, head, norms")
      .default_from("by model.start", [](const TrainConfig& config) -> Value {
        if (config.model.start == ModelStart::kFiles) return std::vector<std::string>{"none"};
        return std::vector<std::string>{"embedding", "head", "norms"};
      });
  adapter.key(
      "layers", Type::kTextList, [](const AdapterConfig& a) -> Value { return layers_text(a.layers); },
      [](AdapterConfig& a, const Value& value) { a.layers = read_layers(std::get<std::vector<std::string>>(value)); },
      "decoder blocks with pairs, counted from 0: all, or numbers and ranges as 0-9,12");
  adapter
      .key("init", &AdapterConfig::init,
           {{"zero", AdapterInit::kZero, "left factor zero: the model starts unchanged"},
            {"balanced", AdapterInit::kBalanced,
             "both factors orthonormal and small: the model starts slightly changed"}},
           "where the factors start")
      .default_from("zero; balanced without a base", [](const TrainConfig& config) -> Value {
        const bool alone =
            config.model.start == ModelStart::kScratch && config.model.scratch.base == ScratchBase::kNone;
        return std::string(alone ? "balanced" : "zero");
      });
  adapter
      .key("gauge", &AdapterConfig::gauge,
           "left factors start this much larger, right ones as much smaller: the same product, for studies")
      .range(1e-6, 1e6);
  adapter
      .key("spectral_bound", &AdapterConfig::spectral_bound,
           "largest singular value that the adapter of a layer may have, held after every step")
      .above(0, 1e6)
      .or_off();
  adapter.key("spectral_clip", &AdapterConfig::spectral_clip,
              {{"hard", SpectralClip::kHard, "larger singular values become the bound"},
               {"soft", SpectralClip::kSoft, "from half the bound on they are bent towards it, and stay below"}},
              "how they are held there; without spectral_bound it says nothing");
  adapter.key("from", &AdapterConfig::from, "adapter to go on from: its rank, alpha, targets and layers must be these")
      .optional();
}

void add_data(Table& table) {
  auto data = table.section(
      "data", "what it learns from: JSON Lines, a record of messages, prompt and completion, or text each",
      [](auto& config) -> auto& { return config.data; });
  data.key("train", &DataConfig::train, "training records").required();
  data.key("validation", &DataConfig::validation, "records that are never trained on")
      .optional()
      .excludes("data.validation_split");
  data.key("validation_split", &DataConfig::validation_split, "share of the training records held out for validation")
      .above(0, 0.9)
      .optional()
      .excludes("data.validation");
  data.key("chat_template", &DataConfig::chat_template,
           {{"auto", ChatTemplate::kAuto, "the model's own"},
            {"chatml", ChatTemplate::kChatML, "<|im_start|>role ... <|im_end|>"},
            {"llama3", ChatTemplate::kLlama3, "<|start_header_id|>role<|end_header_id|> ... <|eot_id|>"}},
           "how messages become text");
  data.key("train_on", &DataConfig::train_on,
           {{"assistant", TrainOn::kAssistant,
             "what the assistant says with its end of turn, a completion, all of a plain text"},
            {"all", TrainOn::kAll, "every token, the user's too"}},
           "tokens that count in the loss");
  data.key("max_length", &DataConfig::max_length, "longest record; a record never spans two micro-batches")
      .unit("tokens")
      .range(2, 1 << 24)
      .default_from("training.micro_batch_tokens", [](const TrainConfig& config) -> Value {
        return static_cast<std::int64_t>(config.training.micro_batch_tokens);
      });
  const std::string skip = "leave it out, count it, report it";
  const std::string stop = "end with an error that names the line";
  data.key("too_long", &DataConfig::too_long,
           {{"skip", OnLongRecord::kSkip, skip},
            {"stop", OnLongRecord::kStop, stop},
            {"truncate", OnLongRecord::kTruncate, "keep its first max_length tokens: its end is not learned"}},
           "what to do with a longer record");
  data.key("on_error", &DataConfig::on_error, {{"stop", OnBadRecord::kStop, stop}, {"skip", OnBadRecord::kSkip, skip}},
           "what to do with a broken record");
  data.key("packing", &DataConfig::packing, "fill micro-batches by length; false: in order, as many records as fit");
  data.key("shuffle", &DataConfig::shuffle, "new order every epoch, drawn from training.seed");
  data.key("cache_dir", &DataConfig::cache_dir, "where tokenised data is kept, so that the next run starts at once");
}

void add_training(Table& table) {
  auto training = table.section(
      "training", "how long, and how much at a time", [](auto& config) -> auto& { return config.training; });
  training.key("steps", &TrainingConfig::steps, "optimizer steps to take; give this or epochs")
      .range(1, 1e9)
      .optional()
      .excludes("training.epochs");
  training.key("epochs", &TrainingConfig::epochs, "passes over the training data; give this or steps")
      .above(0, 1e6)
      .optional()
      .excludes("training.steps")
      .default_from("1 without steps",
                    [](const TrainConfig& config) { return config.training.steps ? Value{} : Value{1.0}; });
  training
      .key("micro_batch_tokens", &TrainingConfig::micro_batch_tokens, "length of one micro-batch: what memory pays for")
      .unit("tokens")
      .range(2, 1 << 24);
  training
      .key("micro_batches", &TrainingConfig::micro_batches,
           "micro-batches of one step, over all ranks together: the result does not depend on the number of ranks")
      .range(1, 1 << 24);
  training.key("recompute", &TrainingConfig::recompute,
               {{"auto", RecomputeLevel::kAuto,
                 "the first of the following that fits into the memory that is free; on a CPU from norms on"},
                {"none", RecomputeLevel::kNone, "nothing: the fastest, and the most memory"},
                {"norms", RecomputeLevel::kNorms, "norms and SwiGLU"},
                {"mlp", RecomputeLevel::kMlp, "the gate and up projections too"},
                {"block", RecomputeLevel::kBlock, "all of a block but its down projection: the least memory"}},
               "what backward computes again instead of keeping it; the result is the same bit for bit");
  training.key("validation_every", &TrainingConfig::validation_every, "distance of validations; 0: only at the end")
      .unit("steps")
      .range(0, kIntMax);
  training.key("save_every", &TrainingConfig::save_every, "distance of checkpoints; 0: only at the end")
      .unit("steps")
      .range(0, kIntMax);
  training.key("seed", &TrainingConfig::seed, "of every random draw: start, order, dropout").range(0, kExactMax);
}

void add_schedule(Table& table) {
  auto schedule = table.section(
      "training.schedule", "the learning rate over the steps",
      [](auto& config) -> auto& { return config.training.schedule; });
  schedule.key("name", &ScheduleConfig::name,
               {{"constant", ScheduleName::kConstant, "flat after the warm-up"},
                {"linear", ScheduleName::kLinear, "straight down to min_lr_ratio"},
                {"cosine", ScheduleName::kCosine, "half a cosine down to min_lr_ratio"},
                {"wsd", ScheduleName::kWsd, "warm-up, stable, then straight down over decay_ratio"}},
               "its shape after the warm-up");
  schedule.key("warmup_steps", &ScheduleConfig::warmup_steps, "length of the linear rise from zero")
      .unit("steps")
      .range(0, 1e9)
      .optional()
      .excludes("training.schedule.warmup_ratio");
  schedule.key("warmup_ratio", &ScheduleConfig::warmup_ratio, "the same as a share of all steps")
      .range(0, 1)
      .optional()
      .excludes("training.schedule.warmup_steps")
      .default_from("0.03 without warmup_steps", [](const TrainConfig& config) {
        return config.training.schedule.warmup_steps ? Value{} : Value{0.03};
      });
  schedule.key("decay_ratio", &ScheduleConfig::decay_ratio, "share of all steps in the final descent")
      .range(0, 1)
      .when("training.schedule.name", "wsd");
  schedule
      .key("min_lr_ratio", &ScheduleConfig::min_lr_ratio, "last learning rate over the highest; constant ignores it")
      .range(0, 1);
}

void add_runtime(Table& table) {
  auto runtime = table.section(
      "runtime", "where and how it is computed", [](auto& config) -> auto& { return config.runtime; });
  runtime.key("device", &RuntimeConfig::device,
              {{"auto", DeviceName::kAuto, "a GPU if the build and the machine have one"},
               {"cpu", DeviceName::kCpu, ""},
               {"cuda", DeviceName::kCuda, "needs a build with CUDA"}},
              "the processor");
  runtime.key("backend", &RuntimeConfig::backend,
              {{"auto", BackendName::kAuto, "the fast one of the device"},
               {"cpu", BackendName::kCpu, "oneDNN and OpenMP"},
               {"reference", BackendName::kReference, "plain loops: the specification, slow"}},
              "the implementation of the operations");
  runtime.key("dtype", &RuntimeConfig::dtype,
              {{"auto", ComputeType::kAuto, "bf16 where the processor multiplies it natively, else f32"},
               {"f32", ComputeType::kF32, ""},
               {"bf16", ComputeType::kBF16, ""}},
              "type of the frozen weights and activations; adapters are always f32");
  runtime.key("threads", &RuntimeConfig::threads, "threads of a rank; 0: the cores shared among the machine's ranks")
      .range(0, 4096);
  runtime
      .key("ranks_in_process", &RuntimeConfig::ranks_in_process,
           "ranks run as threads of one process, without mpirun; at most training.micro_batches")
      .range(1, 256);
  runtime.key("deterministic", &RuntimeConfig::deterministic,
              "the same adapter bit for bit on any number of ranks and threads; false may be faster on a GPU");
  runtime.key("comm_timeout", &RuntimeConfig::comm_timeout, "longest wait for another rank before the job is ended")
      .unit("seconds")
      .range(1, 86400);
}

void add_telemetry(Table& table) {
  auto telemetry = table.section(
      "telemetry", "what it tells of itself", [](auto& config) -> auto& { return config.telemetry; });
  telemetry
      .key(
          "every", &TelemetryConfig::every,
          "distance of steps whose figures of every pair go to metrics.jsonl: spectra, conditions, step sizes; 0: none")
      .unit("steps")
      .range(0, kIntMax);
  telemetry.key("tensorboard", &TelemetryConfig::tensorboard,
                "write the metrics for TensorBoard too: tensorboard --logdir DIR/events");
}

void add_output(Table& table) {
  auto output = table.section(
      "output", "what it leaves behind", [](auto& config) -> auto& { return config.output; });
  output.key("dir", &OutputConfig::dir, "folder of the run: adapter, checkpoints, metrics, resolved configuration")
      .required();
  output.key("overwrite", &OutputConfig::overwrite, "replace an earlier run in that folder");
  output.key("adapter_dtype", &OutputConfig::adapter_dtype,
             {{"f32", StoredType::kF32, "exactly what was trained"},
              {"bf16", StoredType::kBF16, ""},
              {"f16", StoredType::kF16, ""}},
             "type of the exported adapter");
}

Schema build() {
  Table table;
  add_model(table);
  add_adapter(table);
  add_data(table);
  add_training(table);
  add_schedule(table);
  add_optimizer(table);
  add_runtime(table);
  add_telemetry(table);
  add_output(table);
  return std::move(table).build();
}

}  // namespace

const Schema& train_schema() {
  static const Schema schema = build();
  return schema;
}

}  // namespace lomu::config
