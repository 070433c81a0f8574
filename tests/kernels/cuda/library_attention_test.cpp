// How a batch reaches a library's graphs and its results come back, with the specification's loops in the library's
// place: they compute each group by itself from nothing but what a graph is given, so every result must have the bits
// that the specification gives for the whole batch.
#include "kernels/cuda/library_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/emulation/schedule.h"
#include "kernels/cuda/padded_lse.h"
#include "kernels/error.h"
#include "tests/kernels/host_tensor.h"

namespace lomu::cuda {
namespace {

using test::HostTensor;
using test::random_tensor;
using test::relative_error;

/// What became of the graphs; outlives them.
struct Log {
  std::vector<AttentionGraph> asked, run;
};

class PlainGraphs final : public AttentionGraphs {
 public:
  struct Behaviour {
    LseLayout lse = LseLayout::kByToken;
    bool deterministic = false;
    bool greedy = false;  ///< takes as much as is planned for
    AttentionGraphAnswer forward{true, 1000, ""};
    AttentionGraphAnswer backward{true, 3000, ""};
  };
  PlainGraphs(Log& log, Behaviour behaviour) : log_(log), behaviour_(std::move(behaviour)) {}

  [[nodiscard]] std::string name() const override { return "loops"; }
  [[nodiscard]] LseLayout backward_lse() const override { return behaviour_.lse; }
  [[nodiscard]] bool deterministic_backward() const override { return behaviour_.deterministic; }
  const AttentionGraphAnswer& ask(const AttentionGraph& graph) override {
    log_.asked.push_back(graph);
    if (behaviour_.greedy) {
      behaviour_.backward.workspace = backward_workspace_bound(graph.heads, graph.head_dim, graph.lse, graph.max_tokens,
                                                               graph.sequences * graph.max_length);
    }
    return graph.pass == AttentionPass::kForward ? behaviour_.forward : behaviour_.backward;
  }

  void run(const AttentionGraph& g, const AttentionGraphTensors& t, std::byte* workspace) override {
    log_.run.push_back(g);
    const auto lengths = std::vector<std::int64_t>(t.lengths, t.lengths + g.sequences);
    std::vector<SequenceSpan> spans;
    std::int64_t rows = 0;
    for (const std::int64_t n : lengths) {
      EXPECT_GT(n, 0);
      EXPECT_LE(n, g.max_length);
      spans.push_back({rows, n, rows, n});
      rows += n;
    }
    EXPECT_LE(rows, g.max_tokens);
    const auto matrix = [&](const void* data, DType type, std::int64_t cols, std::int64_t ld) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 16, 0u);
      expect_offsets(t, ld, spans);
      return Tensor(const_cast<void*>(data), type, rows, cols, ld);
    };
    const std::int64_t q_size = g.heads * g.head_dim, kv_size = g.kv_heads * g.head_dim;
    const Tensor q = matrix(t.q, DType::kBF16, q_size, g.q_ld), k = matrix(t.k, DType::kBF16, kv_size, g.k_ld);
    const Tensor v = matrix(t.v, DType::kBF16, kv_size, g.v_ld), out = matrix(t.out, DType::kBF16, q_size, g.out_ld);
    const AttentionShape shape{g.heads, g.kv_heads, g.head_dim, g.scale, g.window};
    const auto ops = make_reference_ops(kBF16Precision);
    const bool forward = g.pass == AttentionPass::kForward;
    // A library may use all of it.
    std::fill_n(workspace, forward ? behaviour_.forward.workspace : behaviour_.backward.workspace, std::byte{0xee});
    if (forward) {
      const Tensor lse = g.lse == LseLayout::kNone ? Tensor() : matrix(t.lse, DType::kF32, g.heads, g.heads);
      return ops->attention(shape, spans, q, k, v, out, lse);
    }
    EXPECT_EQ(g.lse, behaviour_.lse);
    std::vector<float> rows_of_heads;
    if (g.lse == LseLayout::kPadded) rows_of_heads = by_token(g, lengths, t.lse);
    const Tensor lse = g.lse == LseLayout::kPadded ? Tensor(rows_of_heads.data(), DType::kF32, rows, g.heads)
                                                   : matrix(t.lse, DType::kF32, g.heads, g.heads);
    ops->attention_backward(shape, spans, q, k, v, out, lse, matrix(t.dout, DType::kBF16, q_size, g.dout_ld),
                            matrix(t.dq, DType::kBF16, q_size, q_size), matrix(t.dk, DType::kBF16, kv_size, kv_size),
                            matrix(t.dv, DType::kBF16, kv_size, kv_size));
  }

