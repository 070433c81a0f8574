// Whole runs of the program on emulated GPUs: the CUDA backend's kernels, its optimizers and the reduction between
// GPUs, against the CPU and against each other.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "models/files/safetensors.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using testing::HasSubstr;

class EmulatedGpu : public testing::Test {
 protected:
  /// Three steps of three small micro-batches, the last of an epoch among them, unless `more` says otherwise; on the
  /// CPU or on emulated GPUs.
  void train(const std::string& out, int gpus, std::vector<std::string> more = {}) {
    std::vector<std::string> settings = {"training.steps=3", "training.micro_batches=3",
                                         "training.micro_batch_tokens=64"};
    std::erase_if(settings, [&](const std::string& setting) {
      const std::string key = setting.substr(0, setting.find('=') + 1);
      return std::any_of(more.begin(), more.end(), [&](const std::string& other) { return other.starts_with(key); });
    });
    if (gpus > 0) settings.emplace_back("runtime.device=cuda");
    settings.insert(settings.end(), more.begin(), more.end());
    if (gpus > 1) settings.push_back(fmt::format("runtime.ranks_in_process={}", gpus));
    const Outcome outcome = run_.train(out, settings, {.emulated_gpus = gpus});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }

  [[nodiscard]] std::vector<double> losses(const std::string& out) const {
    std::vector<double> values;
    std::istringstream lines(run_.read(out + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) values.push_back(nlohmann::json::parse(line).at("loss"));
    return values;
  }

  [[nodiscard]] double loss_difference(const std::string& a, const std::string& b) const {
    const std::vector<double> x = losses(a), y = losses(b);
    EXPECT_EQ(x.size(), y.size());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]) / std::abs(y[i]));
    return worst;
  }

  /// The largest over the tensors of ||a - b|| / ||b||.
  [[nodiscard]] double adapter_difference(const std::string& a, const std::string& b) const {
    const SafetensorsFile x(run_.path(a + "/adapter/adapter_model.safetensors"));
    const SafetensorsFile y(run_.path(b + "/adapter/adapter_model.safetensors"));
    double worst = 0;
    for (const SafetensorInfo& info : y.tensors()) {
      const auto count = static_cast<std::size_t>(info.shape.at(0) * info.shape.at(1));
      std::vector<double> p(count), q(count);
      x.read_f64(info.name, p);
      y.read_f64(info.name, q);
      double off = 0, size = 0;
      for (std::size_t i = 0; i < count; ++i) {
        off += (p[i] - q[i]) * (p[i] - q[i]);
        size += q[i] * q[i];
      }
      worst = std::max(worst, std::sqrt(off / size));
    }
    return worst;
  }

  TinyRun run_;
};

// The same limits as `launch/gpu-check` has for a real GPU.
constexpr double kF32Loss = 1e-5;
constexpr double kF32Adapter = 1e-5;

TEST_F(EmulatedGpu, AnOptimizerThatDevicesLackIsRefusedByName) {
  const std::vector<std::vector<std::string>> cases = {{"optimizer.name=spectron", "optimizer.name"},
                                                       {"optimizer.filter=damped", "optimizer.filter"}};
  for (const auto& settings : cases) {
    const Outcome outcome = run_.train("out", {settings[0], "runtime.device=cuda"}, {.emulated_gpus = 1});
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, testing::AllOf(HasSubstr("not computed on a GPU"), HasSubstr(settings[1]),
                                            HasSubstr("runtime.device: cpu")));
  }
}

TEST_F(EmulatedGpu, LoraMuonTrainsAsOnTheCpu) {
  train("cpu", 0);
  train("gpu", 1);
  EXPECT_LT(loss_difference("gpu", "cpu"), kF32Loss);
  EXPECT_LT(adapter_difference("gpu", "cpu"), kF32Adapter);
}

TEST_F(EmulatedGpu, AdamWWithDropoutAndClippingTrainsAsOnTheCpu) {
  const std::vector<std::string> job = {"optimizer.name=adamw", "optimizer.lr=0.001", "optimizer.max_grad_norm=0.5",
                                        "optimizer.weight_decay=0.1", "adapter.dropout=0.2"};
  train("cpu", 0, job);
  train("gpu", 1, job);
  EXPECT_LT(loss_difference("gpu", "cpu"), kF32Loss);
  // AdamW's first steps are the signs of gradients: where one is nearly zero its sign is that of a rounding.
  EXPECT_LT(adapter_difference("gpu", "cpu"), 20 * kF32Adapter);
}

TEST_F(EmulatedGpu, BalanceDecayAndNesterovAreThoseOfTheCpu) {
  const std::vector<std::string> job = {"optimizer.balance_every=2", "optimizer.weight_decay=0.1",
                                        "optimizer.nesterov=true", "optimizer.multiplier=sqrt_m_over_n"};
  train("cpu", 0, job);
  train("gpu", 1, job);
  EXPECT_LT(adapter_difference("gpu", "cpu"), kF32Adapter);
}

