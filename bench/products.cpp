// How fast a backend multiplies by the frozen weights of a model, forward and backward, for every linear group and some
// numbers of tokens, beside the rate of large square products on the same device. Prints JSON.
//
//   bench_products --model bench/models/qwen3-8b.json [--model ...] [--tokens 2048 --tokens 8192] [--device cuda]
//
// Of a model only the shapes are taken. Each group is measured without adapters, and with one of --rank on every part:
// every product by itself, and, where the backend has a use for spare columns (Ops::spare_columns), with factors beside
// the weights. The rate of all counts the operations of the frozen weights alone, so the difference is what adapters
// cost.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/operation_sweep.h"
#include "engine/commands/compute_options.h"
#include "engine/session/compute.h"
#include "engine/session/speed.h"
#include "kernels/error.h"
#include "kernels/staging.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

constexpr std::int64_t kGpuProduct = 8192;  // large enough for the full rate of any GPU
constexpr std::int64_t kCpuProduct = 512;

struct Settings {
  ComputeOptions compute;
  std::vector<std::filesystem::path> models;
  std::vector<std::int64_t> tokens{2048, 8192};
  std::int64_t rank = 16;
  double seconds = 0.1;
};

struct Site {
  const char* name;
  std::int64_t in;
  std::vector<std::int64_t> outs;
};

std::vector<Site> sites_of(const ModelConfig& c) {
  return {{"q|k|v", c.hidden_size, {c.q_size(), c.kv_size(), c.kv_size()}},
          {"o", c.q_size(), {c.hidden_size}},
          {"gate|up", c.hidden_size, {c.intermediate_size, c.intermediate_size}},
          {"down", c.intermediate_size, {c.hidden_size}}};
}

/// A linear group packed from repeated rows, each part with an adapter of `rank`, and `spare` columns beside it.
class Group {
 public:
  Group(const Site& site, std::int64_t rank, std::int64_t spare, const Backend& backend) {
    Memory& memory = *backend.memory;
    linear_.frozen.in = site.in;
    linear_.frozen.outs = site.outs;
    linear_.frozen.spare = spare;
    weights_ = memory.allocate(Scope::kWeights, backend.ops->frozen_bytes(linear_.frozen), "weights");
    linear_.frozen.storage = weights_.data();
    std::vector<float> rows(static_cast<std::size_t>(Ops::kPackRows * site.in));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * 2654435761u % 4096) / 2048.0f - 1.0f;
    Staging staging(memory);
    for (std::size_t part = 0; part < site.outs.size(); ++part) {
      const std::int64_t out = site.outs[part];
      for (std::int64_t row = 0; row < out; row += Ops::kPackRows) {
        const EncodedRows some = encoded(rows.data(), std::min(Ops::kPackRows, out - row), site.in);
        backend.ops->pack_frozen(linear_.frozen, part, row, staging.bring(some));
      }
      linear_.bias.push_back(nullptr);
      Adapter& adapter = linear_.adapters.emplace_back();
      if (rank == 0) continue;
      adapter.rank = rank;
      adapter.scale = 1;
      adapter.a = factor(rank * site.in, memory);
      adapter.b = factor(out * rank, memory);
      adapter.grad_a = factor(rank * site.in, memory);
      adapter.grad_b = factor(out * rank, memory);
    }
    if (rank == 0) return;
    packed_ = memory.allocate(Scope::kAdapters, backend.ops->adapter_bytes(linear_), "packed factors");
    linear_.packed = packed_.data();
    backend.ops->pack_adapters(linear_);
  }
  [[nodiscard]] const AdaptedLinear& linear() const { return linear_; }

 private:
  float* factor(std::int64_t count, Memory& memory) {
    factors_.push_back(
        memory.allocate(Scope::kAdapters, static_cast<std::size_t>(count) * sizeof(float), "factors and gradients"));
    return factors_.back().as<float>();
  }

  Buffer weights_, packed_;
  std::vector<Buffer> factors_;
  AdaptedLinear linear_;
};

nlohmann::ordered_json figures(double operations, double ceiling, double seconds) {
  const double rate = operations / seconds;
  return {{"ms", seconds * 1e3}, {"tflops", rate * 1e-12}, {"share_of_products", rate / ceiling}};
}

