// How the checks of model_cases.h measure: errors, tolerances, and the reference tensors they compare with. Private to
// engine/verify.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/verify/model_cases.h"
#include "kernels/tensor.h"
#include "models/files/safetensors.h"

namespace lomu::verify {

/// Limits by precision. f32: Hugging Face's own f32 stays below 2e-6 for logits and streams, 7e-6 for gradients, 1e-6
/// for a loss; the limits leave room for other orders of summation. bf16: Hugging Face's own bf16 reaches them. f64:
/// what is left is the rounding of the recorded values to f32, 2^-24 = 6e-8 an element.
struct Tolerances {
  double forward = 0;       ///< logits, streams, losses of tokens: relative
  double gradient = 0;      ///< relative
  double loss = 0;          ///< a mean, absolute
  double real_forward = 0;  ///< the same for a real model, some ten times deeper
  double real_loss = 0;
};
Tolerances tolerances_of(const Precision& precision);

/// norm(x - reference) / norm(reference); norm(x) where the reference is zero. NaN if any x is.
double relative_error(std::span<const double> x, std::span<const double> reference);
double largest_difference(std::span<const double> x, std::span<const double> reference);

/// An error that is not finite becomes kNotFinite.
ModelCheck make_check(std::string case_name, std::string quantity, double error, double tolerance);

/// A matrix as doubles, row after row.
std::vector<double> to_doubles(const Tensor& tensor);

/// A whole reference tensor. Throws FormatError if it is missing or not of `expected_size` (none: any size).
std::vector<double> read_doubles(const SafetensorsFile& file, std::string_view name, std::int64_t expected_size = -1);
std::vector<std::int32_t> read_ints(const SafetensorsFile& file, std::string_view name);

/// The two kinds of case.
std::vector<ModelCheck> verify_small_model(const std::filesystem::path& folder, const Ops& ops, int threads,
                                           Memory& memory);
std::vector<ModelCheck> verify_real_model(const std::filesystem::path& folder, const std::filesystem::path& weights,
                                          const Ops& ops, int threads, Memory& memory);

}  // namespace lomu::verify
