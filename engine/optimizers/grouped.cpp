#include "engine/optimizers/grouped.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/optimizers/parameter_names.h"
#include "kernels/error.h"

namespace lomu {

Grouped::Grouped(const OptimizerOptions& options) {
  OptimizerOptions own = options;
  const std::vector<OptimizerGroup> groups = std::exchange(own.groups, {});
  for (std::size_t i = 0; i < groups.size(); ++i) {
    OptimizerOptions of_group = groups[i].options;
    of_group.max_grad_norm = options.max_grad_norm;
    if (groups[i].match.empty()) {
      throw UsageError("the group has no patterns", fmt::format("optimizer.groups[{}].match", i));
    }
    const double share = options.lr > 0.0 ? of_group.lr / options.lr : 0.0;
    members_.push_back({groups[i].match, make_optimizer(of_group), share});
  }
  members_.push_back({{}, make_optimizer(own), 1.0});
}

std::size_t Grouped::member_of(std::string_view name) const {
  const auto means = [name](const std::string& pattern) { return matches_parameter(pattern, name); };
  const auto found = std::find_if(members_.begin(), members_.end() - 1,
                                  [&](const Member& member) { return std::ranges::any_of(member.match, means); });
  return static_cast<std::size_t>(found - members_.begin());
}

std::span<const StateSlot> Grouped::state_slots(const ParameterShape& shape) const {
  return members_[member_of(shape.name)].optimizer->state_slots(shape);
}

void Grouped::check_all(std::span<const ParameterShape> all) const {
  std::vector<std::size_t> taken(members_.size(), 0);
  for (const ParameterShape& shape : all) ++taken[member_of(shape.name)];
  for (std::size_t i = 0; i + 1 < members_.size(); ++i) {
    const std::string where = fmt::format("optimizer.groups[{}].match", i);
    for (const std::string& pattern : members_[i].match) {
      const auto meant = [&](const ParameterShape& shape) { return matches_parameter(pattern, shape.name); };
      if (std::ranges::any_of(all, meant)) continue;
      throw UsageError(
          fmt::format("the pattern `{}` means none of the {} trained parameters", pattern, all.size()), where,
          fmt::format("patterns are q, k, v, o, gate, up, down, embedding, head, norm, bias, or full names with *{}",
                      all.empty() ? "" : fmt::format(", as {}", all.front().name)));
    }
    if (taken[i] > 0) continue;
    throw UsageError("all parameters that the group means are taken by groups before it", where,
                     "a parameter goes to the first group that means it: put this one first, or remove it");
  }
}

template <class Work>
void Grouped::for_each_member(std::span<const PairView> pairs, Work&& work) const {
  std::vector<std::vector<PairView>> views(members_.size());
  std::vector<std::vector<std::size_t>> indices(members_.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::size_t member = member_of(pairs[i].name);
    views[member].push_back(pairs[i]);
    indices[member].push_back(i);
  }
  for (std::size_t m = 0; m < members_.size(); ++m) {
    if (!views[m].empty()) work(members_[m], std::span<const PairView>(views[m]), indices[m]);
  }
}

void Grouped::check(std::span<const PairView> pairs) const {
  for_each_member(
      pairs, [](const Member& member, std::span<const PairView> own, const auto&) { member.optimizer->check(own); });
}

void Grouped::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  report.pairs.assign(pairs.size(), {});
  for_each_member(pairs, [&](const Member& member, std::span<const PairView> own, const auto& indices) {
    StepReport part;
    member.optimizer->step(own, {info.step, info.lr * member.lr_share, info.grad_norm, info.telemetry}, part);
    for (std::size_t i = 0; i < indices.size(); ++i) report.pairs[indices[i]] = part.pairs[i];
  });
}

}  // namespace lomu
