#include "kernels/cuda/cuda_linear.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/dropout_rows.h"
#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/low_rank_moves.h"

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

bool has_dropout(const AdaptedLinear& linear) {
  return std::any_of(linear.adapters.begin(), linear.adapters.end(),
                     [](const Adapter& a) { return a.rank > 0 && a.dropout.p > 0; });
}

/// The tensor with `count` of its spare columns.
Tensor widened(const Tensor& t, std::int64_t count) {
  return {t.data, t.dtype, t.rows, t.cols + count, t.ld};
}

/// Whether products may take factors from beside the weights and put low-rank activations beside `t`.
template <class T>
bool is_augmented(const AdaptedLayout<T>& layout, const Tensor& t) {
  return layout.augmented() && t.spare >= layout.width();
}

}  // namespace

template <class T>
void CudaLinear<T>::pack_adapters(std::span<const AdaptedLinear* const> linears) {
  std::vector<FactorRectangle<T>> table;
  for (const AdaptedLinear* linear : linears) {
    if (linear->total_rank() > 0) AdaptedLayout<T>(*linear).append_rectangles(*linear, table);
  }
  if (table.empty()) return;
  // Step after step it is the same table, which then is on the device.
  const std::size_t bytes = table.size() * sizeof table.front();
  if (table.size() != factors_.size() || std::memcmp(table.data(), factors_.data(), bytes) != 0) {
    if (factor_table_.size() < bytes) {
      factor_table_ = Buffer();
      factor_table_ = memory_.allocate(Scope::kWorkspace, bytes, "table of factors");
    }
    memory_.storage().upload(factor_table_.data(), table.data(), bytes);
    factors_ = std::move(table);
  }
  const FactorRectangle<T>& last = factors_.back();
  pack_factors<T>(factor_table_.as<const FactorRectangle<T>>(), factors_.size(),
                  last.first_block + factor_blocks(last.rows, last.cols), stream_);
}

template <class T>
void CudaLinear<T>::multiply(const Tensor& a, bool a_transposed, const Factor& b, const Tensor& d, double alpha,
                             const Tensor& c, const float* bias) {
  Product p;
  p.m = d.rows;
  p.n = d.cols;
  p.k = a_transposed ? a.rows : a.cols;
  p.operand = kTypeOf<T>;
  p.result = d.dtype;
  p.a = {a.data, a.ld, a_transposed};
  p.b = {b.data, b.ld, b.transposed};
  p.d = d.data;
  p.ldd = d.ld;
  p.alpha = static_cast<float>(alpha);
  if (!c.empty()) {
    p.beta = 1;
    if (c.data != d.data) {
      p.c = c.data;
      p.ldc = c.ld;
    }
  }
  p.bias = bias;
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
void CudaLinear<T>::low_rank_forward(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& x,
                                     const Tensor& s) {
  const std::int64_t rank = linear.total_rank();
  const Tensor spare = x.columns(x.cols, x.spare);
  const bool in_place = s.data == spare.data;
  if (has_dropout(linear)) {
    for (const AdaptedPart& part : parts_of(linear)) {
      if (part.rank == 0) continue;
      multiply(input_of(*part.adapter, x), false,
               {layout.right() + part.rank_begin * layout.right_ld(), layout.right_ld(), true},
               s.columns(part.rank_begin, part.rank));
    }
  } else {
    // In place, the zero rows below A give the zero columns behind S.
    const bool with_zeros = in_place && is_augmented(layout, x);
    multiply(x, false, {layout.right(), layout.right_ld(), true},
             with_zeros ? spare.columns(0, layout.width()) : s.columns(0, rank));
    if (with_zeros && !layout.holds_bias()) return;
  }
  if (is_augmented(layout, x)) {
    fill_spare_columns<T>(rows_of<const T>(s), rank, layout.holds_bias(), rows_of<T>(spare), layout.width(), x.rows,
                          stream_);
  }
}

template <class T>
void CudaLinear<T>::forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                            const Tensor& s) {
  if (x.rows == 0) return;
  const AdaptedLayout<T> layout(linear);
  const std::int64_t rank = linear.total_rank();
  if (rank > 0) low_rank_forward(linear, layout, x, s);
  const bool augmented = is_augmented(layout, x);
  const bool bias = has_bias(linear) && !(augmented && layout.holds_bias());
  const bool one_product = augmented || rank == 0;

  Tensor sums = y;
  if (y.dtype != DType::kF32 && (bias || !one_product)) {
    sums = Tensor(scratch_.take<float>(Slot::kWide, y.size()), DType::kF32, y.rows, y.cols);
  }
  const bool bias_in_product = bias && linear.frozen.outs.size() == 1;
  multiply(augmented ? widened(x, layout.width()) : x, false, {layout.weights(), layout.weights_ld(), true}, sums, 1,
           residual, bias_in_product ? linear.bias.front() : nullptr);
  if (!one_product) multiply(s, false, {layout.left(), layout.left_ld(), true}, sums, 1, sums);
  finish(linear, bias && !bias_in_product, sums, y);
}

