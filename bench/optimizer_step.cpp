// How long one optimizer step of a whole adapter takes, beside what the machine could do at best. Prints JSON.
//
//   bench_optimizer_step [--optimizer NAME]... [--rank R]... [--threads T]... [--repeat N] [--layers L] [--telemetry]
//
// The pairs are those of SmolLM2-135M with an adapter on every linear layer (210 pairs). Between steps the gradients
// are rewritten and a buffer larger than the caches is read, as a training step would do. The bound is the larger of
// two times: bytes of factors, momenta and gradients once in and once out at the memory rate measured here, and the
// double-precision operations of the tall products at the multiply-add rate measured here; r x r work comes on top of
// it.
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "engine/optimizers/optimizer.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Site {
  const char* name;
  std::int64_t m, n;
};

// SmolLM2-135M: hidden 576, 9 query heads and 3 key-value heads of 64, intermediate 1536.
constexpr Site kSites[] = {{"q", 576, 576},     {"k", 192, 576},   {"v", 192, 576},    {"o", 576, 576},
                           {"gate", 1536, 576}, {"up", 1536, 576}, {"down", 576, 1536}};

/// The factors, gradients and state of every pair, one after the other in one buffer each, as a run has them.
class Adapter {
 public:
  Adapter(int layers, std::int64_t rank, const lomu::Optimizer& optimizer) {
    std::int64_t floats = 0;
    std::int64_t state_floats = 0;
    for (const Site& s : kSites) {
      floats += layers * (s.m + s.n) * rank;
      state_floats += layers * optimizer.state_size({{}, s.m, s.n, rank});
    }
    factors_.resize(static_cast<std::size_t>(floats));
    gradients_.resize(factors_.size());
    state_.resize(static_cast<std::size_t>(state_floats));
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 0.05f);
    for (float& x : factors_) x = normal(random);
    for (float& x : gradients_) x = 1e-3f * normal(random);

    float* factor = factors_.data();
    float* gradient = gradients_.data();
    float* state = state_.data();
    for (int layer = 0; layer < layers; ++layer) {
      for (const Site& s : kSites) {
        lomu::PairView pair;
        pair.name = s.name;
        pair.m = s.m;
        pair.n = s.n;
        pair.r = rank;
        pair.scale = 2.0;
        pair.left = factor;
        pair.right = factor + s.m * rank;
        pair.grad_left = gradient;
        pair.grad_right = gradient + s.m * rank;
        pair.state = {state, static_cast<std::size_t>(optimizer.state_size({{}, s.m, s.n, rank}))};
        pair.left_started_zero = true;
        factor += (s.m + s.n) * rank;
        gradient += (s.m + s.n) * rank;
        state += pair.state.size();
        pairs_.push_back(pair);
      }
    }
  }

  [[nodiscard]] std::span<const lomu::PairView> pairs() const { return pairs_; }
  [[nodiscard]] double bytes_moved() const {
    return 4.0 * static_cast<double>(2 * factors_.size() + gradients_.size() + 2 * state_.size());
  }
  /// Two symmetric Grams, of which half is needed, and one product for each entry of a factor.
  [[nodiscard]] double tall_flops(std::int64_t rank) const {
    return static_cast<double>(factors_.size()) *
           (2.0 * static_cast<double>(rank + 1) + 2.0 * static_cast<double>(rank));
  }
  void rewrite_gradients(float factor) {
    for (float& x : gradients_) x *= factor;
  }

 private:
  std::vector<float> factors_, gradients_, state_;
  std::vector<lomu::PairView> pairs_;
};

/// Bytes a second of reading and writing long arrays.
double measure_memory_rate() {
  std::vector<float> a(32u << 20), b(a.size(), 1.0f);
  double best = 0.0;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const auto start = Clock::now();
#pragma omp parallel for simd schedule(static)
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = 0.5f * a[i] + b[i];
    best = std::max(best, 12.0 * static_cast<double>(a.size()) / (milliseconds_since(start) * 1e-3));
  }
  return best;
}

/// Double-precision operations a second of multiply-adds that stay in registers.
double measure_multiply_add_rate() {
  using Vec [[gnu::vector_size(64)]] = double;
  constexpr int kChains = 16;
  constexpr std::int64_t kLength = 4'000'000;
  double best = 0.0;
  double sink = 0.0;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const auto start = Clock::now();
#pragma omp parallel reduction(+ : sink)
    {
      Vec sums[kChains] = {};
      const Vec factor = Vec{} + 0.999;
      const Vec term = Vec{} + 1e-3;
      for (std::int64_t i = 0; i < kLength; ++i) {
        for (Vec& sum : sums) sum = sum * factor + term;
      }
      for (const Vec& sum : sums) sink += sum[0];
    }
    const double flops = 2.0 * 8 * kChains * static_cast<double>(kLength) * omp_get_max_threads();
    best = std::max(best, flops / (milliseconds_since(start) * 1e-3));
  }
  return sink > 0.0 ? best : 0.0;
}

