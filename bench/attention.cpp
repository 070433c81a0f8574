// How fast attention is, forward and backward, by head size and length of documents, beside the rate of large matrix
// products on the same device. On a GPU by each implementation that there is. Prints JSON.
//
//   bench_attention --device cuda [--head-dim 64 --head-dim 128] [--length 2048 --length 4096 ...] [--heads 32]
//                   [--kv-heads 8] [--tokens 32768] [--window 0] [--seconds 0.1]
//
// A batch is `tokens` in documents of one length (one document where it is longer). Operations: 4 for each pair of a
// query and a key it sees, feature and query head forward, 10 backward (the 5 products that there must be).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bench/operation_sweep.h"
#include "engine/commands/compute_options.h"
#include "engine/session/compute.h"
#include "engine/session/speed.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::int64_t kGpuProduct = 8192;  // large enough for the full rate of any GPU
constexpr std::int64_t kCpuProduct = 512;

struct Settings {
  ComputeOptions compute;
  std::vector<std::int64_t> head_dims{64, 128};
  std::vector<std::int64_t> lengths{2048, 4096, 8192, 16384, 32768};
  std::int64_t heads = 32;
  std::int64_t kv_heads = 8;
  std::int64_t tokens = 32768;
  std::int64_t window = 0;
  double seconds = 0.1;
};

struct Implementation {
  std::string name;
  Backend backend;
};

std::vector<Implementation> implementations(const ComputeChoice& choice) {
  std::vector<Implementation> all;
  if (!choice.cuda_device) {
    all.push_back({"cpu", open_backend(choice)});
    return all;
  }
  const auto add = [&](const char* name, bool deterministic, cuda::AttentionChoice attention) {
    all.push_back({name, cuda::make_backend(choice.precision, *choice.cuda_device, {deterministic, attention})});
  };
  add("own", true, cuda::AttentionChoice::kOwn);
  add("library", false, cuda::AttentionChoice::kLibrary);
  add("library, deterministic", true, cuda::AttentionChoice::kLibrary);
  return all;
}

/// Pairs of a query and a key that it sees, in one document.
double pairs_of(std::int64_t length, std::int64_t window) {
  const std::int64_t reach = window == 0 ? length : std::min(window, length);
  return static_cast<double>(reach) * (static_cast<double>(length) - (static_cast<double>(reach) - 1) / 2);
}

/// One batch and all that its two passes read and write.
class Batch {
 public:
  Batch(const Settings& s, std::int64_t head_dim, std::int64_t length, const Precision& precision, Memory& memory)
      : shape_{s.heads, s.kv_heads, head_dim, 1 / std::sqrt(static_cast<double>(head_dim)), s.window},
        documents_(std::max<std::int64_t>(1, s.tokens / length)),
        qkv_(
            random_matrix(memory, precision.activation, documents_ * length, (s.heads + 2 * s.kv_heads) * head_dim, 1)),
        dout_(random_matrix(memory, precision.activation, documents_ * length, s.heads * head_dim, 2)),
        out_(zero_matrix(memory, precision.activation, documents_ * length, s.heads * head_dim)),
        lse_(zero_matrix(memory, DType::kF32, documents_ * length, s.heads)),
        dqkv_(zero_matrix(memory, precision.activation, documents_ * length, qkv_.tensor.cols)) {
    for (std::int64_t i = 0; i < documents_; ++i) spans_.push_back({i * length, length, i * length, length});
    operations_ = pairs_of(length, s.window) * static_cast<double>(documents_ * s.heads * head_dim);
  }

  [[nodiscard]] std::int64_t documents() const { return documents_; }
  [[nodiscard]] double forward_operations() const { return 4 * operations_; }
  [[nodiscard]] double backward_operations() const { return 10 * operations_; }

  double forward_seconds(const Ops& ops, double seconds) const {
    return seconds_of_call(ops.storage(), out_.tensor, seconds,
                           [&] { ops.attention(shape_, spans_, q(qkv_), k(qkv_), v(qkv_), out_.tensor, lse_.tensor); });
  }
  double backward_seconds(const Ops& ops, double seconds) const {
    return seconds_of_call(ops.storage(), dqkv_.tensor, seconds, [&] {
      ops.attention_backward(shape_, spans_, q(qkv_), k(qkv_), v(qkv_), out_.tensor, lse_.tensor, dout_.tensor,
                             q(dqkv_), k(dqkv_), v(dqkv_));
    });
  }

