#include "bench/operation_sweep.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "kernels/philox.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRounds = 3;
constexpr double kMostCalls = 1000;
constexpr std::int64_t kDifferentRows = 61;  // prime: no tile of a product sees the same rows in the same places

template <class T>
std::vector<T> numbers(std::int64_t count, std::uint64_t stream) {
  const Philox random(1, Purpose::kTest);
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto bits = random.bits(stream, static_cast<std::uint64_t>(i)) % 4096;
    values.push_back(T(static_cast<float>(bits) / 2048.0f - 1.0f));
  }
  return values;
}

double timed(Storage& storage, const Tensor& result, double calls, const std::function<void()>& work) {
  const auto start = Clock::now();
  for (double i = 0; i < calls; ++i) work();
  std::uint16_t unused = 0;
  storage.download(&unused, result.data, sizeof unused);  // waits for what was queued
  return std::chrono::duration<double>(Clock::now() - start).count() / calls;
}

}  // namespace

SweepMatrix random_matrix(Memory& memory, DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t stream) {
  SweepMatrix matrix = zero_matrix(memory, dtype, rows, cols);
  const std::int64_t different = std::min(rows, kDifferentRows);
  const auto send = [&](const auto& values) {
    const std::size_t row_bytes = static_cast<std::size_t>(cols) * sizeof(values[0]);
    for (std::int64_t row = 0; row < rows; row += different) {
      const auto count = static_cast<std::size_t>(std::min(different, rows - row));
      std::byte* const to = matrix.buffer.data() + static_cast<std::size_t>(row) * row_bytes;
      memory.storage().upload(to, values.data(), count * row_bytes);
    }
  };
  if (dtype == DType::kBF16) {
    send(numbers<BF16>(different * cols, stream));
  } else {
    send(numbers<float>(different * cols, stream));
  }
  return matrix;
}

SweepMatrix zero_matrix(Memory& memory, DType dtype, std::int64_t rows, std::int64_t cols) {
  SweepMatrix matrix;
  matrix.buffer = memory.allocate(Scope::kActivations, static_cast<std::size_t>(rows * cols) * size_of(dtype),
                                  "operation's matrix");
  matrix.tensor = Tensor(matrix.buffer.data(), dtype, rows, cols);
  return matrix;
}

double seconds_of_call(Storage& storage, const Tensor& result, double seconds, const std::function<void()>& work) {
  timed(storage, result, 1, work);
  const double first = timed(storage, result, 1, work);
  const double calls = std::clamp(std::floor(seconds / kRounds / first), 1.0, kMostCalls);
  double best = first;
  for (int round = 0; round < kRounds; ++round) best = std::min(best, timed(storage, result, calls, work));
  return best;
}

}  // namespace lomu