/// What is timed: the optimizers of pairs. The tall products of the bound are those of LoRA-Muon, which the others of
/// its kind have at least; those that work entry by entry have none.
struct Candidate {
  const char* name;
  lomu::OptimizerKind kind;
  bool tall_products;
  lomu::Orthogonalizer orthogonalizer = lomu::Orthogonalizer::kExact;
};
constexpr Candidate kCandidates[] = {
    {"lora_muon", lomu::OptimizerKind::kLoraMuon, true},
    {"lora_muon newton_schulz", lomu::OptimizerKind::kLoraMuon, true, lomu::Orthogonalizer::kNewtonSchulz},
    {"adamw", lomu::OptimizerKind::kAdamW, false},
    {"lora_plus", lomu::OptimizerKind::kLoraPlus, false},
    {"scaled_adamw", lomu::OptimizerKind::kScaledAdamW, true},
    {"muon_factors", lomu::OptimizerKind::kMuonFactors, true},
    {"spectron", lomu::OptimizerKind::kSpectron, true},
    {"lora_rite", lomu::OptimizerKind::kLoraRite, true},
    {"lora_rite_core", lomu::OptimizerKind::kLoraRiteCore, true}};

struct Times {
  double median, best;
};

Times step_times(Adapter& adapter, lomu::Optimizer& optimizer, int repeat, bool telemetry) {
  std::vector<float> caches(24u << 20, 1.0f);
  std::vector<double> times;
  lomu::StepReport report;
  for (int step = 1; step <= repeat + 1; ++step) {
    adapter.rewrite_gradients(step % 2 == 0 ? 0.5f : 2.0f);
    for (float& x : caches) x += 1.0f;
    const auto start = Clock::now();
    if (telemetry) (void)lomu::describe_factors(adapter.pairs());
    optimizer.step(adapter.pairs(), {step, 1e-3, {}, telemetry}, report);
    if (step > 1) times.push_back(milliseconds_since(start));  // the first one touches new memory
  }
  return {median(times), *std::min_element(times.begin(), times.end())};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::int64_t> ranks{16};
  std::vector<int> threads{omp_get_max_threads()};
  std::vector<std::string> names{"lora_muon", "lora_muon newton_schulz", "adamw"};
  int repeat = 20;
  int layers = 30;
  CLI::App app("Time of one optimizer step, as JSON");
  std::vector<std::string> known;
  for (const Candidate& candidate : kCandidates) known.emplace_back(candidate.name);
  app.add_option("--optimizer", names, "what is timed")->check(CLI::IsMember(known));
  app.add_option("--rank", ranks, "rank of the adapter")->check(CLI::Range(1, 256));
  app.add_option("--threads", threads, "OpenMP threads")->check(CLI::Range(1, 1024));
  app.add_option("--repeat", repeat, "timed steps; the median is printed")->check(CLI::Range(1, 10000));
  app.add_option("--layers", layers, "decoder layers")->check(CLI::Range(1, 1000));
  bool telemetry = false;
  app.add_flag("--telemetry", telemetry, "every step with telemetry");
  CLI11_PARSE(app, argc, argv);

  std::string separator = "[\n";
  for (const int count : threads) {
    omp_set_num_threads(count);
    const double memory_rate = measure_memory_rate();
    const double flop_rate = measure_multiply_add_rate();
    for (const std::int64_t rank : ranks) {
      for (const std::string& name : names) {
        const Candidate& candidate = *std::find_if(std::begin(kCandidates), std::end(kCandidates),
                                                   [&](const Candidate& c) { return c.name == name; });
        lomu::OptimizerOptions options;
        options.name = candidate.kind;
        options.orthogonalizer = candidate.orthogonalizer;
        const auto optimizer = lomu::make_optimizer(options);
        Adapter adapter(layers, rank, *optimizer);
        const Times time = step_times(adapter, *optimizer, repeat, telemetry);
        const double bytes = adapter.bytes_moved();
        const double flops = candidate.tall_products ? adapter.tall_flops(rank) : 0.0;
        const double bound = 1e3 * std::max(bytes / memory_rate, flops / flop_rate);
        fmt::print(
            "{}  {{\"optimizer\": \"{}\", \"rank\": {}, \"pairs\": {}, \"threads\": {}, \"step_ms\": {:.2f}, "
            "\"best_ms\": {:.2f}, "
            "\"bound_ms\": {:.2f}, "
            "\"share_of_bound\": {:.2f}, \"megabytes\": {:.1f}, \"tall_gflop\": {:.3f}, \"memory_gb_per_s\": {:.1f}, "
            "\"double_gflop_per_s\": {:.0f}}}",
            separator, name, rank, adapter.pairs().size(), count, time.median, time.best, bound, bound / time.median,
            bytes * 1e-6, flops * 1e-9, memory_rate * 1e-9, flop_rate * 1e-9);
        separator = ",\n";
      }
    }
  }
  fmt::print("\n]\n");
  return 0;
}