 private:
  static void expect_offsets(const AttentionGraphTensors& t, std::int64_t ld, const std::vector<SequenceSpan>& spans) {
    const auto found =
        std::find_if(t.offsets.begin(), t.offsets.end(), [&](const RaggedOffsets& o) { return o.stride == ld; });
    ASSERT_NE(found, t.offsets.end()) << "no offsets for stride " << ld;
    for (std::size_t i = 0; i < spans.size(); ++i) EXPECT_EQ(found->offsets[i], spans[i].query_begin * ld);
    EXPECT_EQ(found->offsets[spans.size()], (spans.back().query_begin + spans.back().query_length) * ld);
  }

  static std::vector<float> by_token(const AttentionGraph& g, const std::vector<std::int64_t>& lengths,
                                     const float* padded) {
    std::vector<float> rows;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      for (std::int64_t i = 0; i < lengths[s]; ++i) {
        for (std::int64_t h = 0; h < g.heads; ++h) {
          rows.push_back(padded[(static_cast<std::int64_t>(s) * g.heads + h) * g.max_length + i]);
        }
      }
    }
    return rows;
  }

  Log& log_;
  Behaviour behaviour_;
};

std::vector<SequenceSpan> packed(const std::vector<std::int64_t>& lengths) {
  std::vector<SequenceSpan> spans;
  std::int64_t at = 0;
  for (const std::int64_t n : lengths) {
    spans.push_back({at, n, at, n});
    at += n;
  }
  return spans;
}

/// q|k|v in one matrix, its gradient likewise, and what the specification says of both.
struct Batch {
  AttentionShape shape;
  std::vector<SequenceSpan> sequences;
  std::int64_t rows;
  HostTensor qkv, dout, out, lse, dqkv, want_out, want_lse, want;

  Batch(const AttentionShape& s, const std::vector<std::int64_t>& lengths, std::int64_t gap = 8)
      : shape(s),
        sequences(packed(lengths)),
        rows(std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0})),
        qkv(random_tensor(DType::kBF16, rows, width(), 1, gap)),
        dout(random_tensor(DType::kBF16, rows, s.heads * s.head_dim, 2, 16)),
        out(DType::kBF16, rows, s.heads * s.head_dim, 2 * gap),
        lse(DType::kF32, rows, s.heads),
        dqkv(DType::kBF16, rows, width(), gap),
        want_out(DType::kBF16, rows, s.heads * s.head_dim, 2 * gap),
        want_lse(DType::kF32, rows, s.heads),
        want(DType::kBF16, rows, width(), gap) {
    const auto ops = make_reference_ops(kBF16Precision);
    ops->attention(shape, sequences, q(qkv), k(qkv), v(qkv), want_out, want_lse);
    ops->attention_backward(shape, sequences, q(qkv), k(qkv), v(qkv), want_out, want_lse, dout, q(want), k(want),
                            v(want));
  }

  [[nodiscard]] std::int64_t width() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_dim; }
  [[nodiscard]] Tensor q(const HostTensor& m) const { return m.view().columns(0, shape.heads * shape.head_dim); }
  [[nodiscard]] Tensor k(const HostTensor& m) const {
    return m.view().columns(shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
  }
  [[nodiscard]] Tensor v(const HostTensor& m) const {
    return m.view().columns((shape.heads + shape.kv_heads) * shape.head_dim, shape.kv_heads * shape.head_dim);
  }
};

/// The library and what it stands on.
struct Library {
  explicit Library(PlainGraphs::Behaviour behaviour = {}, bool deterministic = false)
      : graphs(log, std::move(behaviour)),
        attention(graphs, memory.storage(), scratch, uploads, nullptr, deterministic) {}

  bool forward(Batch& b, const Tensor& lse) {
    return attention.forward(b.shape, b.sequences, b.q(b.qkv), b.k(b.qkv), b.v(b.qkv), b.out, lse);
  }
  bool backward(Batch& b) {
    return attention.backward(b.shape, b.sequences, b.q(b.qkv), b.k(b.qkv), b.v(b.qkv), b.out, b.lse, b.dout,
                              b.q(b.dqkv), b.k(b.dqkv), b.v(b.dqkv));
  }

  Log log;
  PlainGraphs graphs;
  Memory memory;
  Scratch scratch{memory};
  Uploads uploads{memory};
  LibraryAttention attention;
};

