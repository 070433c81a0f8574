// A model that is nowhere: shapes of a configuration, weights of random numbers.
#include "models/files/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <vector>

#include "kernels/error.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

const std::filesystem::path kConfig = std::filesystem::path(LOMU_TEST_DATA) / "models" / "qwen3" / "config.json";

TEST(RandomWeights, AreTheSameInAnyPieces) {
  const WeightId id{WeightKind::kGate, 1};
  std::vector<float> whole(1003);
  random_weight(id, 0, whole);
  for (const std::size_t first : {1, 2, 3, 4, 5, 1000}) {
    std::vector<float> piece(std::min<std::size_t>(9, whole.size() - first));
    random_weight(id, static_cast<std::int64_t>(first), piece);
    for (std::size_t i = 0; i < piece.size(); ++i) ASSERT_EQ(piece[i], whole[first + i]) << first << " + " << i;
  }
}

TEST(RandomWeights, LookLikeAnUntrainedModel) {
  std::vector<float> values(100000);
  random_weight({WeightKind::kDown, 3}, 0, values);
  double sum = 0, squares = 0;
  for (const float x : values) {
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0, 4 * 0.02 / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 2e-4);
  std::vector<float> norm(7);
  random_weight({WeightKind::kAttnNorm, 0}, 0, norm);
  EXPECT_EQ(norm, std::vector<float>(7, 1.0f));
}

TEST(RandomWeights, MakeAModelOfAConfiguration) {
  const ModelFiles model = ModelFiles::random(kConfig);
  for (const WeightId id : weights_of(model.config())) {
    EXPECT_TRUE(model.has(id));
    std::vector<float> values(static_cast<std::size_t>(shape_of(model.config(), id).size()));
    model.read(id, values);
    model.drop_pages(id);
  }
  const WeightId embedding{WeightKind::kEmbed, 0};
  std::vector<float> rows(2 * 64), head(2 * 64);
  model.read_rows(embedding, 5, 2, rows);
  model.read_rows({WeightKind::kLmHead, 0}, 5, 2, head);
  EXPECT_EQ(rows, head) << "tied";
  EXPECT_EQ(model.stored_type(embedding), "random");
  EXPECT_EQ(model.stored_bytes(), 0u);
  EXPECT_EQ(model.fingerprint(), ModelFiles::random(kConfig).fingerprint());
  EXPECT_THROW(ModelFiles::random(kConfig.parent_path() / "missing.json"), FileError);
}

}  // namespace
}  // namespace lomu
