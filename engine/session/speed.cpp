#include "engine/session/speed.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/philox.h"
#include "kernels/staging.h"

namespace lomu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Seconds of the fastest call; calls once unmeasured, then until `seconds` have gone, at least once.
template <class Work>
double fastest(double seconds, Work work) {
  work();
  const auto start = Clock::now();
  double best = 0;
  do {
    const auto before = Clock::now();
    work();
    const double took = seconds_since(before);
    best = best == 0 ? took : std::min(best, took);
  } while (seconds_since(start) < seconds);
  return best;
}

/// Numbers in [-1, 1) with three bits after the point: exact in bf16, and their products sum exactly in f32.
float coarse_number(std::uint64_t stream, std::int64_t i) {
  static const Philox random(1, Purpose::kTest);
  return static_cast<float>(random.bits(stream, static_cast<std::uint64_t>(i)) % 16) / 8 - 1;
}

std::vector<float> coarse_matrix(std::uint64_t stream, std::int64_t size) {
  std::vector<float> values(static_cast<std::size_t>(size * size));
  const std::int64_t count = size * size;
#pragma omp parallel for
  for (std::int64_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = coarse_number(stream, i);
  return values;
}

/// Waits for the operations before it: copies out of a storage see what they wrote.
void wait_for(Storage& storage, const Tensor& result) {
  std::uint32_t unused = 0;
  storage.download(&unused, result.data, sizeof unused);
}

double element(const Tensor& tensor, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * tensor.ld + col;
  if (tensor.dtype == DType::kBF16) return static_cast<float>(static_cast<const BF16*>(tensor.data)[at]);
  if (tensor.dtype == DType::kF32) return static_cast<const float*>(tensor.data)[at];
  return static_cast<const double*>(tensor.data)[at];
}

/// Over elements that are spread over the whole result.
double error_of(const Tensor& got, std::span<const float> x, std::span<const float> w, std::int64_t size) {
  double difference = 0;
  double norm = 0;
  for (std::int64_t row = 0; row < size; row += 61) {
    const std::int64_t col = (row * 7 + 3) % size;
    double want = 0;
    for (std::int64_t k = 0; k < size; ++k) {
      want += static_cast<double>(x[static_cast<std::size_t>(row * size + k)]) *
              w[static_cast<std::size_t>(col * size + k)];
    }
    difference += std::pow(element(got, row, col) - want, 2);
    norm += want * want;
  }
  const double error = std::sqrt(difference / std::max(norm, 1e-300));
  return std::isfinite(error) ? error : 1;
}

}  // namespace

double host_copy_rate(Memory& memory, std::size_t bytes, int threads, double seconds) {
  const Buffer from = memory.allocate(Scope::kWorkspace, bytes, "copy, source");
  const Buffer to = memory.allocate(Scope::kWorkspace, bytes, "copy, target");
  std::memset(from.data(), 1, bytes);  // untouched pages are all one page of zeros
  const double best = fastest(seconds, [&] {
#pragma omp parallel num_threads(threads)
    {
      const auto share = static_cast<std::size_t>(omp_get_num_threads());
      const auto mine = static_cast<std::size_t>(omp_get_thread_num());
      const std::size_t begin = bytes / share * mine;
      const std::size_t end = mine + 1 == share ? bytes : bytes / share * (mine + 1);
      std::memcpy(to.data() + begin, from.data() + begin, end - begin);
    }
  });
  return 2.0 * static_cast<double>(bytes) / best;
}

double storage_copy_rate(Memory& memory, std::size_t bytes, double seconds) {
  const Buffer from = memory.allocate(Scope::kWorkspace, bytes, "copy, source");
  const Buffer to = memory.allocate(Scope::kWorkspace, bytes, "copy, target");
  Storage& storage = memory.storage();
  const double best = fastest(seconds, [&] {
    storage.copy_rows(to.data(), bytes, from.data(), bytes, bytes, 1);
    std::byte unused{};
    storage.download(&unused, to.data(), 1);
  });
  return 2.0 * static_cast<double>(bytes) / best;
}

ProductSpeed product_speed(const Ops& ops, Memory& memory, std::int64_t size, double seconds) {
  const DType type = ops.precision().activation;
  const std::size_t matrix_bytes = static_cast<std::size_t>(size * size) * size_of(type);
  Storage& storage = ops.storage();
  const std::vector<float> x = coarse_matrix(0, size);
  const std::vector<float> w = coarse_matrix(1, size);

  AdaptedLinear linear;
  linear.frozen = {size, {size}, false, nullptr};
  linear.bias = {nullptr};
  linear.adapters.resize(1);
  const Buffer packed = memory.allocate(Scope::kWeights, ops.frozen_bytes(linear.frozen), "product, weights");
  linear.frozen.storage = packed.data();
  Staging staging(memory);
  ops.pack_frozen(linear.frozen, 0, 0, staging.bring(encoded(w.data(), size, size)));

  const Buffer input = memory.allocate(Scope::kActivations, matrix_bytes, "product, input");
  if (type == DType::kBF16) {
    const std::vector<BF16> narrow(x.begin(), x.end());
    storage.upload(input.data(), narrow.data(), matrix_bytes);
  } else {
    storage.upload(input.data(), x.data(), matrix_bytes);
  }
  const Buffer output = memory.allocate(Scope::kActivations, matrix_bytes, "product, output");
  const Tensor from(input.data(), type, size, size);
  const Tensor to(output.data(), type, size, size);

  ProductSpeed speed;
  const double best = fastest(seconds, [&] {
    ops.linear_forward(linear, from, {}, to, {});
    wait_for(storage, to);
  });
  speed.rate = 2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / best;
  const HostCopy result(storage, to);
  speed.error = error_of(result.tensor(), x, w, size);
  return speed;
}

double product_tolerance(DType activation) {
  return activation == DType::kBF16 ? 4e-3 : 1e-5;
}

}  // namespace lomu