template <class T>
void CudaLinear<T>::finish(const AdaptedLinear& linear, bool add_bias, const Tensor& sums, const Tensor& y) {
  const bool round = sums.data != y.data;
  if (!add_bias) {
    if (round) {
      finish_product<T>(rows_of<const float>(sums), nullptr, {}, rows_of<T>(y), y.rows, y.cols, stream_);
    }
    return;
  }
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < linear.frozen.outs.size(); ++i) {
    const std::int64_t out = linear.frozen.outs[i];
    const Tensor columns = sums.columns(begin, out);
    if (round) {
      finish_product<T>(rows_of<const float>(columns), linear.bias[i], {}, rows_of<T>(y.columns(begin, out)), y.rows,
                        out, stream_);
    } else if (linear.bias[i] != nullptr) {
      finish_product<float>(rows_of<const float>(columns), linear.bias[i], {}, rows_of<float>(columns), y.rows, out,
                            stream_);
    }
    begin += out;
  }
}

template <class T>
Tensor CudaLinear<T>::rounded(const AdaptedLayout<T>& layout, const Tensor& dy) {
  if (dy.dtype == kTypeOf<T>) return dy;
  const std::int64_t spare = layout.augmented() ? layout.width() : 0;
  const std::int64_t ld = dy.cols + spare;
  Tensor narrow(scratch_.take<T>(Slot::kRounded, dy.rows * ld), kTypeOf<T>, dy.rows, dy.cols, ld);
  finish_product<T>(rows_of<const float>(dy), nullptr, {}, rows_of<T>(narrow), dy.rows, dy.cols, stream_);
  return narrow.with_spare(spare);
}

template <class T>
Tensor CudaLinear<T>::low_rank_gradient(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& dy) {
  // Beside dY all of them: zero columns of s B give zeros, and those of the bias meet rows of zeros in [W; A; 0].
  const std::int64_t width = layout.width();
  const Tensor ds = is_augmented(layout, dy)
                        ? dy.columns(dy.cols, width)
                        : Tensor(scratch_.take<T>(Slot::kLowRank, dy.rows * width), dy.dtype, dy.rows, width);
  multiply(dy, false, {layout.left(), layout.left_ld(), false}, ds);
  return ds.columns(0, linear.total_rank());
}

template <class T>
void CudaLinear<T>::right_gradients(const AdaptedLinear& linear, const Tensor& x, const Tensor& ds) {
  std::vector<AdaptedPart> adapted = parts_of(linear);
  std::erase_if(adapted, [](const AdaptedPart& part) { return part.rank == 0; });
  const bool stacked = adapted.size() > 1 && !has_dropout(linear);
  if (!stacked) {
    for (const AdaptedPart& part : adapted) {
      const Tensor input = input_of(*part.adapter, x);
      multiply(ds.columns(part.rank_begin, part.rank), true, {input.data, input.ld, false},
               Tensor(part.adapter->grad_a, DType::kF32, part.rank, x.cols));
    }
    return;
  }
  // One pass over x for all parts; what is moved afterwards is small.
  const Tensor all(scratch_.take<float>(Slot::kFactors, ds.cols * x.cols), DType::kF32, ds.cols, x.cols);
  multiply(ds, true, {x.data, x.ld, false}, all);
  std::vector<FloatRun> runs;
  for (const AdaptedPart& part : adapted) {
    runs.push_back({all.row<float>(part.rank_begin), static_cast<float*>(part.adapter->grad_a), part.rank * x.cols});
  }
  copy_runs(runs, stream_);
}

template <class T>
void CudaLinear<T>::left_gradients(const AdaptedLinear& linear, const Tensor& s, const Tensor& dy) {
  for (const AdaptedPart& part : parts_of(linear)) {
    if (part.rank == 0) continue;
    const Tensor low = s.columns(part.rank_begin, part.rank);
    multiply(dy.columns(part.begin, part.out), true, {low.data, low.ld, false},
             Tensor(part.adapter->grad_b, DType::kF32, part.out, part.rank), part.adapter->scale);
  }
}

