#include "engine/commands/train.h"

#include <fmt/format.h>

#include <chrono>

#include "comm/bootstrap.h"
#include "comm/communicator.h"
#include "comm/thread_communicator.h"
#include "engine/config/load.h"
#include "engine/config/resolved.h"
#include "engine/config/terminal.h"
#include "engine/train/trainer.h"

namespace lomu {
namespace {

void print_summary(const TrainSummary& summary, const config::TrainConfig& config) {
  const Style style = style_for(stderr);
  const auto row = [&](const char* name, const std::string& value) {
    fmt::print(stderr, "  {:<16} {}\n", name, value);
  };
  fmt::print(stderr, "{}\n", style.bold("done"));
  row("loss", fmt::format("{:.4f} at the first step, {:.4f} at the last", summary.first_loss, summary.last_loss));
  if (summary.validation_after) {
    row("validation loss",
        fmt::format("{:.4f} before, {:.4f} after", *summary.validation_before, *summary.validation_after));
  }
  row("time", fmt::format("{} for {} tokens", human_duration(summary.seconds),
                          human_count(static_cast<double>(summary.tokens))));
  row("speed", fmt::format("{:.0f} tokens/s (median step), optimizer {:.2f} % of it", summary.tokens_per_second,
                           100 * summary.optimizer_share));
  row("peak memory", fmt::format("{} (largest rank)", human_bytes(summary.peak_bytes)));
  const std::string kind = summary.result.filename().string();
  row(kind.c_str(), summary.result.string());
  const bool is_model = kind == "model";
  fmt::print(stderr, "next: lomu generate --model {}{}{}\n",
             is_model ? summary.result.string() : config.model.path.string(), is_model ? "" : " --adapter ",
             is_model ? "" : summary.result.string());
}

CommOptions comm_options(const config::TrainConfig& config) {
  CommOptions options;
  options.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(config.runtime.comm_timeout * 1000));
  return options;
}

Exit run_in_threads(const config::TrainConfig& config, bool resume) {
  std::optional<TrainSummary> summary;
  run_threads(
      config.runtime.ranks_in_process,
      [&](Communicator& comm) {
        TrainSummary mine = train(config, resume, comm);
        if (comm.rank() == 0) summary = std::move(mine);
      },
      comm_options(config));
  print_summary(*summary, config);
  return Exit::kDone;
}

}  // namespace

Exit run_train(const TrainOptions& options) {
  const config::TrainConfig config = config::load_config(options.config, options.overrides);
  if (options.print_config) {
    write_out(config::resolved_yaml(config));
    return Exit::kDone;
  }
  JobRanks ranks(comm_options(config));
  Communicator& world = ranks.world();
  if (config.runtime.ranks_in_process > 1) {
    if (world.size() > 1) {
      throw UsageError("ranks_in_process and a launcher exclude each other", "runtime.ranks_in_process",
                       "start without mpirun, or set it to 1");
    }
    return run_in_threads(config, options.resume);
  }
  if (world.size() == 1) {
    print_summary(train(config, options.resume, world), config);
    return Exit::kDone;
  }
  try {
    const TrainSummary summary = train(config, options.resume, world);
    if (world.rank() == 0) print_summary(summary, config);
    return Exit::kDone;
  } catch (const std::exception& error) {
    return static_cast<Exit>(conclude(world, error));
  }
}

}  // namespace lomu