std::vector<std::size_t> counts_of(const std::vector<std::int64_t>& lengths) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  std::vector<std::size_t> counts;
  std::int64_t row = 0;
  std::size_t next = 0;
  const AttentionGroupBounds bounds = bounds_of_groups(rows, *std::max_element(lengths.begin(), lengths.end()));
  for (const AttentionGroup& group : group_sequences(packed(lengths), rows)) {
    EXPECT_EQ(group.first_row, row);
    for (const std::int32_t n : group.lengths) {
      while (lengths[next] == 0) ++next;
      EXPECT_EQ(n, lengths[next++]);
      EXPECT_LE(n, group.max_length);
    }
    EXPECT_GE(group.max_tokens, group.tokens);
    EXPECT_LE(group.max_tokens, static_cast<std::int64_t>(group.lengths.size()) * group.max_length);
    EXPECT_LE(group.tokens, bounds.tokens);
    EXPECT_LE(group.max_tokens, bounds.max_tokens);
    EXPECT_LE(static_cast<std::int64_t>(group.lengths.size()) * group.max_length, bounds.rectangle);
    counts.push_back(group.lengths.size());
    row += group.tokens;
  }
  EXPECT_EQ(row, rows);
  return counts;
}

using Counts = std::vector<std::size_t>;

TEST(AttentionGroups, AreExactPowersOfTwo) {
  EXPECT_EQ(counts_of({2048}), Counts({1}));
  EXPECT_EQ(counts_of(std::vector<std::int64_t>(13, 300)), Counts({8, 4, 1}));
  EXPECT_EQ(counts_of({5, 0, 9, 0, 0, 1}), Counts({2, 1})) << "empty sequences are left out";
  EXPECT_EQ(counts_of(std::vector<std::int64_t>(70, 100)), Counts({64, 4, 2}));
}

TEST(AttentionGroups, KeepLongDocumentsApartFromShortOnes) {
  EXPECT_EQ(counts_of({100, 100, 100, 100, 100, 100, 100, 3000}), Counts({4, 2, 2}))
      << "a rectangle filled to a quarter";
  EXPECT_EQ(counts_of({10000, 100, 100, 100}), Counts({2, 2})) << "a rectangle of 32768 at most";
  EXPECT_EQ(counts_of({8192, 8192, 8192}), Counts({2, 1})) << "no more than 16384 tokens";
  EXPECT_EQ(counts_of({40000, 40000}), Counts({1, 1})) << "but a document stays whole";
}

TEST(AttentionGroups, AreNoneForBatchesThatGraphsCannotTake) {
  const auto groups = [](std::vector<SequenceSpan> spans, std::int64_t rows) { return group_sequences(spans, rows); };
  EXPECT_FALSE(groups({{0, 4, 0, 4}, {4, 5, 4, 5}}, 9).empty());
  EXPECT_TRUE(groups({}, 0).empty());
  EXPECT_TRUE(groups({{0, 4, 0, 9}}, 4).empty()) << "a cache";
  EXPECT_TRUE(groups({{0, 4, 0, 4}, {5, 5, 5, 5}}, 10).empty()) << "a row of nobody";
  EXPECT_TRUE(groups({{0, 4, 0, 4}}, 5).empty()) << "a row of nobody at the end";
  EXPECT_TRUE(groups({{4, 4, 4, 4}, {0, 4, 0, 4}}, 8).empty()) << "not in order";
}

TEST(LibraryAttention, GivesTheBitsOfTheWholeBatch) {
  const auto check = [](const AttentionShape& shape, const std::vector<std::int64_t>& lengths, std::int64_t gap) {
    SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                    << ", window " << shape.window << ", " << lengths.size() << " sequences");
    for (const LseLayout layout : {LseLayout::kByToken, LseLayout::kPadded}) {
      Batch batch(shape, lengths, gap);
      Library library({.lse = layout});
      ASSERT_TRUE(library.forward(batch, batch.lse));
      EXPECT_EQ(batch.out.bytes(), batch.want_out.bytes());
      EXPECT_EQ(batch.lse.bytes(), batch.want_lse.bytes());
      ASSERT_TRUE(library.backward(batch));
      EXPECT_EQ(batch.dqkv.bytes(), batch.want.bytes()) << "also between the columns";
    }
  };
  check({4, 2, 16, 0.25, 0}, {33, 1, 70}, 8);
  check({3, 1, 8, 0.25, 0}, {5, 7, 3, 2, 9, 130, 1}, 0);  // rows of 12 bytes: most groups are not aligned
  check({1, 1, 64, 0.25, 5}, {40, 3, 0, 21}, 16);
}

