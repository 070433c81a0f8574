#include "engine/commands/plan.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "comm/communicator.h"
#include "engine/config/load.h"
#include "engine/config/terminal.h"
#include "engine/train/job_options.h"
#include "engine/train/memory_fit.h"
#include "engine/train/memory_plan.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

/// The plans of all levels, and what they are held against.
struct Plans {
  std::string model;
  std::string compute;
  std::int64_t tokens = 0;
  std::vector<MemoryPlan> levels;  ///< as kRecomputeLadder
  std::size_t free = 0;            ///< bytes to plan with
  std::size_t chosen = 0;          ///< level of `auto`
};

Plans make_plans(const config::TrainConfig& job) {
  const bool shapes_alone = job.model.path.extension() == ".json";
  const ModelFiles files = shapes_alone ? ModelFiles::random(job.model.path) : ModelFiles::open(job.model.path);
  const auto alone = make_self_communicator();
  ComputeRequest request = session_options(job).compute;
  request.every_gpu = false;  // the plan is of one rank, whatever the job has
  const ComputeChoice compute = choose_compute(request, *alone);
  const Backend backend = open_backend(compute);
  Plans plans{job.model.path.string(), compute.text(), job.training.micro_batch_tokens, {}, 0, 0};
  for (const Recompute level : kRecomputeLadder) {
    plans.levels.push_back(
        plan_memory(job, files.config(), *backend.ops, backend.steps.get(), level, job.data.max_length));
  }
  plans.free = bytes_to_plan_with(*backend.memory, *alone);
  plans.chosen = kRecomputeLadder.size() - levels_of_auto(*backend.ops).size();
  while (plans.chosen + 1 < plans.levels.size() && plans.levels[plans.chosen].total() > plans.free) ++plans.chosen;
  return plans;
}

std::string as_table(const Plans& plans) {
  std::string text =
      fmt::format("{}, {}; one rank, micro-batches of {} tokens; megabytes by training.recompute\n\n{:<22}",
                  plans.model, plans.compute, plans.tokens, "");
  for (const Recompute level : kRecomputeLadder) text += fmt::format("{:>12}", name_of(level));
  const auto row = [&](std::string_view name, auto bytes_of) {
    text += fmt::format("\n{:<22}", name);
    for (const MemoryPlan& plan : plans.levels)
      text += fmt::format("{:>12.1f}", static_cast<double>(bytes_of(plan)) / 1e6);
  };
  for (std::size_t i = 0; i < kScopes; ++i) {
    row(name_of(static_cast<Scope>(i)), [&](const MemoryPlan& plan) { return plan.bytes[i]; });
  }
  row("total", [](const MemoryPlan& plan) { return plan.total(); });
  text += fmt::format("\n{:<22}", "kept, bytes a token");
  for (const MemoryPlan& plan : plans.levels) text += fmt::format("{:>12}", plan.kept_of_a_block);
  const bool fits = plans.levels[plans.chosen].total() <= plans.free;
  text += fmt::format("\n\n{} can be planned with: {}\n", in_megabytes(plans.free),
                      fits ? fmt::format("auto is {}", name_of(kRecomputeLadder[plans.chosen])) : "no level fits");
  return text;
}

std::string as_json(const Plans& plans) {
  nlohmann::ordered_json levels = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < plans.levels.size(); ++i) {
    nlohmann::ordered_json& level = levels[std::string(name_of(kRecomputeLadder[i]))];
    for (std::size_t s = 0; s < kScopes; ++s)
      level[std::string(name_of(static_cast<Scope>(s)))] = plans.levels[i].bytes[s];
    level["total"] = plans.levels[i].total();
    level["kept_of_a_block"] = plans.levels[i].kept_of_a_block;
  }
  const nlohmann::ordered_json object = {{"model", plans.model},
                                         {"compute", plans.compute},
                                         {"tokens", plans.tokens},
                                         {"levels", levels},
                                         {"free", plans.free},
                                         {"auto", name_of(kRecomputeLadder[plans.chosen])},
                                         {"fits", plans.levels[plans.chosen].total() <= plans.free}};
  return object.dump(2) + "\n";
}

}  // namespace

Exit run_plan(const PlanOptions& options) {
  const Plans plans = make_plans(config::load_config(options.config, options.overrides));
  write_out(options.json ? as_json(plans) : as_table(plans));
  return Exit::kDone;
}

}  // namespace lomu
