#include "engine/train/nonfinite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/train/evaluation.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr const char* kHint = "lower optimizer.lr, or use a longer warm-up; no adapter was written";

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

}  // namespace

void refuse_loss(std::string_view what, std::string_view when, std::span<const double> losses, std::size_t first,
                 const std::function<Batch(std::size_t)>& batch, Decoder& decoder, Communicator& comm) {
  const std::string message = fmt::format("{} is not finite", what);
  comm.together(
      [&] {
        for (std::size_t i = 0; i < losses.size(); ++i) {
          if (std::isfinite(losses[i])) continue;
          const Batch bad = batch(first + i);
          const std::string tensor = decoder.find_nonfinite(view_of(bad)).value_or("the loss itself");
          throw NumericError(message, fmt::format("{}, micro-batch {}, first bad tensor: {}", when, first + i, tensor),
                             kHint);
        }
      },
      "looking for the bad tensor");
  // Every micro-batch has a finite loss, and their sum has none.
  throw AgreedError(0, message, std::string(when), kHint, Exit::kDiverged);
}

void check_factors(const AdapterSet& adapters, std::int64_t step) {
  for (const PairInfo& p : adapters.pairs()) {
    for (const auto& [factor, values] : {std::pair("lora_A", adapters.a(p)), std::pair("lora_B", adapters.b(p))}) {
      if (all_finite(values)) continue;
      throw NumericError("the adapter is not finite", fmt::format("step {}, {}.{}", step, p.name, factor), kHint);
    }
  }
}

}  // namespace lomu
