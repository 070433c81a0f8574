// Parameter groups: several optimizers behind the interface of one. Each parameter goes to the first group one of whose
// patterns means it (parameter_names.h), else to the optimizer of the job. A group has all options of its own; its
// learning rate follows the job's schedule: at a step it is the step's rate x (the group's lr / the job's lr).
// Gradients are clipped by one norm over all parameters. State: of each parameter, that of its optimizer.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/optimizers/optimizer.h"

namespace lomu {

class Grouped final : public Optimizer {
 public:
  /// options.groups is not empty. UsageError as make_optimizer, naming the group.
  explicit Grouped(const OptimizerOptions& options);

  /// Those of the parameter's own optimizer.
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Refuses a pattern that means none of `all`.
  void check_all(std::span<const ParameterShape> all) const override;
  /// Each optimizer checks its own.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  struct Member {
    std::vector<std::string> match;  ///< none: the job's own optimizer
    std::unique_ptr<Optimizer> optimizer;
    double lr_share;  ///< of the step's learning rate
  };

  /// Index in members_ of the optimizer that trains this parameter.
  [[nodiscard]] std::size_t member_of(std::string_view name) const;
  /// Calls work(member, its pairs, their indices) for each member that has any.
  template <class Work>
  void for_each_member(std::span<const PairView> pairs, Work&& work) const;

  std::vector<Member> members_;  ///< groups in their order, then the job's own
};

}  // namespace lomu
