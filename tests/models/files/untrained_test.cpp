// What a model that nobody has trained starts from.
#include "models/files/untrained.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "models/files/model_files.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::error_of;
using ::testing::HasSubstr;

UntrainedModel small() {
  UntrainedModel model;
  model.layers = 2;
  model.hidden = 128;
  model.heads = 4;
  model.kv_heads = 2;
  model.intermediate = 384;
  model.vocab = 257;
  model.context = 64;
  model.seed = 3;
  return model;
}

std::vector<float> read(const ModelFiles& files, WeightId id) {
  std::vector<float> values(static_cast<std::size_t>(shape_of(files.config(), id).size()));
  files.read(id, values);
  return values;
}

/// n normal numbers of this deviation have a sample deviation within 5 / sqrt(2 n) of it, and a mean within
/// 5 / sqrt(n), but for one time in a million.
void expect_normal(const std::vector<float>& values, double deviation) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const float x : values) {
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  EXPECT_NEAR(sum / n, 0, 5 * deviation / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), deviation, 5 * deviation / std::sqrt(2 * n));
}

TEST(Untrained, StartsWithTheScalesThatItSays) {
  const ModelFiles files = ModelFiles::untrained(small());
  expect_normal(read(files, {WeightKind::kEmbed, 0}), 1);
  expect_normal(read(files, {WeightKind::kQ, 1}), 1 / std::sqrt(128.0));
  expect_normal(read(files, {WeightKind::kDown, 0}), 1 / std::sqrt(384.0));
  expect_normal(read(files, {WeightKind::kLmHead, 0}), 1 / 128.0);
  for (const float x : read(files, {WeightKind::kAttnNorm, 1})) EXPECT_EQ(x, 1.0f);
}

TEST(Untrained, IsAFunctionOfSeedAndPlace) {
  const ModelFiles files = ModelFiles::untrained(small());
  const std::vector<float> whole = read(files, {WeightKind::kUp, 1});
  std::vector<float> rows(3 * 128);
  files.read_rows({WeightKind::kUp, 1}, 5, 3, rows);
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), whole.begin() + 5 * 128));
  EXPECT_NE(read(files, {WeightKind::kUp, 0}), whole);
  EXPECT_NE(read(files, {WeightKind::kGate, 1}), whole);
  UntrainedModel other = small();
  other.seed = 4;
  EXPECT_NE(read(ModelFiles::untrained(other), {WeightKind::kUp, 1}), whole);
  EXPECT_NE(ModelFiles::untrained(other).fingerprint(), files.fingerprint());
  EXPECT_EQ(ModelFiles::untrained(small()).fingerprint(), files.fingerprint());
}

TEST(Untrained, RefusesSizesThatDoNotFit) {
  UntrainedModel odd = small();
  odd.heads = odd.kv_heads = 3;
  EXPECT_THAT(error_of<UsageError>([&] { config_of(odd); }), HasSubstr("3 heads do not divide a width of 128"));
  odd = small();
  odd.hidden = 12;
  EXPECT_THAT(error_of<UsageError>([&] { config_of(odd); }), HasSubstr("even size"));
  odd = small();
  odd.kv_heads = 3;
  EXPECT_THAT(error_of<UsageError>([&] { config_of(odd); }), HasSubstr("3 kv_heads do not divide 4 heads"));
}

}  // namespace
}  // namespace lomu
