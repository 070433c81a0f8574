// How fast a training step is as a user gets it, and where its time and memory go.
//
//   bench_train_step --model GGUF|FOLDER|CONFIG.json [--rank 16] [--tokens 512] [--micro-batches 4] [--steps N]
//                    [--dtype f32|bf16] [--device cpu|cuda] [--recompute auto|none|norms|mlp|block]
//   A config.json alone stands for a model of its shapes with random weights: bench/models/ has some.
//   mpirun -np 2 bench_train_step ...          the micro-batches divided over the ranks
//
// A step is what the trainer does, by the trainer's classes: forward and backward of every micro-batch, sums along the
// tree, reduce, optimizer step, gather, packing of the new factors. A micro-batch is one document (--documents:
// several) of random token ids, all supervised. Left out are reading data, validation and checkpoints. Stopwatches
// around the operations and the communicator cost less than a thousandth of a step.
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "bench/gemm_ceiling.h"
#include "bench/timed_communicator.h"
#include "bench/timed_ops.h"
#include "bench/train_step_report.h"
#include "comm/bootstrap.h"
#include "engine/commands/choice_option.h"
#include "engine/commands/compute_options.h"
#include "engine/data/batch.h"
#include "engine/session/model_session.h"
#include "engine/session/speed.h"
#include "engine/train/evaluation.h"
#include "engine/train/job_options.h"
#include "engine/train/make_step.h"
#include "engine/train/memory_fit.h"
#include "engine/train/memory_plan.h"
#include "engine/train/resident_memory.h"
#include "kernels/cuda/device_facts.h"
#include "kernels/error.h"
#include "kernels/philox.h"
#include "models/decoder/decoder.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kGpuProduct = 8192;  // large enough for the full rate of any GPU

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Settings {
  config::TrainConfig job;  ///< what a YAML file would say; its defaults where this program has no option
  int steps = 10;
  int warmup = 2;
  std::int64_t documents = 1;  ///< of a micro-batch; divides its tokens
  bool tokenizer = true;       ///< nothing here is text, but a training run has one in its memory
  std::filesystem::path json;
};

SessionOptions session_options_of(const Settings& settings) {
  SessionOptions options = session_options(settings.job);
  options.random_weights = settings.job.model.path.extension() == ".json";
  options.tokenizer = settings.tokenizer && !options.random_weights;
  options.compute.every_gpu = false;
  return options;
}

/// `documents` of equal length, packed.
Batch random_batch(std::int64_t tokens, std::int64_t documents, std::int64_t vocab, std::uint64_t index) {
  const Philox random(1, Purpose::kTest);
  Batch batch;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::uint64_t bits = random.bits(index, static_cast<std::uint64_t>(i));
    batch.ids.push_back(static_cast<std::int32_t>(bounded(bits, static_cast<std::uint64_t>(vocab))));
  }
  batch.labels = batch.ids;
  const std::int64_t length = tokens / documents;
  for (std::int64_t i = 0; i < tokens; ++i) batch.positions.push_back(static_cast<std::int32_t>(i % length));
  for (std::int64_t i = 0; i <= documents; ++i) batch.cu_seqlens.push_back(static_cast<std::int32_t>(i * length));
  batch.supervised = static_cast<std::uint64_t>(tokens - documents);
  return batch;
}

/// A trainer's insides without its data: the same objects, made in the same order.
class Training {
 public:
  Training(const Settings& settings, Communicator& comm)
      : job_(settings.job),
        comm_(comm),
        session_(ModelSession::open(session_options_of(settings), comm, true)),
        ops_(session_.ops()),
        adapters_(session_.config(), adapter_options(job_, session_.config()),
                  session_.files(), session_.ops().precision().gradient, session_.host_memory()) {
    omp_set_num_threads(session_.compute().threads);
    const std::int64_t tokens = job_.training.micro_batch_tokens;
    model_.emplace(session_.weights(), &adapters_, ops_, session_.memory());
    transport_ = open_transport(job_.runtime, session_, comm_);
    sharded_ = make_step(job_, session_, *model_, true, comm_, transport_.get());
    recompute_ = make_decoder(decoder_, *model_, ops_, session_.memory(), {tokens, tokens, tokens / settings.documents},
                              job_.training.recompute, comm_);
    for (int i = 0; i < job_.training.micro_batches; ++i) {
      batches_.push_back(
          random_batch(tokens, settings.documents, session_.config().vocab_size, static_cast<std::uint64_t>(i)));
      supervised_ += batches_.back().supervised;
    }
  }

