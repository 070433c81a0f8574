// The numbers in encoded rows, as float32 or bfloat16, on the host: what backends in host memory use, and what the
// device's kernel (kernels/cuda/dequantize.h) equals bit for bit. Block layouts are ggml's (ggml-common.h), and values
// those of the gguf Python package.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "kernels/encoded_rows.h"
#include "kernels/tensor.h"

namespace lomu {

/// Turns whole blocks into floats. `blocks` must be out.size() / block elements blocks, at any address.
/// Throws FormatError when the sizes do not fit each other.
void dequantize(Encoding encoding, std::span<const std::byte> blocks, std::span<float> out);

/// Ops::dequantize in host memory, on the calling thread alone. Throws Error for a `to` of another type.
void dequantize(const EncodedRows& from, const Tensor& to);

/// [rows, cols] floats.
std::unique_ptr<float[]> dequantized(const EncodedRows& from);

}  // namespace lomu