/// Rates of one group, forward and backward, in the way that its spare columns give.
nlohmann::ordered_json measured(const Site& site, const Group& group, std::int64_t tokens, const Settings& s,
                                const Backend& backend, double ceiling) {
  const Ops& ops = *backend.ops;
  const DType type = ops.precision().activation;
  const std::int64_t spare = group.linear().frozen.spare;
  const std::int64_t out = group.linear().frozen.out();
  const auto roomy = [&](const SweepMatrix& matrix, std::int64_t cols) {
    return Tensor(matrix.buffer.data(), type, tokens, cols, cols + spare).with_spare(spare);
  };
  const SweepMatrix x_matrix = random_matrix(*backend.memory, type, tokens, site.in + spare, 1);
  const SweepMatrix dy_matrix = random_matrix(*backend.memory, type, tokens, out + spare, 2);
  const SweepMatrix y = zero_matrix(*backend.memory, type, tokens, out);
  const SweepMatrix dx = zero_matrix(*backend.memory, type, tokens, site.in);
  const SweepMatrix low_rank = zero_matrix(*backend.memory, type, tokens, group.linear().total_rank());
  const Tensor x = roomy(x_matrix, site.in), dy = roomy(dy_matrix, out);
  const double forward = seconds_of_call(ops.storage(), y.tensor, s.seconds,
                                         [&] { ops.linear_forward(group.linear(), x, {}, y.tensor, low_rank.tensor); });
  const double backward = seconds_of_call(ops.storage(), dx.tensor, s.seconds, [&] {
    ops.linear_backward(group.linear(), x, low_rank.tensor, dy, dx.tensor);
  });
  const double operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(site.in * out);
  return {{"forward", figures(operations, ceiling, forward)}, {"backward", figures(operations, ceiling, backward)}};
}

nlohmann::ordered_json sweep(const Settings& s) {
  const auto alone = make_self_communicator();
  const ComputeChoice choice =
      choose_compute({s.compute.device, s.compute.backend, s.compute.dtype, s.compute.threads}, *alone);
  const Backend backend = open_backend(choice);
  const std::int64_t size = choice.cuda_device ? kGpuProduct : kCpuProduct;
  const double ceiling = product_speed(*backend.ops, *backend.memory, size, 0.3).rate;
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const std::filesystem::path& model : s.models) {
    for (const Site& site : sites_of(ModelFiles::random(model).config())) {
      const auto parts = static_cast<std::int64_t>(site.outs.size());
      const std::int64_t spare = backend.ops->spare_columns(parts * s.rank, false);
      const Group base(site, 0, 0, backend);
      std::optional<Group> plain, augmented;
      if (s.rank > 0) plain.emplace(site, s.rank, 0, backend);
      if (spare > 0) augmented.emplace(site, s.rank, spare, backend);
      for (const std::int64_t tokens : s.tokens) {
        const auto rates = [&](const Group& group) { return measured(site, group, tokens, s, backend, ceiling); };
        nlohmann::ordered_json point = {{"model", model.stem().string()},
                                        {"site", site.name},
                                        {"tokens", tokens},
                                        {"in", site.in},
                                        {"out", std::accumulate(site.outs.begin(), site.outs.end(), std::int64_t{0})}};
        point.update(rates(base));
        if (plain) point["adapters"] = {{"rank", s.rank}, {"plain", rates(*plain)}};
        if (augmented) point["adapters"]["augmented"] = rates(*augmented);
        points.push_back(std::move(point));
      }
    }
  }
  return {{"compute", choice.text()}, {"products_tflops", ceiling * 1e-12}, {"points", points}};
}

int run(int argc, char** argv) {
  Settings s;
  CLI::App app("Rates of products with a model's weights, as JSON");
  declare(app, s.compute);
  app.add_option("--model", s.models, "config.json of a model; several may be given")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--tokens", s.tokens, "rows of a product")->check(CLI::Range(1, 1 << 20));
  app.add_option("--rank", s.rank, "of the adapters; 0: none")->check(CLI::Range(0, 256));
  app.add_option("--seconds", s.seconds, "of measuring, for each figure")->check(CLI::Range(1e-6, 60.0));
  CLI11_PARSE(app, argc, argv);
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
