// How fast a backend multiplies by the frozen weights of a model, forward and backward, for every linear group and some
// numbers of tokens, beside the rate of large square products on the same device. Prints JSON.
//
//   bench_products --model bench/models/qwen3-8b.json [--model ...] [--tokens 2048 --tokens 8192] [--device cuda]
//
// Of a model only the shapes are taken. No adapters: what they cost is in bench_train_step.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/operation_sweep.h"
#include "engine/commands/compute_options.h"
#include "engine/session/compute.h"
#include "engine/session/speed.h"
#include "kernels/error.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

constexpr std::int64_t kGpuProduct = 8192;  // large enough for the full rate of any GPU
constexpr std::int64_t kCpuProduct = 512;

struct Settings {
  ComputeOptions compute;
  std::vector<std::filesystem::path> models;
  std::vector<std::int64_t> tokens{2048, 8192};
  double seconds = 0.1;
};

struct Site {
  const char* name;
  std::int64_t in, out;
};

std::vector<Site> sites_of(const ModelConfig& c) {
  return {{"q|k|v", c.hidden_size, c.q_size() + 2 * c.kv_size()},
          {"o", c.q_size(), c.hidden_size},
          {"gate|up", c.hidden_size, 2 * c.intermediate_size},
          {"down", c.intermediate_size, c.hidden_size}};
}

/// A linear group of one part without adapters, packed from repeated rows.
class Weights {
 public:
  Weights(const Site& site, const Backend& backend) {
    linear_.frozen = {site.in, {site.out}, true, nullptr};
    linear_.bias = {nullptr};
    linear_.adapters.resize(1);
    buffer_ = backend.memory->allocate(Scope::kWeights, backend.ops->frozen_bytes(linear_.frozen), "weights");
    linear_.frozen.storage = buffer_.data();
    std::vector<float> rows(static_cast<std::size_t>(Ops::kPackRows * site.in));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * 2654435761u % 4096) / 2048.0f - 1.0f;
    for (std::int64_t row = 0; row < site.out; row += Ops::kPackRows) {
      backend.ops->pack_frozen(linear_.frozen, 0, row, std::min(Ops::kPackRows, site.out - row), rows.data());
    }
  }
  [[nodiscard]] const AdaptedLinear& linear() const { return linear_; }

 private:
  Buffer buffer_;
  AdaptedLinear linear_;
};

nlohmann::ordered_json figures(double operations, double ceiling, double seconds) {
  const double rate = operations / seconds;
  return {{"ms", seconds * 1e3}, {"tflops", rate * 1e-12}, {"share_of_products", rate / ceiling}};
}

nlohmann::ordered_json sweep(const Settings& s) {
  const auto alone = make_self_communicator();
  const ComputeChoice choice =
      choose_compute({s.compute.device, s.compute.backend, s.compute.dtype, s.compute.threads}, *alone);
  const Backend backend = open_backend(choice);
  const Ops& ops = *backend.ops;
  Memory& memory = *backend.memory;
  const DType type = choice.precision.activation;
  const std::int64_t size = choice.cuda_device ? kGpuProduct : kCpuProduct;
  const double ceiling = product_speed(ops, memory, size, 0.3).rate;
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const std::filesystem::path& model : s.models) {
    for (const Site& site : sites_of(ModelFiles::random(model).config())) {
      const Weights weights(site, backend);
      for (const std::int64_t tokens : s.tokens) {
        const SweepMatrix x = random_matrix(memory, type, tokens, site.in, 1);
        const SweepMatrix y = zero_matrix(memory, type, tokens, site.out);
        const SweepMatrix dy = random_matrix(memory, type, tokens, site.out, 2);
        const double forward = seconds_of_call(ops.storage(), y.tensor, s.seconds, [&] {
          ops.linear_forward(weights.linear(), x.tensor, {}, y.tensor, {});
        });
        const double backward = seconds_of_call(ops.storage(), x.tensor, s.seconds, [&] {
          ops.linear_backward(weights.linear(), {}, {}, dy.tensor, x.tensor);
        });
        const double operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(site.in * site.out);
        points.push_back({{"model", model.stem().string()},
                          {"site", site.name},
                          {"tokens", tokens},
                          {"in", site.in},
                          {"out", site.out},
                          {"forward", figures(operations, ceiling, forward)},
                          {"backward", figures(operations, ceiling, backward)}});
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