 private:
  [[nodiscard]] Tensor q(const SweepMatrix& m) const { return m.tensor.columns(0, shape_.heads * shape_.head_dim); }
  [[nodiscard]] Tensor k(const SweepMatrix& m) const {
    return m.tensor.columns(shape_.heads * shape_.head_dim, shape_.kv_heads * shape_.head_dim);
  }
  [[nodiscard]] Tensor v(const SweepMatrix& m) const {
    return m.tensor.columns((shape_.heads + shape_.kv_heads) * shape_.head_dim, shape_.kv_heads * shape_.head_dim);
  }

  AttentionShape shape_;
  std::int64_t documents_;
  std::vector<SequenceSpan> spans_;
  SweepMatrix qkv_, dout_, out_, lse_, dqkv_;
  double operations_ = 0;
};

/// {"ms", "tflops", "share_of_products"}, or {"refused": why}.
template <class Seconds>
nlohmann::ordered_json figures(double operations, double ceiling, Seconds seconds) {
  try {
    const double took = seconds();
    const double rate = operations / took;
    return {{"ms", took * 1e3}, {"tflops", rate * 1e-12}, {"share_of_products", rate / ceiling}};
  } catch (const UnsupportedError& error) {
    return {{"refused", error.what()}};
  }
}

nlohmann::ordered_json sweep(const Settings& s) {
  const auto alone = make_self_communicator();
  const ComputeChoice choice =
      choose_compute({s.compute.device, s.compute.backend, s.compute.dtype, s.compute.threads}, *alone);
  const std::vector<Implementation> all = implementations(choice);
  const Backend& first = all.front().backend;
  const std::int64_t size = choice.cuda_device ? kGpuProduct : kCpuProduct;
  const double ceiling = product_speed(*first.ops, *first.memory, size, 0.3).rate;
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const std::int64_t head_dim : s.head_dims) {
    for (const std::int64_t length : s.lengths) {
      const Batch batch(s, head_dim, length, choice.precision, *first.memory);
      for (const Implementation& implementation : all) {
        const Ops& ops = *implementation.backend.ops;
        points.push_back({{"implementation", implementation.name},
                          {"head_dim", head_dim},
                          {"length", length},
                          {"documents", batch.documents()},
                          {"forward", figures(batch.forward_operations(), ceiling,
                                              [&] { return batch.forward_seconds(ops, s.seconds); })},
                          {"backward", figures(batch.backward_operations(), ceiling,
                                               [&] { return batch.backward_seconds(ops, s.seconds); })}});
      }
    }
  }
  return {{"compute", choice.text()},           {"heads", s.heads}, {"kv_heads", s.kv_heads}, {"window", s.window},
          {"products_tflops", ceiling * 1e-12}, {"points", points}};
}

int run(int argc, char** argv) {
  Settings s;
  CLI::App app("Rates of attention, as JSON");
  declare(app, s.compute);
  const auto positive = CLI::Range(1, 1 << 20);
  app.add_option("--head-dim", s.head_dims, "features of a head")->check(CLI::Range(1, 256));
  app.add_option("--length", s.lengths, "tokens of a document")->check(positive);
  app.add_option("--heads", s.heads, "query heads")->check(positive);
  app.add_option("--kv-heads", s.kv_heads, "key and value heads")->check(positive);
  app.add_option("--tokens", s.tokens, "tokens of a batch")->check(positive);
  app.add_option("--window", s.window, "tokens that one sees, itself included; 0: all before it")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--seconds", s.seconds, "of measuring, for each figure")->check(CLI::Range(1e-6, 60.0));
  CLI11_PARSE(app, argc, argv);
  if (s.heads % s.kv_heads != 0) throw UsageError("--heads is no multiple of --kv-heads", "command line");
  fmt::print("{}\n", sweep(s).dump(2));
  return 0;
}

}  // namespace
}  // namespace lomu

int main(int argc, char** argv) {
  try {
    return lomu::run(argc, argv);
  } catch (const lomu::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
}
