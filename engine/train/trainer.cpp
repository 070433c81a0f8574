#include "engine/train/trainer.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/config/resolved.h"
#include "engine/config/terminal.h"
#include "engine/data/step_plan.h"
#include "engine/session/model_session.h"
#include "engine/train/checkpoint.h"
#include "engine/train/evaluation.h"
#include "engine/train/event_file.h"
#include "engine/train/job_options.h"
#include "engine/train/make_step.h"
#include "engine/train/memory_fit.h"
#include "engine/train/metrics.h"
#include "engine/train/nonfinite.h"
#include "engine/train/progress.h"
#include "engine/train/resident_memory.h"
#include "engine/train/run_folder.h"
#include "engine/train/same_job.h"
#include "engine/train/starting_adapter.h"
#include "engine/train/trained_model.h"
#include "engine/train/training_data.h"
#include "kernels/error.h"
#include "kernels/philox.h"
#include "models/decoder/decoder.h"
#include "models/files/atomic_file.h"
#include "models/files/peft_adapter.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

DecoderCapacity capacity_of(const config::TrainConfig& config, const TrainingData& data) {
  DecoderCapacity capacity;
  capacity.tokens = config.training.micro_batch_tokens;
  capacity.supervised = config.training.micro_batch_tokens;
  capacity.document = data.longest();
  return capacity;
}

bool left_factors_are_zero(const AdapterSet& adapters) {
  return std::all_of(adapters.pairs().begin(), adapters.pairs().end(), [&](const PairInfo& p) {
    if (p.full) return true;  // no factor
    const auto b = adapters.b(p);
    return std::all_of(b.begin(), b.end(), [](float x) { return x == 0.0f; });
  });
}

RunFolder::Start start_of(const config::TrainConfig& config, bool resume) {
  if (resume) return RunFolder::Start::kResume;
  return config.output.overwrite ? RunFolder::Start::kOverwrite : RunFolder::Start::kNew;
}

/// On the leader. Before that, what can be refused before anything is loaded.
std::unique_ptr<RunFolder> open_folder(const config::TrainConfig& config, bool resume, Communicator& comm) {
  check_same_job(config, comm);
  return comm.together(
      [&] {
        check_ranks(comm.size(), static_cast<std::uint32_t>(config.training.micro_batches));
        return comm.rank() == 0 ? std::make_unique<RunFolder>(config.output.dir, start_of(config, resume)) : nullptr;
      },
      "output folder");
}

/// The run of one rank.
class Run {
 public:
  Run(const config::TrainConfig& config, bool resume, Communicator& comm)
      : config_(config),
        comm_(comm),
        leader_(comm.rank() == 0),
        folder_(open_folder(config, resume, comm)),
        session_(ModelSession::open(session_options(config), comm, true)),
        data_(config, session_.tokenizer(), comm),
        adapters_(comm.together([&] { return starting_adapter(config, session_); }, "making the adapter")),
        started_zero_(left_factors_are_zero(adapters_)) {
    omp_set_num_threads(session_.compute().threads);
    comm_.together(
        [&] {
          prepare();
          model_.emplace(session_.weights(), &adapters_, session_.ops(), session_.memory());
        },
        "preparing the run");
    transport_ = open_transport(config_.runtime, session_, comm_);
    comm_.together([&] { make_sharded(); }, "preparing the optimizer");
    if (resume) restore();
    recompute_ = make_decoder(decoder_, *model_, session_.ops(), session_.memory(), capacity_of(config, data_),
                              config.training.recompute, comm);
    comm_.together([&] { begin(); }, "beginning the run");
  }

  TrainSummary train();

 private:
  void prepare();
  void make_sharded() {
    sharded_.reset();
    sharded_ = make_step(config_, session_, *model_, started_zero_, comm_, transport_.get());
  }
  void restore();
  void begin();
  void introduce() const;
  StepMetrics one_step(std::int64_t step);
  double run_micro_batches(const PlannedStep& planned, std::int64_t step);
  double validate(const std::string& when) { return validation_loss(data_, *decoder_, comm_, when); }
  /// Brings the factors to host memory and checks them. Collective.
  void fetch_adapter(std::int64_t step);
  void save(std::int64_t step);
  void finish(TrainSummary& summary);
  [[nodiscard]] std::string base_model() const { return session_.files().path().string(); }

