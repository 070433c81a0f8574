// A matrix on the device as the host functions of this folder take it. Owns nothing and knows no shape: shapes are
// arguments of their own, as several matrices of an operation share them.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lomu::cuda {

/// The first element, and the elements from one row to the next: a column slice of a wider matrix is one too.
template <class T>
struct DeviceRows {
  T* data = nullptr;
  std::int64_t ld = 0;

  DeviceRows() = default;
  DeviceRows(T* d, std::int64_t l) : data(d), ld(l) {}
  /// What may be written may be read.
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  DeviceRows(DeviceRows<U> m) : data(m.data), ld(m.ld) {}  // NOLINT(google-explicit-constructor)
};

}  // namespace lomu::cuda
