// A frozen linear group with adapters for tests of operations: owns everything an AdaptedLinear points to.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"

namespace lomu::test {

struct LinearShape {
  std::int64_t in = 0;
  std::vector<std::int64_t> outs;
  std::vector<std::int64_t> ranks;  ///< per part; 0: no adapter
  bool bias = false;
  float dropout = 0;
};

struct LinearCase {
  Memory memory;
  Buffer storage;
  Buffer packed;
  std::vector<std::vector<float>> a, b, biases;
  std::vector<HostTensor> grad_a, grad_b;
  AdaptedLinear linear;

  LinearCase(const LinearShape& shape, const Ops& ops) {
    linear.frozen.in = shape.in;
    linear.frozen.outs = shape.outs;
    linear.frozen.spare =
        ops.spare_columns(std::accumulate(shape.ranks.begin(), shape.ranks.end(), std::int64_t{0}), shape.bias);
    storage = memory.allocate(Scope::kWeights, ops.frozen_bytes(linear.frozen), "frozen");
    // Not a number wherever a backend with spare room has not written.
    if (linear.frozen.spare > 0) std::memset(storage.data(), 0xff, storage.size());
    linear.frozen.storage = storage.data();
    grad_a.reserve(shape.outs.size());  // the adapters keep pointers into these
    grad_b.reserve(shape.outs.size());
    for (std::size_t i = 0; i < shape.outs.size(); ++i) add_part(shape, i, ops);
    packed = memory.allocate(Scope::kAdapters, ops.adapter_bytes(linear), "packed");
    linear.packed = packed.data();
    ops.pack_adapters(linear);
  }

 private:
  void add_part(const LinearShape& shape, std::size_t i, const Ops& ops) {
    const std::int64_t out = shape.outs[i];
    const std::int64_t rank = shape.ranks[i];
    const DType gradient = ops.precision().gradient;
    const auto w = random_floats(out * shape.in, 100 + i, 0.2);
    for (std::int64_t row = 0; row < out; row += Ops::kPackRows) {
      const std::int64_t rows = std::min(Ops::kPackRows, out - row);
      ops.pack_frozen(linear.frozen, i, row, encoded(w.data() + row * shape.in, rows, shape.in));
    }
    a.push_back(random_floats(rank * shape.in, 200 + i));
    b.push_back(random_floats(out * rank, 300 + i));
    biases.push_back(random_floats(out, 400 + i));
    grad_a.emplace_back(gradient, rank, shape.in);
    grad_b.emplace_back(gradient, out, rank);
    linear.bias.push_back(shape.bias ? biases.back().data() : nullptr);
    Adapter adapter;
    adapter.rank = rank;
    adapter.scale = 0.5 + 0.25 * static_cast<double>(i);
    adapter.a = a.back().data();
    adapter.b = b.back().data();
    adapter.grad_a = grad_a.back().view().data;
    adapter.grad_b = grad_b.back().view().data;
    adapter.dropout = {shape.dropout, 77 + i, 5};
    linear.adapters.push_back(adapter);
  }
};

}  // namespace lomu::test