TEST(LibraryAttention, TakesNoMoreMemoryThanPlanned) {
  for (const LseLayout layout : {LseLayout::kByToken, LseLayout::kPadded}) {
    for (const std::int64_t head_dim : {16, 24}) {
      const std::vector<std::int64_t> lengths = {300, 20, 41, 5, 77, 256, 1};
      Batch batch({3, 1, head_dim, 0.25, 0}, lengths);
      Library library({.lse = layout, .greedy = true});
      const std::size_t planned = library.attention.scratch_bytes(batch.shape, batch.rows, 300, true);
      ASSERT_TRUE(library.forward(batch, batch.lse));
      ASSERT_TRUE(library.backward(batch));
      EXPECT_LE(library.memory.current(Scope::kWorkspace), planned + Uploads::planned_bytes(4096));
      EXPECT_GT(planned, library.attention.scratch_bytes(batch.shape, batch.rows, 300, false));
    }
  }
}

TEST(LibraryAttention, KeepsNoLogSumExpWhereNoneIsAskedFor) {
  Batch batch({2, 1, 16, 0.25, 0}, {33, 1, 70});
  Library library;
  ASSERT_TRUE(library.forward(batch, {}));
  EXPECT_EQ(batch.out.bytes(), batch.want_out.bytes());
  for (const AttentionGraph& graph : library.log.run) EXPECT_EQ(graph.lse, LseLayout::kNone);
}

TEST(LibraryAttention, AWindowThatCoversEverythingIsNone) {
  Batch batch({1, 1, 16, 0.25, 128}, {100, 129});
  Library library;
  ASSERT_TRUE(library.forward(batch, batch.lse));
  ASSERT_EQ(library.log.run.size(), 1u);
  EXPECT_EQ(library.log.run[0].window, 128) << "the longest is 256 here";
  Batch narrow({1, 1, 16, 0.25, 128}, {100, 128});
  ASSERT_TRUE(library.forward(narrow, narrow.lse));
  EXPECT_EQ(library.log.run[1].window, 0);
  EXPECT_EQ(narrow.out.bytes(), narrow.want_out.bytes());
}

TEST(LibraryAttention, LeavesWhatItCannotDoAloneAndSaysSoOnce) {
  const AttentionShape shape{2, 1, 16, 0.25, 0};
  const auto expect_no = [&](PlainGraphs::Behaviour behaviour, std::size_t told) {
    Batch batch(shape, {9, 4, 2});
    const std::vector<std::byte> before = batch.dqkv.bytes();
    Library library(std::move(behaviour));
    ASSERT_TRUE(library.forward(batch, batch.lse));
    const std::size_t runs = library.log.run.size();
    EXPECT_FALSE(library.backward(batch));
    EXPECT_FALSE(library.backward(batch));
    EXPECT_EQ(library.log.run.size(), runs);
    EXPECT_EQ(library.attention.refusals().size(), told);
    EXPECT_EQ(batch.dqkv.bytes(), before);
  };
  expect_no({.backward = {false, 0, "too old"}}, 1);
  expect_no({.backward = {true, kAttentionWorkspaceLimit + 1, ""}}, 1);

  Library library;
  Batch odd(shape, {9, 4}, 3);
  EXPECT_FALSE(library.forward(odd, odd.lse)) << "rows that 16-byte accesses do not reach";
  Batch gaps(shape, {9, 4});
  gaps.sequences.pop_back();
  EXPECT_FALSE(library.forward(gaps, gaps.lse));
  EXPECT_FALSE(library.backward(gaps));
  Batch wide({1, 1, 264, 0.25, 0}, {3});
  EXPECT_FALSE(library.forward(wide, wide.lse));
  EXPECT_TRUE(library.attention.refusals().empty()) << "that is not the library's fault";
}

TEST(LibraryAttention, IsDeterministicOnlyWhereTheLibraryCanBe) {
  Batch batch({2, 1, 16, 0.25, 0}, {9, 4, 2});
  Library without({}, true);
  ASSERT_TRUE(without.forward(batch, batch.lse));
  EXPECT_FALSE(without.backward(batch));
  EXPECT_TRUE(without.attention.refusals().empty());
  Library with({.deterministic = true}, true);
  ASSERT_TRUE(with.backward(batch));
  EXPECT_EQ(with.log.run.back().pass, AttentionPass::kDeterministicBackward);
  EXPECT_EQ(batch.dqkv.bytes(), batch.want.bytes());
}

/// The emulated device with a library.
class DeviceWithLibrary final : public Device {
 public:
  explicit DeviceWithLibrary(PlainGraphs::Behaviour behaviour) : behaviour_(std::move(behaviour)) {}
  [[nodiscard]] Storage& storage() override { return inner_->storage(); }
  [[nodiscard]] Stream stream() const override { return inner_->stream(); }
  [[nodiscard]] bool fast_float64() const override { return inner_->fast_float64(); }
  [[nodiscard]] std::unique_ptr<MatrixProducts> make_products(Memory& memory) override {
    return inner_->make_products(memory);
  }
  [[nodiscard]] std::unique_ptr<AttentionGraphs> make_attention_graphs() override {
    return std::make_unique<PlainGraphs>(log, behaviour_);
  }
  Log log;

