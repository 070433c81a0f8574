// Whole rows by number: embedding lookup, gathering and scattering rows, clearing. Contracts: Ops::embed, gather_rows
// and scatter_rows in kernels/ops.h; numbers are int32 on the device, checked by the caller.
//
// Bound by memory: every row that is named is read once and written once.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// out[t] = table[ids[t]], widened. T is BF16 or float. table: [vocab, cols]; ids: [rows]; out: [rows, cols].
template <class T>
void embed(DeviceRows<const T> table, const std::int32_t* ids, DeviceRows<float> out, std::int64_t rows,
           std::int64_t cols, Stream stream);

/// y[i] = x[numbers[i]], bit for bit. T is BF16 or float. y: [rows, cols].
template <class T>
void gather_rows(DeviceRows<const T> x, const std::int32_t* numbers, DeviceRows<T> y, std::int64_t rows,
                 std::int64_t cols, Stream stream);

/// x = 0, then x[numbers[i]] = y[i], bit for bit. x: [x_rows, cols]; y: [rows, cols]; numbers are distinct. Two
/// launches.
template <class T>
void scatter_rows(DeviceRows<const T> y, const std::int32_t* numbers, DeviceRows<T> x, std::int64_t rows,
                  std::int64_t x_rows, std::int64_t cols, Stream stream);

/// x = 0. x: [rows, cols]; what lies between its rows stays.
template <class T>
void clear_rows(DeviceRows<T> x, std::int64_t rows, std::int64_t cols, Stream stream);

}  // namespace lomu::cuda