TEST_F(EmulatedGpu, TelemetryOfTheFactorsIsThatOfTheCpuOnAnyNumberOfRanks) {
  const auto last_telemetry = [&](const std::string& out) {
    const std::string text = run_.read(out + "/metrics.jsonl");
    return nlohmann::json::parse(text.substr(text.rfind('\n', text.size() - 2) + 1)).at("pairs");
  };
  train("cpu", 0, {"telemetry.every=3"});
  train("gpu", 1, {"telemetry.every=3"});
  train("gpus", 2, {"telemetry.every=3"});
  const auto cpu = last_telemetry("cpu");
  const auto gpu = last_telemetry("gpu");
  EXPECT_EQ(last_telemetry("gpus"), gpu);
  ASSERT_EQ(gpu.size(), cpu.size());
  for (std::size_t i = 0; i < gpu.size(); ++i) {
    EXPECT_EQ(gpu[i].at("name"), cpu[i].at("name"));
    for (const char* figure : {"product_largest", "stable_rank", "condition_right", "relative_step_right"}) {
      const double expected = cpu[i].at(figure);
      EXPECT_NEAR(gpu[i].at(figure).get<double>(), expected, 1e-3 * expected) << figure;
    }
  }
}

TEST_F(EmulatedGpu, BF16LossesStayNearThoseOfTheCpusF32) {
  train("cpu", 0);
  train("gpu", 1, {"runtime.dtype=bf16"});
  const double off = loss_difference("gpu", "cpu");
  EXPECT_LT(off, 1e-2);
  EXPECT_GT(off, 1e-7);  // it was bf16
}

TEST_F(EmulatedGpu, AnyNumberOfRanksGivesTheSameAdapter) {
  train("alone", 1);
  const std::string alone = run_.adapter("alone");
  for (const int ranks : {2, 3}) {
    const std::string out = fmt::format("ranks-{}", ranks);
    train(out, ranks);
    EXPECT_TRUE(run_.adapter(out) == alone) << ranks << " ranks";
    EXPECT_EQ(losses(out), losses("alone"));
  }
}

/// One rank's step writes factors as products read them; several pack them after gathering.
TEST_F(EmulatedGpu, AnyNumberOfRanksComputesWithTheSameBF16Factors) {
  for (const char* optimizer : {"optimizer.balance_every=1", "optimizer.name=adamw"}) {
    const std::vector<std::string> job = {"runtime.dtype=bf16", "training.steps=2", "training.micro_batches=2",
                                          "training.micro_batch_tokens=48", optimizer};
    train(std::string("alone-") + optimizer, 1, job);
    train(std::string("ranks-") + optimizer, 2, job);
    EXPECT_EQ(losses(std::string("ranks-") + optimizer), losses(std::string("alone-") + optimizer));
    EXPECT_TRUE(run_.adapter(std::string("ranks-") + optimizer) == run_.adapter(std::string("alone-") + optimizer));
  }
}

TEST_F(EmulatedGpu, TheLibrarysOrderOfAdditionsIsAsGood) {
  train("tree", 1);
  train("library", 2, {"runtime.deterministic=false"});
  EXPECT_LT(adapter_difference("library", "tree"), kF32Adapter);
}

TEST_F(EmulatedGpu, ResumesBitForBitOnAnotherNumberOfRanks) {
  const std::vector<std::string> job = {"training.save_every=2"};
  train("out", 1, job);
  const std::string whole = run_.adapter("out");
  ASSERT_FALSE(whole.empty());
  // As it was after its checkpoint of step 2, when step 3 had been taken but nothing was exported.
  std::filesystem::remove_all(run_.path("out/checkpoints/step-00000003"));
  std::filesystem::remove_all(run_.path("out/adapter"));
  std::filesystem::remove(run_.path("out/summary.json"));
  train("out", 2, {"training.save_every=2", "--resume"});
  EXPECT_TRUE(run_.adapter("out") == whole);
}

TEST_F(EmulatedGpu, RanksAndGpusThatDoNotMatchAreRefused) {
  const std::vector<std::string> five = {"runtime.device=cuda", "training.micro_batches=8",
                                         "runtime.ranks_in_process=5"};
  const Outcome more = run_.train("out", five, {.emulated_gpus = 4});
  EXPECT_EQ(more.code, 2);
  EXPECT_THAT(more.err, HasSubstr("5 ranks on a machine with 4 GPUs"));
  EXPECT_THAT(more.err, HasSubstr("mpirun -np 4"));
  const Outcome fewer = run_.train("out", {}, {.emulated_gpus = 2});
  EXPECT_EQ(fewer.code, 2);
  EXPECT_THAT(fewer.err, HasSubstr("1 rank on a machine with 2 GPUs"));
  EXPECT_THAT(fewer.err, HasSubstr("CUDA_VISIBLE_DEVICES=0"));
}

TEST_F(EmulatedGpu, VerifiesTheOptimizersVectors) {
  const Outcome outcome =
      run_.lomu({"verify", "lora-muon", LOMU_TEST_DATA "/lora_muon/hard_steps.json", "--device", "cuda", "--json"},
                {.emulated_gpus = 1});
  EXPECT_EQ(outcome.code, 0) << outcome.err << outcome.out;
  const auto checks = nlohmann::json::parse(outcome.out);
  EXPECT_GT(checks.size(), 4u);
  EXPECT_TRUE(std::all_of(checks.begin(), checks.end(), [](const auto& check) { return check.at("pass") == true; }));
}

}  // namespace
}  // namespace lomu
