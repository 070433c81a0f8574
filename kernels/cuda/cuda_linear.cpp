#include "kernels/cuda/cuda_linear.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/dropout_rows.h"
#include "kernels/cuda/epilogue.h"

namespace lomu::cuda {
namespace {

template <class T>
constexpr DType kTypeOf = DType::kF32;
template <>
constexpr DType kTypeOf<BF16> = DType::kBF16;

template <class T>
DeviceRows<T> rows_of(const Tensor& t) {
  return {t.as<std::remove_const_t<T>>(), t.ld};
}

std::size_t padded(std::size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
}

template <class T>
std::size_t matrix_bytes(std::int64_t rows, std::int64_t cols) {
  return padded(static_cast<std::size_t>(rows * cols) * sizeof(T));
}

}  // namespace

template <class T>
std::size_t CudaLinear<T>::frozen_bytes(const FrozenLinear& linear) {
  return matrix_bytes<T>(linear.out(), linear.in);
}

template <class T>
std::size_t CudaLinear<T>::adapter_bytes(const AdaptedLinear& linear) {
  std::size_t bytes = matrix_bytes<T>(linear.total_rank(), linear.frozen.in);
  for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
    bytes += matrix_bytes<T>(linear.frozen.outs[i], linear.adapters[i].rank);
  }
  return bytes;
}

template <class T>
void CudaLinear<T>::pack_frozen(Storage& storage, const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                                std::int64_t rows, const float* w) {
  std::int64_t row = first_row;
  for (std::size_t i = 0; i < part; ++i) row += linear.outs[i];
  const auto count = static_cast<std::size_t>(rows * linear.in);
  T* to = reinterpret_cast<T*>(linear.storage) + row * linear.in;
  if constexpr (std::is_same_v<T, float>) {
    storage.upload(to, w, count * sizeof(float));
  } else {
    std::vector<T> narrow(count);
    std::transform(w, w + count, narrow.begin(), [](float value) { return T(value); });
    storage.upload(to, narrow.data(), count * sizeof(T));
  }
}

template <class T>
auto CudaLinear<T>::parts_of(const AdaptedLinear& linear) -> std::vector<Part> {
  std::vector<Part> parts;
  std::byte* left =
      linear.packed == nullptr ? nullptr : linear.packed + matrix_bytes<T>(linear.total_rank(), linear.frozen.in);
  Part next;
  for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
    next.out = linear.frozen.outs[i];
    next.adapter = &linear.adapters[i];
    next.left = reinterpret_cast<T*>(left);
    parts.push_back(next);
    next.begin += next.out;
    next.rank_begin += next.adapter->rank;
    if (left != nullptr) left += matrix_bytes<T>(next.out, next.adapter->rank);
  }
  return parts;
}

template <class T>
void CudaLinear<T>::pack_adapters(const AdaptedLinear& linear) {
  const std::int64_t in = linear.frozen.in;
  for (const Part& part : parts_of(linear)) {
    const Adapter& a = *part.adapter;
    if (a.rank == 0) continue;
    copy_rows<T>({a.a, in}, 1, {right_factors(linear) + part.rank_begin * in, in}, a.rank, in, stream_);
    copy_rows<T>({a.b, a.rank}, static_cast<float>(a.scale), {part.left, a.rank}, part.out, a.rank, stream_);
  }
}

template <class T>
void CudaLinear<T>::multiply(const Tensor& a, bool a_transposed, const void* b, std::int64_t ldb, bool b_transposed,
                             const Tensor& d, float alpha, float beta) {
  Product p;
  p.m = d.rows;
  p.n = d.cols;
  p.k = a_transposed ? a.rows : a.cols;
  p.operand = kTypeOf<T>;
  p.result = d.dtype;
  p.a = {a.data, a.ld, a_transposed};
  p.b = {b, ldb, b_transposed};
  p.d = d.data;
  p.ldd = d.ld;
  p.alpha = alpha;
  p.beta = beta;
  products_.run(p, stream_);
}

template <class T>
Tensor CudaLinear<T>::input_of(const Adapter& adapter, const Tensor& x) {
  if (!(adapter.dropout.p > 0)) return x;
  Tensor dropped(scratch_.take<T>(Slot::kDropped, x.size()), x.dtype, x.rows, x.cols);
  dropout_rows<T>(adapter.dropout, rows_of<const T>(x), rows_of<T>(dropped), x.rows, x.cols, stream_);
  return dropped;
}

template <class T>
void CudaLinear<T>::low_rank_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s) {
  const bool shared = std::none_of(linear.adapters.begin(), linear.adapters.end(),
                                   [](const Adapter& a) { return a.rank > 0 && a.dropout.p > 0; });
  if (shared) {
    multiply(x, false, right_factors(linear), x.cols, true, s, 1, 0);
    return;
  }
  for (const Part& part : parts_of(linear)) {
    if (part.adapter->rank == 0) continue;
    multiply(input_of(*part.adapter, x), false, right_factors(linear) + part.rank_begin * x.cols, x.cols, true,
             s.columns(part.rank_begin, part.adapter->rank), 1, 0);
  }
}

