#include "kernels/cuda/adapter_pairs.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/error.h"

namespace lomu::cuda {
namespace {

// So that row numbers, and products of a length and a rank in elements, stay far from overflow.
constexpr std::int64_t kMaxLength = std::int64_t{1} << 30;

bool has_arrays(const FactorArrays& f, bool needs_second_moment) {
  return f.factor && f.grad && f.first_moment && (f.second_moment || !needs_second_moment);
}

bool packs_well(const PackedFactor& p, std::int64_t line) {
  return !p.data || p.line_stride >= line;
}

}  // namespace

void check_pairs(std::span<const PairDesc> pairs, bool needs_second_moment) {
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const PairDesc& p = pairs[i];
    const auto refuse = [&](std::string what, std::string hint = {}) {
      throw UsageError(std::move(what), fmt::format("pair {}", i), std::move(hint));
    };
    if (p.m < 1 || p.n < 1 || p.m > kMaxLength || p.n > kMaxLength) {
      refuse(fmt::format("a weight of {} x {} cannot be stepped on the device", p.m, p.n));
    }
    if (p.r < 1 || p.r > kMaxRank) {
      refuse(fmt::format("rank {} is out of range", p.r), fmt::format("the device takes ranks from 1 to {}", kMaxRank));
    }
    if (!std::isfinite(p.scale) || !(p.scale > 0.0))
      refuse(fmt::format("scale {:g} is not a positive number", p.scale));
    if (!std::isfinite(p.step_multiplier) || !(p.step_multiplier > 0.0)) {
      refuse(fmt::format("step multiplier {:g} is not a positive number", p.step_multiplier));
    }
    if (!has_arrays(p.left, needs_second_moment) || !has_arrays(p.right, needs_second_moment)) {
      refuse("an array of the pair is missing");
    }
    if (!packs_well(p.left.packed, p.r) || !packs_well(p.right.packed, p.n)) {
      refuse("lines of a packed copy overlap", "line_stride must be at least the length of a line");
    }
  }
}

}  // namespace lomu::cuda