  /// One step; adds its times to `parts` and returns the mean loss.
  double step(std::int64_t number, StepParts& parts) {
    const auto start = Clock::now();
    const auto supervised = static_cast<double>(supervised_);
    sharded_->begin(batches_.size());
    const Block block = sharded_->block();
    std::vector<double> losses;
    for (std::size_t i = block.begin; i < block.end; ++i) {
      losses.push_back(decoder_->forward_backward(view_of(batches_[i]), 1.0 / supervised, i, sharded_->hook(i)));
      const auto before_add = Clock::now();
      sharded_->add(i);
      parts.add += seconds_since(before_add);
    }
    const auto before_losses = Clock::now();
    const double loss = sharded_->tree_sum_of(losses) / supervised;
    parts.losses += seconds_since(before_losses);
    const double communicated = comm_.seconds();
    const auto before_finish = Clock::now();
    sharded_->finish(number, job_.optimizer.lr);
    parts.finish += seconds_since(before_finish);
    parts.communicate += comm_.seconds() - communicated;
    parts.total += seconds_since(start);
    return loss;
  }

  [[nodiscard]] const ModelSession& session() const { return session_; }
  [[nodiscard]] Recompute recompute() const { return recompute_; }
  TimedOps& ops() { return ops_; }
  TimedCommunicator& comm() { return comm_; }

 private:
  const config::TrainConfig& job_;
  TimedCommunicator comm_;
  ModelSession session_;
  TimedOps ops_;
  AdapterSet adapters_;
  std::optional<AdaptedModel> model_;
  std::unique_ptr<DeviceTransport> transport_;
  std::unique_ptr<ShardedStep> sharded_;
  Recompute recompute_ = Recompute::kNone;
  std::optional<Decoder> decoder_;
  std::vector<Batch> batches_;
  std::uint64_t supervised_ = 0;
};

/// Collective: the ranks' products run at the same time, as in a step.
double measure_ceiling(const ModelSession& session, Communicator& comm) {
  comm.barrier();
  if (session.compute().cuda_device) return product_speed(session.ops(), session.memory(), kGpuProduct, 0.3).rate;
  return gemm_ceiling(session.ops().precision().activation, session.compute().threads);
}

/// What was predicted and what has been allocated.
std::vector<MemoryScope> memory_before_steps(const MemoryPlan& plan, const Memory& memory) {
  std::vector<MemoryScope> scopes;
  for (std::size_t i = 0; i < kScopes; ++i) {
    const auto scope = static_cast<Scope>(i);
    scopes.push_back({std::string(name_of(scope)), plan.of(scope), memory.current(scope), 0});
  }
  return scopes;
}

/// Bytes in use on this rank's GPU, by this process and, where others share it, by them; 0 on the CPU.
std::uint64_t device_bytes(const ModelSession& session) {
  if (!session.compute().cuda_device) return 0;
  const cuda::GpuFacts gpu = cuda::device_facts().gpus.at(static_cast<std::size_t>(*session.compute().cuda_device));
  return gpu.memory_bytes - gpu.memory_free_bytes;
}

