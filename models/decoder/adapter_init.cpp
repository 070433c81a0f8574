#include "models/decoder/adapter_init.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "kernels/philox.h"
#include "models/decoder/adapter_set.h"
#include "models/files/model_files.h"
#include "models/files/names.h"

namespace lomu {
namespace {

constexpr double kBalancedShare = 1.0 / 32;
constexpr std::int64_t kSampleRows = 64;  // their 64 * in entries give the rms to a percent or two

/// FNV-1a (Fowler, Noll, Vo), 64 bits, of the pair's name; the factor selects one of two streams.
std::uint64_t stream_of(std::string_view name, Factor factor) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return mix64(hash + static_cast<std::uint64_t>(factor));
}

double dot(std::span<const double> x, std::span<const double> y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

/// `count` orthonormal vectors of `length` >= count, random: normal draws, Gram-Schmidt twice ("twice is enough").
std::vector<double> orthonormal_rows(std::int64_t count, std::int64_t length, const Philox& random,
                                     std::uint64_t stream) {
  std::vector<double> m(static_cast<std::size_t>(count * length));
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = random.normals(stream, i / 4)[i % 4];
  const auto row = [&](std::int64_t i) {
    return std::span(m).subspan(static_cast<std::size_t>(i * length), static_cast<std::size_t>(length));
  };
  for (std::int64_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t j = 0; j < i; ++j) {
        const double overlap = dot(row(i), row(j));
        for (std::size_t k = 0; k < row(i).size(); ++k) row(i)[k] -= overlap * row(j)[k];
      }
      const double norm = std::sqrt(dot(row(i), row(i)));
      for (double& x : row(i)) x /= norm;
    }
  }
  return m;
}

/// out [rows, cols] = size times a matrix that is orthonormal along its shorter side.
void fill_orthonormal(std::int64_t rows, std::int64_t cols, double size, const Philox& random, std::uint64_t stream,
                      std::span<float> out) {
  const auto m = orthonormal_rows(std::min(rows, cols), std::max(rows, cols), random, stream);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      const std::int64_t at = rows <= cols ? i * cols + j : j * rows + i;
      out[static_cast<std::size_t>(i * cols + j)] = static_cast<float>(size * m[static_cast<std::size_t>(at)]);
    }
  }
}

/// Root mean square of a sample of the frozen weight; that of a usual initialisation where the sample is all zero.
double frozen_rms(const PairInfo& pair, const ModelFiles& files) {
  const std::int64_t rows = std::min(pair.out, kSampleRows);
  std::vector<float> sample(static_cast<std::size_t>(rows * pair.in));
  files.read_rows(weight_of(pair.layer, pair.site), (pair.out - rows) / 2, rows, sample);
  double sum = 0;
  for (const float x : sample) sum += static_cast<double>(x) * x;
  if (sum == 0) return 1 / std::sqrt(static_cast<double>(pair.in));
  return std::sqrt(sum / static_cast<double>(sample.size()));
}

/// Both factors orthonormal times one number, so that all singular values of s B A are tau.
void fill_balanced(const PairInfo& pair, std::uint64_t seed, double tau, std::span<float> a, std::span<float> b) {
  const Philox random(seed, Purpose::kAdapterInit);
  const double size = std::sqrt(tau / pair.scale);
  fill_orthonormal(pair.rank, pair.in, size, random, stream_of(pair.name, Factor::kA), a);
  fill_orthonormal(pair.out, pair.rank, size, random, stream_of(pair.name, Factor::kB), b);
}

}  // namespace

void init_zero(const PairInfo& pair, std::uint64_t seed, std::span<float> a, std::span<float> b) {
  const Philox random(seed, Purpose::kAdapterInit);
  const std::uint64_t stream = stream_of(pair.name, Factor::kA);
  const float bound = 1 / std::sqrt(static_cast<float>(pair.in));
  for (std::size_t i = 0; i < a.size(); i += 4) {
    const auto u = random.uniforms(stream, i / 4);
    for (std::size_t j = i; j < std::min(i + 4, a.size()); ++j) a[j] = bound * (2 * u[j - i] - 1);
  }
  std::fill(b.begin(), b.end(), 0.0F);
}

void init_balanced(const PairInfo& pair, std::uint64_t seed, const ModelFiles& files, std::span<float> a,
                   std::span<float> b) {
  const double edge = std::sqrt(static_cast<double>(pair.out)) + std::sqrt(static_cast<double>(pair.in));
  fill_balanced(pair, seed, kBalancedShare * frozen_rms(pair, files) * edge, a, b);
}

void init_alone(const PairInfo& pair, std::uint64_t seed, std::span<float> a, std::span<float> b) {
  fill_balanced(pair, seed, std::sqrt(static_cast<double>(pair.out) / static_cast<double>(pair.in)), a, b);
}

}  // namespace lomu
