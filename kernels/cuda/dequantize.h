// The numbers in encoded rows on the device: the kernel behind Ops::dequantize and Ops::pack_frozen, so that weights
// cross the bus as the file holds them (a quarter of bf16's bytes and less where they are quantised) and are expanded
// there. Values equal those of kernels/dequantize.h bit for bit; only which NaN stands for a NaN may differ.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"
#include "kernels/encoded_rows.h"

namespace lomu::cuda {

/// to = the numbers in `from`, then `zeros` columns of zeros. T is BF16 (rounded to nearest even) or float. from.data:
/// on the device, at a multiple of 4; to: [from.rows, from.cols + zeros]. One launch; only the stream is shared between
/// calls.
template <class T>
void dequantize(const EncodedRows& from, DeviceRows<T> to, std::int64_t zeros, Stream stream);

}  // namespace lomu::cuda