template <class T>
void CudaLinear<T>::input_gradient(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& dy,
                                   const Tensor& ds, const Tensor& dx) {
  const std::int64_t in = linear.frozen.in;
  const Factor weights{layout.weights(), layout.weights_ld(), false};
  const bool dropout = has_dropout(linear);
  if (linear.total_rank() == 0 || (is_augmented(layout, dy) && !dropout)) {
    multiply(linear.total_rank() == 0 ? dy : widened(dy, layout.width()), false, weights, dx);
    return;
  }
  Tensor sums = dx;
  if (dx.dtype != DType::kF32) {
    sums = Tensor(scratch_.take<float>(Slot::kWide, dx.size()), DType::kF32, dx.rows, dx.cols);
  }
  multiply(dy, false, weights, sums);
  if (!dropout) {
    multiply(ds, false, {layout.right(), layout.right_ld(), false}, sums, 1, sums);
  } else {
    for (const AdaptedPart& part : parts_of(linear)) {
      if (part.rank == 0) continue;
      Tensor through(scratch_.take<float>(Slot::kPartials, dx.size()), DType::kF32, dx.rows, dx.cols);
      multiply(ds.columns(part.rank_begin, part.rank), false,
               {layout.right() + part.rank_begin * layout.right_ld(), layout.right_ld(), false}, through);
      add_dropped_rows(part.adapter->dropout, rows_of<const float>(through), rows_of<float>(sums), dx.rows, in,
                       stream_);
    }
  }
  if (dx.dtype != DType::kF32) {
    finish_product<T>(rows_of<const float>(sums), nullptr, {}, rows_of<T>(dx), dx.rows, dx.cols, stream_);
  }
}

template <class T>
void CudaLinear<T>::clear_gradients(const AdaptedLinear& linear) {
  for (const AdaptedPart& part : parts_of(linear)) {
    memory_.storage().zero(part.adapter->grad_a,
                           static_cast<std::size_t>(part.rank * linear.frozen.in) * sizeof(float));
    memory_.storage().zero(part.adapter->grad_b, static_cast<std::size_t>(part.out * part.rank) * sizeof(float));
  }
}

template <class T>
void CudaLinear<T>::backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy_any,
                             const Tensor& dx) {
  if (dy_any.rows == 0) {
    clear_gradients(linear);
    return;
  }
  const AdaptedLayout<T> layout(linear);
  const Tensor dy = rounded(layout, dy_any);
  Tensor ds;
  if (linear.total_rank() > 0) {
    ds = low_rank_gradient(linear, layout, dy);
    right_gradients(linear, x, ds);
    left_gradients(linear, s, dy);
  }
  if (!dx.empty()) input_gradient(linear, layout, dy, ds, dx);
}

template <class T>
void CudaLinear<T>::add_scratch(ScratchSizes& sizes, const Workload::Linear& linear, std::int64_t rows, bool backward) {
  constexpr bool kRounds = !std::is_same_v<T, float>;
  const std::int64_t in = linear.layer.frozen.in;
  const std::int64_t out = linear.layer.frozen.out();
  const std::int64_t rank = linear.layer.total_rank();
  const std::int64_t spare = linear.layer.frozen.spare;
  const bool dropout = has_dropout(linear.layer);
  const bool augmented = rank > 0 && spare >= augmented_columns(rank, linear.bias);
  const bool one_product = augmented || (rank == 0 && !linear.bias);
  if (kRounds && !linear.to_stream && !one_product) need<float>(sizes, Slot::kWide, rows * out);
  if (dropout) need<T>(sizes, Slot::kDropped, rows * in);
  if (!backward) return;
  const bool rounds_dy = kRounds && linear.to_stream;
  if (rounds_dy) need<T>(sizes, Slot::kRounded, rows * (out + spare));
  if (rank == 0) return;
  // dS lies beside dY where that comes in the activation's type or is rounded here.
  if (!augmented || (linear.to_stream && !rounds_dy)) need<T>(sizes, Slot::kLowRank, rows * std::max(rank, spare));
  if (linear.layer.frozen.outs.size() > 1 && !dropout) need<float>(sizes, Slot::kFactors, rank * in);
  if (kRounds && (dropout || !augmented)) need<float>(sizes, Slot::kWide, rows * in);
  if (dropout) need<float>(sizes, Slot::kPartials, rows * in);
}

template class CudaLinear<float>;
template class CudaLinear<BF16>;

}  // namespace lomu::cuda