 private:
  std::unique_ptr<Device> inner_ = make_emulated_device();
  PlainGraphs::Behaviour behaviour_;
};

/// Runs both passes by the backend's operations; returns how many graphs ran.
std::size_t run_by_ops(Batch& b, const CudaOptions& options, const PlainGraphs::Behaviour& behaviour = {}) {
  DeviceWithLibrary device(behaviour);
  Memory memory(device.storage());
  const auto ops = make_cuda_ops(kBF16Precision, device, memory, options);
  ops->attention(b.shape, b.sequences, b.q(b.qkv), b.k(b.qkv), b.v(b.qkv), b.out, b.lse);
  ops->attention_backward(b.shape, b.sequences, b.q(b.qkv), b.k(b.qkv), b.v(b.qkv), b.out, b.lse, b.dout, b.q(b.dqkv),
                          b.k(b.dqkv), b.v(b.dqkv));
  return device.log.run.size();
}

TEST(CudaOpsWithALibrary, MixesItWithOurOwnKernels) {
  const AttentionShape shape{4, 2, 16, 0.25, 0};
  const auto graphs_run = [&](const CudaOptions& options, const PlainGraphs::Behaviour& behaviour = {}) {
    Batch batch(shape, {33, 1, 70});
    const std::size_t count = run_by_ops(batch, options, behaviour);
    EXPECT_LE(relative_error(batch.out, batch.want_out), 5e-3);
    EXPECT_LE(relative_error(batch.dqkv, batch.want), 5e-3);
    return count;
  };
  EXPECT_EQ(graphs_run({.deterministic = false}), 4u) << "groups of 2 and 1, two passes";
  EXPECT_EQ(graphs_run({.deterministic = true}), 2u) << "our own backward pass after the library's forward pass";
  EXPECT_EQ(graphs_run({.deterministic = true}, {.deterministic = true}), 4u);
  EXPECT_EQ(graphs_run({.attention = AttentionChoice::kOwn}), 0u);
  EXPECT_EQ(graphs_run({.deterministic = false}, {.forward = {false, 0, "no"}}), 2u) << "and the other way round";
}

TEST(CudaOpsWithALibrary, CanInsistOnIt) {
  Batch batch({4, 2, 16, 0.25, 0}, {33, 1, 70});
  EXPECT_EQ(run_by_ops(batch, {.deterministic = false, .attention = AttentionChoice::kLibrary}), 4u);
  EXPECT_THROW(run_by_ops(batch, {.attention = AttentionChoice::kLibrary}, {.forward = {false, 0, "no"}}),
               UnsupportedError);
}

TEST(CudaOpsWithALibrary, IsNotUsedForF32) {
  DeviceWithLibrary device({});
  Memory memory(device.storage());
  const auto ops = make_cuda_ops(kF32Precision, device, memory);
  const HostTensor x = random_tensor(DType::kF32, 7, 24, 1);
  HostTensor out(DType::kF32, 7, 8);
  ops->attention({1, 1, 8, 0.25, 0}, packed({7}), x.view().columns(0, 8), x.view().columns(8, 8),
                 x.view().columns(16, 8), out, {});
  EXPECT_TRUE(device.log.run.empty());
}

TEST(PaddedLse, HasZerosBeyondEachSequence) {
  const std::vector<std::int32_t> lengths = {3, 300, 1};
  const std::int64_t heads = 3, longest = 512;
  const std::vector<float> lse = test::random_floats(304 * heads, 5);
  const std::vector<std::int32_t> offsets = {0, 9, 909};
  emu::for_each_schedule([&](unsigned) {
    std::vector<float> padded(static_cast<std::size_t>(3 * heads * longest), NAN);
    pad_lse(lse.data(), offsets.data(), lengths.data(), 3, heads, longest, padded.data(), nullptr);
    for (std::int64_t s = 0; s < 3; ++s) {
      const auto at = static_cast<std::size_t>(s);
      for (std::int64_t h = 0; h < heads; ++h) {
        for (std::int64_t i = 0; i < longest; ++i) {
          const float want = i < lengths[at] ? lse[static_cast<std::size_t>(offsets[at] + i * heads + h)] : 0;
          ASSERT_EQ(padded[static_cast<std::size_t>((s * heads + h) * longest + i)], want);
        }
      }
    }
  });
}

}  // namespace
}  // namespace lomu::cuda
