#include "engine/commands/export.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "engine/commands/inspect.h"
#include "models/files/model_files.h"
#include "models/files/peft_adapter.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(LOMU_TEST_DATA) / "models";

/// An empty place for one test's output; what commands print is kept out of the log.
class Export : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    for (char& c : name) c = c == '/' ? '-' : c;
    root_ = fs::temp_directory_path() / ("lomu-export-" + name + "-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
  }
  void TearDown() override {
    testing::internal::GetCapturedStdout();
    testing::internal::GetCapturedStderr();
    fs::remove_all(root_);
  }
  [[nodiscard]] ExportOptions options_for(const std::string& model, const char* out) const {
    ExportOptions options;
    options.model = kModels / model;
    options.adapter = options.model / "adapter";
    options.out = root_ / out;
    return options;
  }
  fs::path root_;
};

std::vector<float> weight(const ModelFiles& files, WeightId id) {
  std::vector<float> values(static_cast<std::size_t>(shape_of(files.config(), id).size()));
  files.read(id, values);
  return values;
}

/// W + scale B A, entry by entry in double.
void expect_merged(const ModelFiles& base, const ModelFiles& merged, const AdapterPair& pair) {
  const WeightId id = weight_of(pair.layer, pair.site);
  const auto cols = static_cast<std::size_t>(shape_of(base.config(), id).cols);
  const auto rank = static_cast<std::size_t>(pair.r);
  const std::vector<float> before = weight(base, id);
  const std::vector<float> after = weight(merged, id);
  double largest = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    double product = 0;
    for (std::size_t k = 0; k < rank; ++k) {
      product += static_cast<double>(pair.b[i / cols * rank + k]) * static_cast<double>(pair.a[k * cols + i % cols]);
    }
    const double expected = static_cast<double>(before[i]) + pair.scale * product;
    largest = std::max(largest, std::abs(static_cast<double>(after[i]) - expected));
  }
  EXPECT_LT(largest, 1e-6) << hf_name(id);
}

TEST_P(Export, AdapterComesBackBitForBit) {
  const ExportOptions options = options_for(GetParam(), "adapter");
  EXPECT_EQ(run_export(options), Exit::kDone);
  const ModelConfig config = ModelFiles::open(options.model).config();
  const AdapterFile before = read_peft_adapter(options.adapter, config);
  const AdapterFile after = read_peft_adapter(options.out, config);
  EXPECT_EQ(before.base_model, after.base_model);
  EXPECT_EQ(before.use_rslora, after.use_rslora);
  ASSERT_EQ(before.pairs.size(), after.pairs.size());
  for (std::size_t i = 0; i < before.pairs.size(); ++i) {
    EXPECT_EQ(before.pairs[i].layer, after.pairs[i].layer);
    EXPECT_EQ(before.pairs[i].site, after.pairs[i].site);
    EXPECT_EQ(before.pairs[i].scale, after.pairs[i].scale);
    EXPECT_EQ(before.pairs[i].a, after.pairs[i].a);
    EXPECT_EQ(before.pairs[i].b, after.pairs[i].b);
  }
}

TEST_P(Export, MergedModelIsTheSumAndNothingElseChanges) {
  ExportOptions options = options_for(GetParam(), "merged");
  options.merged = true;
  options.dtype = config::StoredType::kF32;
  EXPECT_EQ(run_export(options), Exit::kDone);
  const ModelFiles base = ModelFiles::open(options.model);
  const ModelFiles merged = ModelFiles::open(options.out);
  const AdapterFile adapter = read_peft_adapter(options.adapter, base.config());
  std::vector<WeightId> adapted;
  for (const AdapterPair& pair : adapter.pairs) {
    expect_merged(base, merged, pair);
    adapted.push_back(weight_of(pair.layer, pair.site));
  }
  for (const WeightId id : weights_of(base.config())) {
    if (std::find(adapted.begin(), adapted.end(), id) != adapted.end()) continue;
    EXPECT_EQ(weight(base, id), weight(merged, id)) << hf_name(id);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Export,
                         testing::Values("llama-tied", "llama-bias", "llama3-rope-sharded", "mistral-window", "qwen2",
                                         "qwen3"));

TEST_F(Export, RefusesAnExistingFolderUnlessToldTo) {
  ExportOptions options = options_for("llama-tied", "adapter");
  run_export(options);
  EXPECT_THROW(run_export(options), UsageError);
  options.overwrite = true;
  EXPECT_EQ(run_export(options), Exit::kDone);
}

TEST_F(Export, NeverReplacesWhatItReadsNorAFolderOfOtherThings) {
  fs::copy(kModels / "llama-tied", root_ / "model", fs::copy_options::recursive);
  ExportOptions options;
  options.model = root_ / "model";
  options.adapter = root_ / "model" / "adapter";
  options.overwrite = true;
  for (const fs::path& out : {options.adapter, options.model, root_}) {
    options.out = out;
    EXPECT_THROW(run_export(options), UsageError) << out;
  }
  options.out = root_ / "letters";
  fs::create_directory(options.out);
  std::ofstream(options.out / "letter.txt") << "dear";
  EXPECT_THROW(run_export(options), UsageError);
  EXPECT_TRUE(fs::exists(options.out / "letter.txt"));
}

TEST_F(Export, AsksForABaseModelThatIsNotHere) {
  ExportOptions options = options_for("llama-tied", "adapter");
  options.model.clear();
  EXPECT_THROW(run_export(options), UsageError);
  EXPECT_FALSE(fs::exists(options.out));
}

TEST(Inspect, ShowsModelsAndAdapters) {
  InspectOptions options;
  options.model = kModels / "qwen3";
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_inspect(options), Exit::kDone);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("qwen3"), std::string::npos);
  options.adapter = options.model / "adapter";
  options.json = true;
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_inspect(options), Exit::kDone);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("\"stable_rank\""), std::string::npos);
}

}  // namespace
}  // namespace lomu