  const config::TrainConfig& config_;
  Communicator& comm_;
  bool leader_;
  std::unique_ptr<RunFolder> folder_;  ///< on the leader
  ModelSession session_;
  TrainingData data_;
  AdapterSet adapters_;
  bool started_zero_;
  std::optional<AdaptedModel> model_;
  std::unique_ptr<DeviceTransport> transport_;
  std::unique_ptr<ShardedStep> sharded_;
  Recompute recompute_ = Recompute::kNone;
  std::optional<Decoder> decoder_;
  std::int64_t total_ = 0;
  std::int64_t done_ = 0;  ///< steps before this run began
  ScheduleOptions schedule_;
};

void Run::prepare() {
  if (session_.ops().precision().gradient != DType::kF32) {
    throw UsageError("training needs f32 gradients", "runtime.dtype", "use bf16 or f32");
  }
  total_ = static_cast<std::int64_t>(data_.plan().total_steps());
  schedule_ = schedule_options(config_, total_);
  check_schedule(schedule_);
}

void Run::begin() {
  if (!leader_) return;
  folder_->begin();
  write_file(folder_->config(), config::resolved_yaml(config_));
}

void Run::restore() {
  // The leader says which checkpoint; every rank reads it, so the folder must be on a disk that all see.
  const LoadedCheckpoint loaded = comm_.together(
      [&] {
        const auto newest = newest_checkpoint(config_.output.dir / "checkpoints");
        if (!newest) {
          throw UsageError("the run has no checkpoint yet", config_.output.dir.string(),
                           "start it anew with output.overwrite=true");
        }
        LoadedCheckpoint read = read_checkpoint(*newest, adapters_, sharded_->optimizer());
        const auto differs = [&](std::string_view what) {
          throw UsageError(fmt::format("the checkpoint was made with {}", what), newest->string(),
                           "resume with the configuration in config.yaml of the run, or start a new one");
        };
        if (read.head.job != job_hash(config_, session_.ops().precision())) differs("other settings");
        if (read.head.model != session_.files().fingerprint()) differs("another base model");
        if (read.head.data != data_.fingerprint()) differs("other data");
        if (leader_ && read.head.step == total_ && std::filesystem::exists(folder_->summary())) {
          throw UsageError(fmt::format("the run has finished: its {} steps are done", total_),
                           config_.output.dir.string(),
                           "its adapter is in the folder; to train anew, choose another output.dir");
        }
        return read;
      },
      "reading the checkpoint");
  done_ = loaded.head.step;
  started_zero_ = loaded.head.left_started_zero;
  comm_.together(
      [&] {
        model_->refresh();
        make_sharded();
        sharded_->restore_state(loaded.state);
      },
      "restoring the optimizer");
}

void Run::introduce() const {
  const ModelConfig& model = session_.config();
  fmt::print(stderr, "model      {} ({}, {} layers)\n", base_model(),
             human_count(static_cast<double>(session_.files().parameter_count())), model.num_layers);
  const auto full = std::count_if(adapters_.pairs().begin(), adapters_.pairs().end(), [](auto& p) { return p.full; });
  const auto sites = static_cast<std::int64_t>(adapters_.pairs().size()) - full;
  fmt::print(stderr, "adapter    {}{}{} parameters\n",
             sites > 0 ? fmt::format("rank {}, {} sites, ", config_.adapter.rank, sites) : "",
             full > 0 ? fmt::format("{} weights in full, ", full) : "",
             human_count(static_cast<double>(adapters_.factors().size())));
  for (const std::string& line : data_.report()) fmt::print(stderr, "data       {}\n", line);
  fmt::print(stderr, "compute    {} rank{} of {}\n", comm_.size(), comm_.size() == 1 ? "" : "s",
             session_.compute().text());
  if (!session_.weights_note().empty()) fmt::print(stderr, "note       {}\n", session_.weights_note());
  fmt::print(stderr, "recompute  {}\n", name_of(recompute_));
  const auto ledger = [](const char* title, const Memory& memory) {
    fmt::print(stderr, "{} planned {}, one rank:\n{}", title, human_bytes(memory.current_total()), memory.table());
  };
  ledger("memory    ", session_.memory());
  if (&session_.host_memory() != &session_.memory()) ledger("host      ", session_.host_memory());
}

