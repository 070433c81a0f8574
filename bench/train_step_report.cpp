#include "bench/train_step_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace lomu {
namespace {

using Json = nlohmann::ordered_json;

/// The longest first.
std::vector<OperationTime> by_time(std::vector<OperationTime> operations) {
  std::sort(operations.begin(), operations.end(),
            [](const OperationTime& a, const OperationTime& b) { return a.seconds > b.seconds; });
  return operations;
}

Json spread_json(const Spread& spread) {
  return {{"median", spread.median}, {"p10", spread.p10}, {"p90", spread.p90}};
}

/// Packing the new factors: an operation, and a part of `finish`.
double pack_seconds(const TrainStepReport& r) {
  return r.share_of("pack_adapters") * r.parts.total;
}

/// What is left of the steps: the host's code between the operations.
double other_seconds(const TrainStepReport& r) {
  const double operations = r.operation_seconds() - pack_seconds(r);
  return r.parts.total - operations - r.parts.add - r.parts.losses - r.parts.finish;
}

double optimizer_seconds(const TrainStepReport& r) {
  return r.parts.finish;
}

}  // namespace

Spread Spread::of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return std::lerp(values[below], values[above], place - static_cast<double>(below));
  };
  return {at(0.5), at(0.1), at(0.9)};
}

Spread TrainStepReport::tokens_per_second() const {
  return {step_tokens() / step_seconds.median, step_tokens() / step_seconds.p90, step_tokens() / step_seconds.p10};
}

double TrainStepReport::operation_seconds() const {
  double sum = 0;
  for (const OperationTime& time : operations) sum += time.seconds;
  return sum;
}

double TrainStepReport::product_seconds() const {
  double sum = 0;
  for (const OperationTime& time : operations) sum += time.flops.total() > 0 ? time.seconds : 0;
  return sum;
}

double TrainStepReport::share_of(const std::string& prefix) const {
  double sum = 0;
  for (const OperationTime& time : operations) {
    if (time.name.starts_with(prefix)) sum += time.seconds;
  }
  return sum / parts.total;
}

MemoryScope TrainStepReport::total_memory() const {
  MemoryScope total{"total", 0, 0, 0};
  for (const MemoryScope& scope : memory) {
    total.predicted += scope.predicted;
    total.planned += scope.planned;
    total.peak += scope.peak;
  }
  return total;
}

std::string as_table(const TrainStepReport& r) {
  const double per_step = 1e3 / r.steps;
  std::string text;
  const auto line = [&](const auto&... arguments) {
    text += fmt::format(fmt::runtime("{:<44} {:>7} {:>10} {:>7} {:>9} {:>9} {:>8}\n"), arguments...);
  };
  const auto plain = [&](const std::string& name, double seconds) {
    line(name, "", fmt::format("{:.2f}", seconds * per_step), fmt::format("{:.1f} %", 100 * seconds / r.parts.total),
         "", "", "");
  };
  text += fmt::format("{}, {} rank{} of {}; {}, rank {}; {} x {} tokens a step, {} steps; recompute {}\n\n", r.model,
                      r.ranks, r.ranks == 1 ? "" : "s", r.compute, r.optimizer, r.adapter_rank, r.micro_batches,
                      r.tokens, r.steps, r.recompute);
  line(r.ranks == 1 ? "operation" : "operation (rank 0)", "calls", "ms a step", "share", "GFLOP", "GFLOP/s", "ceiling");
  for (const OperationTime& o : by_time(r.operations)) {
    if (o.flops.total() == 0) {
      line(o.name, o.calls / r.steps, fmt::format("{:.2f}", o.seconds * per_step),
           fmt::format("{:.1f} %", 100 * o.seconds / r.parts.total), "", "", "");
      continue;
    }
    const double rate = o.flops.total() / o.seconds;
    line(o.name, o.calls / r.steps, fmt::format("{:.2f}", o.seconds * per_step),
         fmt::format("{:.1f} %", 100 * o.seconds / r.parts.total),
         fmt::format("{:.1f}", o.flops.total() * 1e-9 / r.steps), fmt::format("{:.0f}", rate * 1e-9),
         fmt::format("{:.0f} %", 100 * rate / r.own_ceiling));
  }
  plain("sums of the micro-batches' gradients", r.parts.add);
  plain("sum of the losses", r.parts.losses);
  plain("reduce, optimizer step, gather", r.parts.finish);
  for (const CommunicationTime& c : r.communication) plain(fmt::format("  communication: {}", c.what), c.seconds);
  plain("between the operations", other_seconds(r));
  plain("step", r.parts.total);

  const Spread speed = r.tokens_per_second();
  text += fmt::format("\nspeed      {:.1f} tokens/s (median; p10 {:.1f}, p90 {:.1f}); {:.3f} s a step\n", speed.median,
                      speed.p10, speed.p90, r.step_seconds.median);
  text += fmt::format("limit      {:.0f} tokens/s, were all products at the measured {:.0f} GFLOP/s: {:.0f} % of it\n",
                      r.limit_tokens_per_second(), r.ceiling * 1e-9, 100 * speed.median / r.limit_tokens_per_second());
  text += fmt::format(
      "products   {:.0f} GFLOP a step ({:.0f} frozen, {:.0f} adapters, {:.0f} attention) in {:.0f} % of the time\n",
      r.flops.total() * 1e-9, r.flops.frozen * 1e-9, r.flops.adapters * 1e-9, r.flops.attention * 1e-9,
      100 * r.product_seconds() / r.parts.total);
  text += fmt::format("optimizer  {:.1f} ms a step, {:.2f} %; attention {:.1f} %\n", optimizer_seconds(r) * per_step,
                      100 * optimizer_seconds(r) / r.parts.total, 100 * r.share_of("attention"));
  text += fmt::format("loss       {:.4f} in the first step, {:.4f} in the last\n", r.first_loss, r.last_loss);
  text += fmt::format("memory     {:.0f} MB peak resident{}\n", static_cast<double>(r.peak_resident_bytes) * 1e-6,
                      r.ranks == 1 ? "" : " in the largest rank");
  if (r.peak_device_bytes > 0) {
    text += fmt::format("           {:.0f} MB on the GPU\n", static_cast<double>(r.peak_device_bytes) * 1e-6);
  }
  const auto memory_line = [&](const MemoryScope& scope) {
    text += fmt::format("  {:<12} {:>8.1f} MB predicted {:>8.1f} MB before the first step {:>8.1f} MB peak\n",
                        scope.name, static_cast<double>(scope.predicted) * 1e-6,
                        static_cast<double>(scope.planned) * 1e-6, static_cast<double>(scope.peak) * 1e-6);
  };
  for (const MemoryScope& scope : r.memory) memory_line(scope);
  memory_line(r.total_memory());
  return text;
}