/// The last part of a path, also of one that ends in a slash.
std::string name_of_model(const std::filesystem::path& path) {
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

/// Sums `flops` and the ceilings over the ranks and takes the largest resident memory.
void combine_ranks(TrainStepReport& report, Communicator& comm) {
  std::vector<double> sums = {report.flops.frozen, report.flops.adapters, report.flops.attention, report.own_ceiling};
  comm.all_reduce_sum_ordered(sums, "figures of the ranks");
  report.flops = {sums[0], sums[1], sums[2]};
  report.ceiling = sums[3];
  std::vector<double> peak = {static_cast<double>(report.peak_resident_bytes),
                              static_cast<double>(report.peak_device_bytes)};
  comm.all_reduce_max(peak, "peak memory");
  report.peak_resident_bytes = static_cast<std::uint64_t>(peak[0]);
  report.peak_device_bytes = static_cast<std::uint64_t>(peak[1]);
}

TrainStepReport measure(const Settings& settings, Communicator& comm) {
  Training training(settings, comm);
  const ModelSession& session = training.session();
  TrainStepReport report;
  report.model = name_of_model(settings.job.model.path);
  report.compute = session.compute().text();
  report.optimizer = settings.job.optimizer.name == config::OptimizerName::kAdamW ? "adamw" : "lora_muon";
  report.ranks = comm.size();
  report.threads = session.compute().threads;
  report.recompute = name_of(training.recompute());
  report.adapter_rank = settings.job.adapter.rank;
  report.tokens = settings.job.training.micro_batch_tokens;
  report.micro_batches = settings.job.training.micro_batches;
  report.steps = settings.steps;
  const MemoryPlan plan =
      plan_memory(settings.job, session.config(), session.ops(), session.device_steps(), training.recompute(),
                  settings.job.training.micro_batch_tokens / settings.documents);
  report.memory = memory_before_steps(plan, session.memory());

  StepParts unused;
  for (int step = 1; step <= settings.warmup; ++step) training.step(step, unused);
  // All buffers exist now, and the matrices of the ceiling do not yet.
  report.peak_resident_bytes = peak_resident_bytes();
  report.peak_device_bytes = device_bytes(session);
  const double ceiling_before = measure_ceiling(session, comm);
  training.ops().reset();
  training.comm().reset();
  std::vector<double> times;
  for (int step = 1; step <= settings.steps; ++step) {
    const double before = report.parts.total;
    report.last_loss = training.step(settings.warmup + step, report.parts);
    if (step == 1) report.first_loss = report.last_loss;
    times.push_back(report.parts.total - before);
  }
  report.operations.assign(training.ops().times().begin(), training.ops().times().end());
  report.communication.assign(training.comm().times().begin(), training.comm().times().end());
  // Clock speeds drift and other programs come and go: the better of two is nearer to what the machine can do.
  report.own_ceiling = std::max(ceiling_before, measure_ceiling(session, comm));
  report.step_seconds = Spread::of(times);
  for (const OperationTime& operation : report.operations) {
    const double share = 1.0 / settings.steps;
    report.flops +=
        {operation.flops.frozen * share, operation.flops.adapters * share, operation.flops.attention * share};
  }
  for (std::size_t i = 0; i < kScopes; ++i) report.memory[i].peak = session.memory().peak(static_cast<Scope>(i));
  combine_ranks(report, comm);
  return report;
}

void write_report(const Settings& settings, const TrainStepReport& report) {
  if (settings.json == "-") {
    fmt::print("{}", as_json(report));
    return;
  }
  fmt::print("{}", as_table(report));
  if (settings.json.empty()) return;
  std::ofstream file(settings.json);
  file << as_json(report);
  file.close();
  if (!file) throw FileError("cannot write the results", settings.json.string());
}

void declare_options(CLI::App& app, Settings& settings, ComputeOptions& compute) {
  using config::OptimizerName;
  using config::RecomputeLevel;
  config::TrainConfig& job = settings.job;
  job.training.micro_batch_tokens = 512;
  job.training.micro_batches = 4;
  app.add_option("--model", job.model.path, "GGUF file, Hugging Face folder, or a config.json for random weights")
      ->required();
  app.add_option("--rank", job.adapter.rank, "rank of the adapter, at every site")->check(CLI::Range(1, 256));
  app.add_option("--tokens", job.training.micro_batch_tokens, "tokens of a micro-batch")->check(CLI::Range(2, 1 << 20));
  app.add_option("--documents", settings.documents, "packed into a micro-batch, of equal length")
      ->check(CLI::Range(1, 4096));
  app.add_option("--micro-batches", job.training.micro_batches, "of a step, over all ranks")
      ->check(CLI::Range(1, 4096));
  app.add_option("--steps", settings.steps, "measured steps")->check(CLI::Range(1, 100000));
  app.add_option("--warmup", settings.warmup, "steps before them")->check(CLI::Range(1, 1000));
  app.add_flag("!--no-tokenizer", settings.tokenizer, "leave it out, for a model that has none");
  app.add_flag("!--fast", job.runtime.deterministic, "runtime.deterministic: false");
  app.add_option("--json", settings.json, "file for the results as JSON; - for stdout, instead of the table");
  add_choice<OptimizerName>(app, "--optimizer", job.optimizer.name,
                            {{"lora_muon", OptimizerName::kLoraMuon}, {"adamw", OptimizerName::kAdamW}},
                            "the optimizer");
  add_choice<RecomputeLevel>(app, "--recompute", job.training.recompute,
                             {{"auto", RecomputeLevel::kAuto},
                              {"none", RecomputeLevel::kNone},
                              {"norms", RecomputeLevel::kNorms},
                              {"mlp", RecomputeLevel::kMlp},
                              {"block", RecomputeLevel::kBlock}},
                             "what backward computes again");
  declare(app, compute);
}

}  // namespace
}  // namespace lomu

int main(int argc, char** argv) {
  CLI::App app("Speed of a training step: tokens a second, time by operation, memory by scope");
  lomu::Settings settings;
  lomu::ComputeOptions compute;
  lomu::declare_options(app, settings, compute);
  try {
    app.parse(argc, argv);
    settings.job.runtime.device = compute.device;
    settings.job.runtime.backend = compute.backend;
    settings.job.runtime.dtype = compute.dtype;
    settings.job.runtime.threads = compute.threads;
    if (settings.job.training.micro_batch_tokens % settings.documents != 0 ||
        settings.job.training.micro_batch_tokens < 2 * settings.documents) {
      throw lomu::UsageError("--documents must divide --tokens into documents of two tokens or more", "command line");
    }
    lomu::JobRanks ranks(lomu::CommOptions::from_environment());
    try {
      const lomu::TrainStepReport report = lomu::measure(settings, ranks.world());
      if (ranks.world().rank() == 0) lomu::write_report(settings, report);
      return 0;
    } catch (const std::exception& error) {
      return lomu::conclude(ranks.world(), error);
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(lomu::Exit::kUsage);
  } catch (const lomu::Error& error) {
    fmt::print(stderr, "lomu: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
}