double Run::run_micro_batches(const PlannedStep& planned, std::int64_t step) {
  sharded_->begin(planned.micro_batches.size());
  const Block block = sharded_->block();
  const auto batch_of = [&](std::size_t i) { return data_.train().batch(planned.micro_batches[i].examples); };
  std::vector<double> losses;
  for (std::size_t i = block.begin; i < block.end; ++i) {
    const Batch batch = batch_of(i);
    const std::uint64_t dropout_key = Philox(static_cast<std::uint64_t>(config_.training.seed), Purpose::kDropout)
                                          .bits(static_cast<std::uint64_t>(step), i);
    losses.push_back(decoder_->forward_backward(view_of(batch), 1.0 / static_cast<double>(planned.supervised),
                                                dropout_key, sharded_->hook(i)));
    sharded_->add(i);
  }
  const double loss = sharded_->tree_sum_of(losses) / static_cast<double>(planned.supervised);
  if (!std::isfinite(loss)) {
    refuse_loss("the loss", fmt::format("step {}", step), losses, block.begin, batch_of, *decoder_, comm_);
  }
  return loss;
}

StepMetrics Run::one_step(std::int64_t step) {
  const auto start = Clock::now();
  const PlannedStep planned = data_.plan().step(static_cast<std::uint64_t>(step - 1));
  StepMetrics m;
  m.step = step;
  m.epoch = data_.plan().epochs_before(static_cast<std::uint64_t>(step - 1));
  m.lr = learning_rate(schedule_, config_.optimizer.lr, step, total_);
  m.tokens = planned.tokens;
  m.supervised = planned.supervised;
  m.loss = run_micro_batches(planned, step);
  const auto before_optimizer = Clock::now();
  const bool telemetry = config_.telemetry.every > 0 && step % config_.telemetry.every == 0;
  const StepTotals totals = sharded_->finish(step, m.lr, telemetry);
  m.optimizer_seconds = seconds_since(before_optimizer);
  m.seconds = seconds_since(start);
  m.tokens_per_second = static_cast<double>(m.tokens) / m.seconds;
  m.grad_norm = totals.grad_norm;
  m.update_norm = totals.update_norm;
  m.max_relative_step = totals.max_relative_step;
  m.cholesky_raises = totals.cholesky_raises;
  for (std::size_t i = 0; i < totals.pairs.size(); ++i) {
    m.pairs.push_back({adapters_.pairs()[i].name, totals.pairs[i]});
  }
  return m;
}

void Run::fetch_adapter(std::int64_t step) {
  comm_.together(
      [&] {
        model_->fetch_factors();
        check_factors(adapters_, step);
      },
      "checking the adapter");
}

void Run::save(std::int64_t step) {
  fetch_adapter(step);
  const auto state = sharded_->gather_state();
  comm_.together(
      [&] {
        if (!leader_) return;
        CheckpointHead head;
        head.step = step;
        head.data = data_.fingerprint();
        head.model = session_.files().fingerprint();
        head.job = job_hash(config_, session_.ops().precision());
        head.left_started_zero = started_zero_;
        write_checkpoint(folder_->checkpoints(), head, adapters_, sharded_->optimizer(), state, base_model(),
                         session_.config());
      },
      "writing a checkpoint");
}