std::string as_json(const TrainStepReport& r) {
  const double per_step = 1e3 / r.steps;
  Json operations = Json::array();
  for (const OperationTime& o : by_time(r.operations)) {
    Json row = {{"name", o.name},
                {"calls", o.calls / r.steps},
                {"ms", o.seconds * per_step},
                {"share", o.seconds / r.parts.total}};
    if (o.flops.total() > 0) {
      row["gflop"] = o.flops.total() * 1e-9 / r.steps;
      row["gflop_per_second"] = o.flops.total() / o.seconds * 1e-9;
      row["share_of_ceiling"] = o.flops.total() / o.seconds / r.own_ceiling;
    }
    operations.push_back(std::move(row));
  }
  Json communication = Json::object();
  for (const CommunicationTime& c : r.communication) communication[c.what] = c.seconds * per_step;
  Json memory = Json::object();
  const auto json_of = [](const MemoryScope& scope) {
    return Json{{"predicted", scope.predicted}, {"planned", scope.planned}, {"peak", scope.peak}};
  };
  for (const MemoryScope& scope : r.memory) memory[scope.name] = json_of(scope);

  const Json object = {{"engine", "lomu"},
                       {"model", r.model},
                       {"compute", r.compute},
                       {"ranks", r.ranks},
                       {"threads_per_rank", r.threads},
                       {"recompute", r.recompute},
                       {"adapter_rank", r.adapter_rank},
                       {"tokens", r.tokens},
                       {"micro_batches", r.micro_batches},
                       {"steps", r.steps},
                       {"tokens_per_second", spread_json(r.tokens_per_second())},
                       {"step_seconds", spread_json(r.step_seconds)},
                       {"peak_resident_bytes", r.peak_resident_bytes},
                       {"peak_device_bytes", r.peak_device_bytes},
                       {"loss", {r.first_loss, r.last_loss}},
                       {"limit",
                        {{"gemm_gflop_per_second", r.ceiling * 1e-9},
                         {"gflop", r.flops.total() * 1e-9},
                         {"gflop_frozen", r.flops.frozen * 1e-9},
                         {"gflop_adapters", r.flops.adapters * 1e-9},
                         {"gflop_attention", r.flops.attention * 1e-9},
                         {"tokens_per_second", r.limit_tokens_per_second()},
                         {"share", r.tokens_per_second().median / r.limit_tokens_per_second()}}},
                       {"optimizer",
                        {{"name", r.optimizer},
                         {"ms", optimizer_seconds(r) * per_step},
                         {"share", optimizer_seconds(r) / r.parts.total},
                         {"step_ms", (r.parts.finish - r.parts.communicate) * per_step},
                         {"communication_ms", r.parts.communicate * per_step},
                         {"pack_ms", pack_seconds(r) * per_step},
                         {"sums_ms", r.parts.add * per_step}}},
                       {"communication_ms", communication},
                       {"product_share", r.product_seconds() / r.parts.total},
                       {"attention_share", r.share_of("attention")},
                       {"between_operations_ms", other_seconds(r) * per_step},
                       {"operations", operations},
                       {"memory", memory},
                       {"memory_total", json_of(r.total_memory())}};
  return object.dump(2) + "\n";
}

}  // namespace lomu
