#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {
namespace {

std::span<const double> head(const Matrix& m, std::int64_t row, std::int64_t h, std::int64_t head_dim) {
  return m.row(row).subspan(static_cast<std::size_t>(h * head_dim), static_cast<std::size_t>(head_dim));
}
std::span<double> head(Matrix& m, std::int64_t row, std::int64_t h, std::int64_t head_dim) {
  return m.row(row).subspan(static_cast<std::size_t>(h * head_dim), static_cast<std::size_t>(head_dim));
}

/// Softmax of one query row over the keys that it sees.
struct Weights {
  std::int64_t first_key = 0;  ///< row of k and v
  std::vector<double> p;       ///< one weight a key, from first_key on; they add up to 1
  double log_sum_exp = 0;
};

Weights softmax_row(const AttentionShape& shape, const SequenceSpan& sequence, std::int64_t query,
                    std::span<const double> q, const Matrix& k, std::int64_t kv_head) {
  const std::int64_t position = sequence.key_length - sequence.query_length + query;
  const std::int64_t first = shape.window > 0 ? std::max<std::int64_t>(0, position - shape.window + 1) : 0;
  Weights w;
  w.first_key = sequence.key_begin + first;
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = first; j <= position; ++j) {
    w.p.push_back(shape.scale * dot(q, head(k, sequence.key_begin + j, kv_head, shape.head_dim)));
    largest = std::max(largest, w.p.back());
  }
  double sum = 0;
  for (double& p : w.p) sum += p = std::exp(p - largest);
  for (double& p : w.p) p /= sum;
  w.log_sum_exp = largest + std::log(sum);
  return w;
}

/// Calls f(sequence, query index, head) for every query row of every head.
template <class F>
void for_each_query(const AttentionShape& shape, std::span<const SequenceSpan> sequences, F f) {
  for (const SequenceSpan& sequence : sequences) {
    for (std::int64_t i = 0; i < sequence.query_length; ++i) {
      for (std::int64_t h = 0; h < shape.heads; ++h) f(sequence, i, h);
    }
  }
}

}  // namespace

void ReferenceOps::attention(const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
                             const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse) const {
  for (const Tensor* t : {&q, &k, &v, &out}) require_dtype(*t, {precision_.activation}, "attention: q, k, v or out");
  const Matrix queries = load(q);
  const Matrix keys = load(k);
  const Matrix values = load(v);
  Matrix output(out.rows, out.cols);
  Matrix log_sums(out.rows, shape.heads);
  const std::int64_t group = shape.heads / shape.kv_heads;
  for_each_query(shape, sequences, [&](const SequenceSpan& sequence, std::int64_t i, std::int64_t h) {
    const std::int64_t row = sequence.query_begin + i;
    const Weights w = softmax_row(shape, sequence, i, head(queries, row, h, shape.head_dim), keys, h / group);
    log_sums(row, h) = w.log_sum_exp;
    for (std::size_t j = 0; j < w.p.size(); ++j) {
      const std::int64_t key = w.first_key + static_cast<std::int64_t>(j);
      add_scaled(head(output, row, h, shape.head_dim), w.p[j], head(values, key, h / group, shape.head_dim));
    }
  });
  store(output, out);
  if (!lse.empty()) store(log_sums, lse);
}

// o = sum_j p_j v_j with p = softmax(c q k^T). With g = do v^T: dv_j += p_j do; dscore_j = p_j (g_j - sum_i p_i g_i).
// The softmax is computed again instead of taken from `out` and `lse`, whose rounding is the backend's affair.
void ReferenceOps::attention_backward(const AttentionShape& shape, std::span<const SequenceSpan> sequences,
                                      const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&, const Tensor&,
                                      const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) const {
  for (const Tensor* t : {&q, &k, &v, &dout, &dq, &dk, &dv}) {
    require_dtype(*t, {precision_.activation}, "attention_backward: an argument");
  }
  const Matrix queries = load(q);
  const Matrix keys = load(k);
  const Matrix values = load(v);
  const Matrix d_output = load(dout);
  Matrix d_queries(q.rows, q.cols);
  Matrix d_keys(k.rows, k.cols);
  Matrix d_values(v.rows, v.cols);
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  for_each_query(shape, sequences, [&](const SequenceSpan& sequence, std::int64_t i, std::int64_t h) {
    const std::int64_t row = sequence.query_begin + i;
    const std::int64_t kv = h / group;
    const Weights w = softmax_row(shape, sequence, i, head(queries, row, h, d), keys, kv);
    std::vector<double> g(w.p.size());
    for (std::size_t j = 0; j < g.size(); ++j) {
      const std::int64_t key = w.first_key + static_cast<std::int64_t>(j);
      g[j] = dot(head(d_output, row, h, d), head(values, key, kv, d));
      add_scaled(head(d_values, key, kv, d), w.p[j], head(d_output, row, h, d));
    }
    const double mean = dot(w.p, g);
    for (std::size_t j = 0; j < g.size(); ++j) {
      const std::int64_t key = w.first_key + static_cast<std::int64_t>(j);
      const double d_score = shape.scale * w.p[j] * (g[j] - mean);
      add_scaled(head(d_queries, row, h, d), d_score, head(keys, key, kv, d));
      add_scaled(head(d_keys, key, kv, d), d_score, head(queries, row, h, d));
    }
  });
  store(d_queries, dq);
  store(d_keys, dk);
  store(d_values, dv);
}

}  // namespace lomu::reference
