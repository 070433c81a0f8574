// --device of the commands that look at models and adapters or write them: what a GPU (emulated) computes is what the
// CPU computes, and one that is not there is refused in the same words everywhere.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/files/model_files.h"
#include "models/files/peft_adapter.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<float> weight(const ModelFiles& files, WeightId id) {
  std::vector<float> values(static_cast<std::size_t>(shape_of(files.config(), id).size()));
  files.read(id, values);
  return values;
}

/// The largest |a - b| in units of 2^-24 (|W| + scale |B| |A|), of all entries of W + scale B A.
double largest_difference(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& base,
                          const AdapterPair& pair) {
  const std::size_t cols = pair.a.size() / static_cast<std::size_t>(pair.r);
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double size = std::abs(static_cast<double>(base[i]));
    for (std::size_t k = 0; k < static_cast<std::size_t>(pair.r); ++k) {
      size += pair.scale * std::abs(static_cast<double>(pair.b[i / cols * static_cast<std::size_t>(pair.r) + k]) *
                                    static_cast<double>(pair.a[k * cols + i % cols]));
    }
    const double off = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (off > 0) largest = std::max(largest, off / (std::ldexp(1.0, -24) * size));
  }
  return largest;
}

class ExportOnDevice : public testing::TestWithParam<const char*> {};

TEST_P(ExportOnDevice, MergesAsTheCpuDoes) {
  const TinyRun run(GetParam());
  const fs::path model = run.path("model");
  const std::string adapter = fs::path(LOMU_TEST_DATA) / "models" / GetParam() / "adapter";
  const auto merged = [&](const std::string& device, const Launch& launch) {
    const Outcome outcome = run.lomu(
        {"export", adapter, "--model", "model", "--out", device, "--merged", "--dtype", "f32", "--device", device},
        launch);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(device == "cuda" ? "summed by GPU 0, f32" : "summed by cpu, f32"));
    return ModelFiles::open(run.path(device));
  };
  const ModelFiles cpu = merged("cpu", {});
  const ModelFiles gpu = merged("cuda", {.emulated_gpus = 1});
  const ModelFiles base = ModelFiles::open(model);
  const AdapterFile file = read_peft_adapter(adapter, base.config());
  for (const WeightId id : weights_of(base.config())) {
    const auto site = site_of(id.kind);
    const auto pair = std::find_if(file.pairs.begin(), file.pairs.end(),
                                   [&](const AdapterPair& p) { return site == p.site && id.layer == p.layer; });
    if (pair == file.pairs.end()) {
      EXPECT_EQ(weight(gpu, id), weight(base, id)) << hf_name(id);
      continue;
    }
    // Each sums r products and W: r + 1 roundings at most, and the same rounding of scale B in both.
    EXPECT_LE(largest_difference(weight(gpu, id), weight(cpu, id), weight(base, id), *pair),
              2.0 * static_cast<double>(pair->r + 1))
        << hf_name(id);
    EXPECT_NE(weight(gpu, id), weight(base, id)) << hf_name(id);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExportOnDevice, testing::Values("llama-bias", "qwen3"), [](const auto& name) {
  std::string text = name.param;
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
});

class DeviceOption : public testing::Test {
 protected:
  const std::string adapter_ = fs::path(LOMU_TEST_DATA) / "models" / "llama-tied" / "adapter";
  TinyRun run_;
};

TEST_F(DeviceOption, ThatIsNotThereIsRefusedInTheSameWords) {
  const Outcome first = run_.lomu({"generate", "--model", "model", "--prompt", "red", "--device", "cuda"});
  if (first.code == 0) GTEST_SKIP() << "a GPU is there";
  EXPECT_EQ(first.code, 2);
  EXPECT_THAT(first.err, HasSubstr("use device cpu"));
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"export", adapter_, "--model", "model", "--out", "new"},
                                             {"export", adapter_, "--model", "model", "--out", "new", "--merged"},
                                             {"inspect", "--model", "model"},
                                             {"inspect", "--model", "model", "--adapter", adapter_},
                                             {"inspect", "--example", "job.yaml"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--device", "cuda"});
    const Outcome outcome = run_.lomu(arguments);
    EXPECT_EQ(outcome.code, 2) << command[0] << ' ' << command[1];
    EXPECT_EQ(outcome.err, first.err) << command[0] << ' ' << command[1];
    EXPECT_EQ(outcome.out, "");
  }
  EXPECT_FALSE(fs::exists(run_.path("new")));
}

TEST_F(DeviceOption, OfInspectSaysWhatAModelTakesThere) {
  const auto view = [&](const char* device, const Launch& launch) {
    const Outcome outcome = run_.lomu({"inspect", "--model", "model", "--device", device, "--json"}, launch);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out);
  };
  const auto gpu = view("cuda", {.emulated_gpus = 1});
  EXPECT_EQ(gpu.at("device").at("compute"), "GPU 0, bf16");
  // Each weight once in bf16, the tied head by itself; norms in f32.
  const std::int64_t head = gpu.at("vocabulary").get<std::int64_t>() * gpu.at("hidden").get<std::int64_t>();
  const std::int64_t expected = 2 * (gpu.at("parameters").get<std::int64_t>() + head);
  EXPECT_NEAR(gpu.at("device").at("weight_bytes").get<double>(), static_cast<double>(expected), 0.02 * expected);
  EXPECT_EQ(gpu.at("device").at("weight_bytes_to_train"), gpu.at("device").at("weight_bytes"));
  EXPECT_GT(view("cpu", {}).at("device").at("weight_bytes_to_train"), gpu.at("device").at("weight_bytes"));

  const Outcome silent = run_.lomu({"inspect", "--model", "model", "--json"}, {.emulated_gpus = 1});
  EXPECT_FALSE(nlohmann::json::parse(silent.out).contains("device"));
  const Outcome text = run_.lomu({"inspect", "--model", "model", "--device", "cuda"}, {.emulated_gpus = 1});
  EXPECT_THAT(text.out, HasSubstr("in memory"));
  EXPECT_THAT(text.out, HasSubstr("GPU 0, bf16"));
}

TEST_F(DeviceOption, OfInspectChangesNoSpectrum) {
  const std::vector<std::string> arguments = {"inspect", "--model", "model", "--adapter", adapter_, "--json"};
  std::vector<std::string> on_gpu = arguments;
  on_gpu.insert(on_gpu.end(), {"--device", "cuda"});
  const Outcome outcome = run_.lomu(on_gpu, {.emulated_gpus = 1});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, run_.lomu(arguments).out);
}

}  // namespace
}  // namespace lomu
