#include "engine/verify/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/error.h"

namespace lomu::verify {

Tolerances tolerances_of(const Precision& precision) {
  if (precision == kF64Precision) return {1e-7, 1e-7, 1e-6, 1e-6, 2e-6};
  if (precision == kF32Precision) return {2e-5, 5e-5, 2e-5, 2e-5, 1e-4};
  return {4e-2, 1.5e-1, 1.5e-2, 1.5e-1, 2e-2};
}

double relative_error(std::span<const double> x, std::span<const double> reference) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    difference += (x[i] - reference[i]) * (x[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

double largest_difference(std::span<const double> x, std::span<const double> reference) {
  double largest = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double difference = std::abs(x[i] - reference[i]);
    if (std::isnan(difference)) return difference;
    largest = std::max(largest, difference);
  }
  return largest;
}

ModelCheck make_check(std::string case_name, std::string quantity, double error, double tolerance) {
  if (!std::isfinite(error)) error = kNotFinite;
  return {std::move(case_name), std::move(quantity), error, tolerance, error <= tolerance, {}};
}

std::vector<double> to_doubles(const Tensor& tensor) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(tensor.size()));
  for (std::int64_t i = 0; i < tensor.rows; ++i) {
    for (std::int64_t j = 0; j < tensor.cols; ++j) {
      switch (tensor.dtype) {
        case DType::kF64: values.push_back(tensor.row<double>(i)[j]); break;
        case DType::kF32: values.push_back(tensor.row<float>(i)[j]); break;
        default: values.push_back(static_cast<float>(tensor.row<BF16>(i)[j])); break;
      }
    }
  }
  return values;
}

std::vector<double> read_doubles(const SafetensorsFile& file, std::string_view name, std::int64_t expected_size) {
  const SafetensorInfo& info = file.at(name);
  if (expected_size >= 0 && info.elements != expected_size) {
    throw FormatError(fmt::format("the reference has {} values where the model has {}", info.elements, expected_size),
                      fmt::format("{}, {}", file.path().string(), name));
  }
  std::vector<double> values(static_cast<std::size_t>(info.elements));
  file.read_f64(name, values);
  return values;
}

std::vector<std::int32_t> read_ints(const SafetensorsFile& file, std::string_view name) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(file.at(name).elements));
  file.read_i32(name, values);
  return values;
}

}  // namespace lomu::verify
