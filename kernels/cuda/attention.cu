// The way into the attention kernels: demands on the arguments, row statistics for backward, and the choice of path.
#include <string_view>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_kernels.h"

namespace lomu::cuda {
namespace {

using gpu::bf16;

constexpr int kStatisticsThreads = 256;
constexpr int kLanesOfRow = 16;  // for a row and head; 8 features each are 128
constexpr double kLog2E = 1.4426950408889634;

template <class T>
struct StatisticsArguments {
  const T *out, *dout;
  const float* lse;
  RowStatistics* statistics;
  std::int64_t out_ld, dout_ld, lse_ld, rows;
  int heads, head_dim;
  float lse_factor;
};

/// statistics[head][row] = {factor lse, sum of dout out}. Bound by memory: reads out and dout once. kVector: 16 bytes
/// at a time, which needs aligned rows.
template <class T, bool kVector>
__global__ void __launch_bounds__(kStatisticsThreads) statistics_kernel(StatisticsArguments<T> a) {
  const std::int64_t pair = (static_cast<std::int64_t>(blockIdx.x) * kStatisticsThreads + threadIdx.x) / kLanesOfRow;
  const int lane = static_cast<int>(threadIdx.x % kLanesOfRow);
  const std::int64_t row = pair / a.heads, head = pair % a.heads;
  const bool exists = row < a.rows;
  float sum = 0;
  if (exists) {
    const T* out = a.out + row * a.out_ld + head * a.head_dim;
    const T* dout = a.dout + row * a.dout_ld + head * a.head_dim;
    if constexpr (kVector) {
      for (int i = lane * 8; i < a.head_dim; i += kLanesOfRow * 8) {
        float x[8], y[8];
        gpu::load8(out + i, x);
        gpu::load8(dout + i, y);
        for (int j = 0; j < 8; ++j) sum = fmaf(x[j], y[j], sum);
      }
    } else {
      for (int i = lane; i < a.head_dim; i += kLanesOfRow) {
        sum = fmaf(gpu::to_float(out[i]), gpu::to_float(dout[i]), sum);
      }
    }
  }
  for (int d = 1; d < kLanesOfRow; d *= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (exists && lane == 0) a.statistics[head * a.rows + row] = {a.lse[row * a.lse_ld + head] * a.lse_factor, sum};
}

/// On the tensor-core path rows are copied 16 bytes at a time.
template <class T>
void check_rows(AttentionPath path, std::string_view name, DeviceRows<T> x) {
  if (path == AttentionPath::kPlain || (gpu::is_aligned16(x.data) && x.ld % 8 == 0)) return;
  refuse_unaligned(name, x.ld);
}

template <class T>
AttentionArguments<gpu::Element<T>> arguments_of(const AttentionShape& shape, const AttentionPlan& plan,
                                                 const AttentionTile* tiles, DeviceRows<const T> q,
                                                 DeviceRows<const T> k, DeviceRows<const T> v) {
  check_rows(plan.path, "q", q);
  check_rows(plan.path, "k", k);
  check_rows(plan.path, "v", v);
  constexpr std::int64_t kNoWindow = 1 << 30;  // more than the rows of any plan
  AttentionArguments<gpu::Element<T>> a{};
  a.tiles = tiles;
  a.q = gpu::element_ptr(q.data);
  a.k = gpu::element_ptr(k.data);
  a.v = gpu::element_ptr(v.data);
  a.q_ld = q.ld;
  a.k_ld = k.ld;
  a.v_ld = v.ld;
  a.query_rows = plan.query_rows;
  a.heads = static_cast<int>(shape.heads);
  a.group = static_cast<int>(shape.heads / shape.kv_heads);
  a.head_dim = static_cast<int>(shape.head_dim);
  a.window = static_cast<int>(plan.window < kNoWindow ? plan.window : 0);
  a.scale = static_cast<float>(shape.scale);
  return a;
}

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<T, BF16> ? DType::kBF16 : DType::kF32;
}

}  // namespace

std::size_t attention_backward_bytes(std::int64_t heads, std::int64_t query_rows) {
  return static_cast<std::size_t>(heads) * static_cast<std::size_t>(query_rows) * sizeof(RowStatistics);
}

template <class T>
void attention(const AttentionShape& shape, const AttentionPlan& plan, const AttentionTile* tiles,
               DeviceRows<const T> q, DeviceRows<const T> k, DeviceRows<const T> v, DeviceRows<T> out,
               DeviceRows<float> lse, Stream stream) {
  check_attention(shape, plan, dtype_of<T>(), false);
  check_rows(plan.path, "out", out);
  auto a = arguments_of<T>(shape, plan, tiles, q, k, v);
  a.out = gpu::element_ptr(out.data);
  a.out_ld = out.ld;
  a.lse = lse.data;
  a.lse_ld = lse.ld;
  if constexpr (std::is_same_v<T, BF16>) {
    if (plan.path == AttentionPath::kTensorCores) return tensor_attention(a, plan.forward, stream);
  }
  plain_attention(a, plan.forward, stream);
}

template <class T>
void attention_backward(const AttentionShape& shape, const AttentionPlan& plan, const AttentionTile* tiles,
                        DeviceRows<const T> q, DeviceRows<const T> k, DeviceRows<const T> v, DeviceRows<const T> out,
                        DeviceRows<const float> lse, DeviceRows<const T> dout, DeviceRows<T> dq, DeviceRows<T> dk,
                        DeviceRows<T> dv, void* workspace, Stream stream) {
  check_attention(shape, plan, dtype_of<T>(), true);
  if (plan.forward == 0) return;
  check_rows(plan.path, "out", out);
  check_rows(plan.path, "dout", dout);
  check_rows(plan.path, "dq", dq);
  check_rows(plan.path, "dk", dk);
  check_rows(plan.path, "dv", dv);
  auto a = arguments_of<T>(shape, plan, tiles, q, k, v);
  a.dout = gpu::element_ptr(dout.data);
  a.dq = gpu::element_ptr(dq.data);
  a.dk = gpu::element_ptr(dk.data);
  a.dv = gpu::element_ptr(dv.data);
  a.dout_ld = dout.ld;
  a.dq_ld = dq.ld;
  a.dk_ld = dk.ld;
  a.dv_ld = dv.ld;
  a.statistics = static_cast<RowStatistics*>(workspace);

  const bool tensor_cores = plan.path == AttentionPath::kTensorCores;
  const StatisticsArguments<gpu::Element<T>> s{gpu::element_ptr(out.data),
                                               a.dout,
                                               lse.data,
                                               a.statistics,
                                               out.ld,
                                               dout.ld,
                                               lse.ld,
                                               plan.query_rows,
                                               a.heads,
                                               a.head_dim,
                                               static_cast<float>(tensor_cores ? kLog2E : 1.0)};
  const auto blocks = gpu::ceil_div(plan.query_rows * shape.heads, kStatisticsThreads / kLanesOfRow);
  const gpu::Launch at{dim3(static_cast<unsigned>(blocks)), dim3(kStatisticsThreads), 0, stream};
  const auto query_backward = a.tiles + plan.forward, key_backward = query_backward + plan.queries;
  if constexpr (std::is_same_v<T, BF16>) {
    if (tensor_cores) {
      gpu::launch(statistics_kernel<bf16, true>, at, s);
      a.tiles = key_backward;
      tensor_attention_keys_backward(a, plan.keys, stream);
      a.tiles = query_backward;
      tensor_attention_queries_backward(a, plan.queries, stream);
      return;
    }
  }
  gpu::launch(statistics_kernel<gpu::Element<T>, false>, at, s);
  a.tiles = key_backward;
  plain_attention_keys_backward(a, plan.keys, stream);
  a.tiles = query_backward;
  plain_attention_queries_backward(a, plan.queries, stream);
}

template void attention(const AttentionShape&, const AttentionPlan&, const AttentionTile*, DeviceRows<const BF16>,
                        DeviceRows<const BF16>, DeviceRows<const BF16>, DeviceRows<BF16>, DeviceRows<float>, Stream);
template void attention(const AttentionShape&, const AttentionPlan&, const AttentionTile*, DeviceRows<const float>,
                        DeviceRows<const float>, DeviceRows<const float>, DeviceRows<float>, DeviceRows<float>, Stream);
template void attention_backward(const AttentionShape&, const AttentionPlan&, const AttentionTile*,
                                 DeviceRows<const BF16>, DeviceRows<const BF16>, DeviceRows<const BF16>,
                                 DeviceRows<const BF16>, DeviceRows<const float>, DeviceRows<const BF16>,
                                 DeviceRows<BF16>, DeviceRows<BF16>, DeviceRows<BF16>, void*, Stream);
template void attention_backward(const AttentionShape&, const AttentionPlan&, const AttentionTile*,
                                 DeviceRows<const float>, DeviceRows<const float>, DeviceRows<const float>,
                                 DeviceRows<const float>, DeviceRows<const float>, DeviceRows<const float>,
                                 DeviceRows<float>, DeviceRows<float>, DeviceRows<float>, void*, Stream);

}  // namespace lomu::cuda
