#include "engine/commands/merge.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace lomu {
namespace {

// Below this many multiplications a thread costs more than it saves.
constexpr std::int64_t kWorkPerThread = std::int64_t{1} << 24;

/// Adds rows [begin, end) of scale B A, counted in `out`, whose first row is row `first` of the weight.
void add_product(const AdapterPair& pair, std::int64_t first, std::int64_t begin, std::int64_t end, std::int64_t cols,
                 std::span<float> out) {
  std::vector<double> sum(static_cast<std::size_t>(cols));
  for (std::int64_t row = begin; row < end; ++row) {
    const auto to = out.subspan(static_cast<std::size_t>(row * cols), sum.size());
    std::copy(to.begin(), to.end(), sum.begin());
    for (std::int64_t k = 0; k < pair.r; ++k) {
      const double left =
          pair.scale * static_cast<double>(pair.b[static_cast<std::size_t>((first + row) * pair.r + k)]);
      const float* right = pair.a.data() + k * cols;
      for (std::size_t col = 0; col < sum.size(); ++col) sum[col] += left * static_cast<double>(right[col]);
    }
    std::transform(sum.begin(), sum.end(), to.begin(), [](double value) { return static_cast<float>(value); });
  }
}

}  // namespace

MergedWeights::MergedWeights(const ModelFiles& files, const AdapterFile& adapter) : files_(&files) {
  for (const AdapterPair& pair : adapter.pairs) pairs_.emplace(std::pair(pair.layer, pair.site), &pair);
}

void MergedWeights::read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) const {
  files_->read_rows(id, first, count, out);
  const auto site = site_of(id.kind);
  if (!site || count == 0) return;
  const auto found = pairs_.find({id.layer, *site});
  if (found == pairs_.end()) return;

  const AdapterPair& pair = *found->second;
  const std::int64_t cols = static_cast<std::int64_t>(out.size()) / count;
  const std::int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const std::int64_t threads =
      std::clamp<std::int64_t>(count * cols * pair.r / kWorkPerThread, 1, std::min(cores, count));
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> helpers;
    for (std::int64_t t = 0; t < threads; ++t) {
      const auto work = [&, t] {
        try {
          add_product(pair, first, count * t / threads, count * (t + 1) / threads, cols, out);
        } catch (...) {
          failures[static_cast<std::size_t>(t)] = std::current_exception();
        }
      };
      if (t + 1 == threads)
        work();
      else
        helpers.emplace_back(work);
    }
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace lomu