TrainSummary Run::train() {
  TrainSummary summary;
  std::optional<MetricsFile> metrics;
  std::optional<EventFile> events;
  std::optional<Progress> progress;
  if (leader_) introduce();
  comm_.together(
      [&] {
        if (!leader_) return;
        metrics.emplace(folder_->metrics(), done_);
        if (config_.telemetry.tensorboard) events.emplace(folder_->events(), done_);
        if (!metrics->earlier()) return;
        summary.first_loss = metrics->earlier()->first;
        summary.last_loss = metrics->earlier()->last;
      },
      "opening the metrics file");
  if (data_.validation() != nullptr) {
    summary.validation_before = validate(fmt::format("before step {}", done_ + 1));
    if (leader_) fmt::print(stderr, "validation {:.4f} before step {}\n", *summary.validation_before, done_ + 1);
  }
  if (leader_) progress.emplace(done_ + 1, total_);

  const auto start = Clock::now();
  std::vector<double> rates;
  double step_seconds = 0;
  double optimizer_seconds = 0;
  for (std::int64_t step = done_ + 1; step <= total_; ++step) {
    comm_.set_context(fmt::format("step {}", step));
    StepMetrics m = one_step(step);
    const bool last = step == total_;
    const int every = config_.training.validation_every;
    if (data_.validation() != nullptr && (last || (every > 0 && step % every == 0))) {
      m.validation_loss = validate(fmt::format("after step {}", step));
      summary.validation_after = m.validation_loss;
    }
    comm_.together(
        [&] {
          if (leader_) metrics->append(m);
          if (events) events->append(m);
        },
        "writing the metrics");
    if (leader_) progress->show(m);
    if (config_.training.save_every > 0 && step % config_.training.save_every == 0 && !last) save(step);
    if (step == 1) summary.first_loss = m.loss;
    summary.last_loss = m.loss;
    summary.tokens += m.tokens;
    rates.push_back(m.tokens_per_second);
    step_seconds += m.seconds;
    optimizer_seconds += m.optimizer_seconds;
  }
  // A run that had only its export left has no step to validate after.
  if (done_ == total_) summary.validation_after = summary.validation_before;
  summary.steps = total_;
  summary.seconds = seconds_since(start);
  if (!rates.empty()) {
    std::nth_element(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2), rates.end());
    summary.tokens_per_second = rates[rates.size() / 2];
    summary.optimizer_share = optimizer_seconds / step_seconds;
  }
  progress.reset();
  finish(summary);
  return summary;
}

void Run::finish(TrainSummary& summary) {
  std::vector<double> peak = {static_cast<double>(peak_resident_bytes())};
  comm_.all_reduce_max(peak, "peak memory");
  summary.peak_bytes = static_cast<std::uint64_t>(peak.front());
  const bool is_model = makes_a_model(adapters_, session_.files());
  const std::string kind = is_model ? "model" : "adapter";
  summary.result = config_.output.dir / kind;
  fetch_adapter(total_);
  if (config_.training.save_every > 0) save(total_);
  comm_.together(
      [&] {
        if (!leader_) return;
        const DType dtype = stored_dtype(config_.output.adapter_dtype);
        if (is_model) {
          write_trained_model(summary.result, adapters_, session_.files(), dtype);
        } else {
          write_peft_adapter(summary.result, adapters_.to_file(base_model()), session_.config(), dtype, true);
        }
        nlohmann::ordered_json object = {{"steps", summary.steps},
                                         {"first_loss", summary.first_loss},
                                         {"last_loss", summary.last_loss},
                                         {"tokens", summary.tokens},
                                         {"seconds", summary.seconds},
                                         {"tokens_per_second", summary.tokens_per_second},
                                         {"optimizer_share", summary.optimizer_share},
                                         {"peak_bytes", summary.peak_bytes},
                                         {"ranks", comm_.size()},
                                         {"threads_per_rank", session_.compute().threads},
                                         {"compute", session_.compute().text()},
                                         {"recompute", name_of(recompute_)},
                                         {kind, summary.result.string()}};
        if (summary.validation_before) object["validation_before"] = *summary.validation_before;
        if (summary.validation_after) object["validation_after"] = *summary.validation_after;
        write_file(folder_->summary(), object.dump(2) + "\n");
      },
      "writing the adapter");
}

}  // namespace

TrainSummary train(const config::TrainConfig& config, bool resume, Communicator& comm) {
  Run run(config, resume, comm);
  return run.train();
}

}  // namespace lomu