template <class T>
void CudaLinear<T>::forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                            const Tensor& s) {
  if (x.rows == 0) return;
  const std::int64_t in = linear.frozen.in;
  const T* weights = reinterpret_cast<const T*>(linear.frozen.storage);
  if (linear.total_rank() > 0) low_rank_forward(linear, x, s);
  // Products go to y where it is f32; otherwise they are added in f32 and rounded once.
  Tensor sums = y;
  if (y.dtype != DType::kF32) {
    sums = Tensor(scratch_.take<float>(Slot::kWide, y.size()), DType::kF32, y.rows, y.cols);
  }
  if (!residual.empty() && residual.data != y.data) {
    storage_.copy_rows(y.data, static_cast<std::size_t>(y.ld) * sizeof(float), residual.data,
                       static_cast<std::size_t>(residual.ld) * sizeof(float),
                       static_cast<std::size_t>(y.cols) * sizeof(float), static_cast<std::size_t>(y.rows));
  }
  multiply(x, false, weights, in, true, sums, 1, residual.empty() ? 0.0F : 1.0F);
  const std::vector<Part> parts = parts_of(linear);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const Tensor columns = sums.columns(part.begin, part.out);
    if (part.adapter->rank > 0) {
      const std::int64_t rank = part.adapter->rank;
      multiply(s.columns(part.rank_begin, rank), false, part.left, rank, true, columns, 1, 1);
    }
    const float* bias = linear.bias.empty() ? nullptr : linear.bias[i];
    if (y.dtype != DType::kF32) {
      finish_product<T>(rows_of<const float>(columns), bias, {}, rows_of<T>(y.columns(part.begin, part.out)), y.rows,
                        part.out, stream_);
    } else if (bias != nullptr) {
      finish_product<float>(rows_of<const float>(columns), bias, {}, rows_of<float>(columns), y.rows, part.out,
                            stream_);
    }
  }
}

template <class T>
void CudaLinear<T>::factor_gradients(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                                     const Tensor& ds) {
  for (const Part& part : parts_of(linear)) {
    const Adapter& a = *part.adapter;
    if (a.rank == 0) continue;
    const Tensor input = input_of(a, x);
    multiply(ds.columns(part.rank_begin, a.rank), true, input.data, input.ld, false,
             Tensor(a.grad_a, DType::kF32, a.rank, x.cols), 1, 0);
    const Tensor low = s.columns(part.rank_begin, a.rank);
    multiply(dy.columns(part.begin, part.out), true, low.data, low.ld, false,
             Tensor(a.grad_b, DType::kF32, part.out, a.rank), static_cast<float>(a.scale), 0);
  }
}

template <class T>
void CudaLinear<T>::input_gradient(const AdaptedLinear& linear, const Tensor& dy, const Tensor& ds, const Tensor& dx) {
  const std::int64_t in = linear.frozen.in;
  const std::int64_t rank = linear.total_rank();
  Tensor sums = dx;
  if (dx.dtype != DType::kF32) {
    sums = Tensor(scratch_.take<float>(Slot::kWide, dx.size()), DType::kF32, dx.rows, dx.cols);
  }
  multiply(dy, false, linear.frozen.storage, in, false, sums, 1, 0);
  for (const Part& part : parts_of(linear)) {
    const Adapter& a = *part.adapter;
    if (a.rank == 0 || !(a.dropout.p > 0)) continue;
    Tensor through(scratch_.take<float>(Slot::kPartials, dx.size()), DType::kF32, dx.rows, dx.cols);
    multiply(ds.columns(part.rank_begin, a.rank), false, right_factors(linear) + part.rank_begin * in, in, false,
             through, 1, 0);
    add_dropped_rows(a.dropout, rows_of<const float>(through), rows_of<float>(sums), dx.rows, in, stream_);
  }
  const bool dropped = std::any_of(linear.adapters.begin(), linear.adapters.end(),
                                   [](const Adapter& a) { return a.rank > 0 && a.dropout.p > 0; });
  if (rank > 0 && !dropped) multiply(ds, false, right_factors(linear), in, false, sums, 1, 1);
  if (dx.dtype != DType::kF32) {
    finish_product<T>(rows_of<const float>(sums), nullptr, {}, rows_of<T>(dx), dx.rows, dx.cols, stream_);
  }
}

template <class T>
void CudaLinear<T>::backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy_any,
                             const Tensor& dx) {
  const std::int64_t rank = linear.total_rank();
  if (dy_any.rows == 0) {
    for (const Part& part : parts_of(linear)) {
      const Adapter& a = *part.adapter;
      storage_.zero(a.grad_a, static_cast<std::size_t>(a.rank * linear.frozen.in) * sizeof(float));
      storage_.zero(a.grad_b, static_cast<std::size_t>(part.out * a.rank) * sizeof(float));
    }
    return;
  }
  Tensor dy = dy_any;
  if (dy_any.dtype != kTypeOf<T>) {
    dy = Tensor(scratch_.take<T>(Slot::kRounded, dy_any.size()), kTypeOf<T>, dy_any.rows, dy_any.cols);
    finish_product<T>(rows_of<const float>(dy_any), nullptr, {}, rows_of<T>(dy), dy.rows, dy.cols, stream_);
  }
  Tensor ds;
  if (rank > 0) {
    ds = Tensor(scratch_.take<T>(Slot::kLowRank, dy.rows * rank), kTypeOf<T>, dy.rows, rank);
    for (const Part& part : parts_of(linear)) {
      const std::int64_t r = part.adapter->rank;
      if (r == 0) continue;
      multiply(dy.columns(part.begin, part.out), false, part.left, r, false, ds.columns(part.rank_begin, r), 1, 0);
    }
    factor_gradients(linear, x, s, dy, ds);
  }
  if (!dx.empty()) input_gradient(linear, dy, ds, dx);
}

template class CudaLinear<float>;
template class CudaLinear<BF16>;

}  // namespace lomu::cuda
