// What records show, on numbers whose answer is known; and that the page says it.
#include "engine/study/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "engine/page/plot.h"
#include "engine/study/study_page.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Study study() {
  Study study;
  study.file = "rank.yaml";
  study.job = "model: {path: <here>}";
  study.claim = "one rate serves all";
  study.metric = "validation_loss";
  study.x = "optimizer.lr";
  study.lines = "adapter.rank";
  study.repeat = "training.seed";
  study.axes = {
      {"adapter.rank", {"2", "16"}}, {"optimizer.lr", {"0.01", "0.1", "1"}}, {"training.seed", {"0", "1", "2"}}};
  study.variants = {{"still", {}, {}}, {"moving", {}, {}}};
  return study;
}

StudyRecord record(const std::string& variant, const std::string& rank, const std::string& lr, int seed,
                   std::optional<double> loss) {
  StudyRecord r;
  r.id = variant + rank + lr + std::to_string(seed);
  r.variant = variant;
  r.at = {{"adapter.rank", rank}, {"optimizer.lr", lr}, {"training.seed", std::to_string(seed)}};
  r.validation_loss = loss;
  if (!loss) {
    r.failure = "the loss is NaN";
    r.diverged = true;
  }
  return r;
}

/// A bowl in log10 of the rate around `best`.
double bowl(const std::string& lr, double best) {
  const double distance = std::log10(std::stod(lr)) - std::log10(best);
  return 2 + 0.3 * distance * distance;
}

std::vector<StudyRecord> records() {
  std::vector<StudyRecord> all;
  for (const auto& [variant, rank, best] :
       {std::tuple{"still", "2", 0.1}, {"still", "16", 0.1}, {"moving", "2", 1.0}, {"moving", "16", 0.01}}) {
    for (const std::string lr : {"1", "0.01", "0.1"}) {  // not in the order of the axis
      for (const int seed : {0, 1, 2}) all.push_back(record(variant, rank, lr, seed, bowl(lr, best) + 0.01 * seed));
    }
  }
  return all;
}

TEST(Findings, CurvesAreInTheOrderOfTheAxes) {
  const auto curves = curves_of(study(), records());
  ASSERT_EQ(curves.size(), 4u);
  EXPECT_EQ(curves[0].variant, "still");
  EXPECT_EQ(curves[0].line, "2");
  EXPECT_EQ(curves[1].line, "16");
  ASSERT_EQ(curves[0].points.size(), 3u);
  EXPECT_EQ(curves[0].points[0].x, "0.01");
  EXPECT_EQ(curves[0].points[2].x, "1");
  EXPECT_THAT(curves[0].points[1].values, ElementsAre(2.0, 2.01, 2.02));
  EXPECT_DOUBLE_EQ(*curves[0].points[1].median(), 2.01);
  EXPECT_EQ(curves[0].best(), 1u);
}

TEST(Findings, TellAnOptimumThatMovesFromOneThatStands) {
  const auto transfers = transfer_of(curves_of(study(), records()));
  ASSERT_EQ(transfers.size(), 2u);
  EXPECT_EQ(transfers[0].moved, 0u);
  EXPECT_FALSE(transfers[0].at_the_edge);
  EXPECT_DOUBLE_EQ(transfers[0].cost_of_keeping[1], 0);
  EXPECT_EQ(transfers[1].moved, 2u);
  EXPECT_TRUE(transfers[1].at_the_edge);
  // From 0.01 to 1 are two decades: 0.3 * 4.
  EXPECT_NEAR(transfers[1].cost_of_keeping[1], 1.2, 1e-12);
}

TEST(Findings, FindTheOptimumBetweenPointsAndItsLaw) {
  Study s = study();
  s.variants = {{"falling", {}, {}}};
  std::vector<StudyRecord> all;
  // A bowl is a parabola in log x, so three points of it give its lowest exactly, on an uneven grid too.
  for (const std::string rank : {"1", "4", "16"}) {
    for (const std::string lr : {"0.01", "0.05", "0.1", "1"}) {
      all.push_back(record("falling", rank, lr, 0, bowl(lr, 0.3 / std::sqrt(std::stod(rank)))));
    }
  }
  const auto transfers = transfer_of(curves_of(s, all));
  ASSERT_EQ(transfers.size(), 1u);
  ASSERT_EQ(transfers[0].optimum.size(), 3u);
  EXPECT_NEAR(transfers[0].optimum[0].value(), 0.3, 1e-12);
  EXPECT_NEAR(transfers[0].optimum[1].value(), 0.15, 1e-12);
  EXPECT_NEAR(transfers[0].optimum[2].value(), 0.075, 1e-12);
  EXPECT_NEAR(transfers[0].exponent.value(), -0.5, 1e-12);
  EXPECT_THAT(verdict_of(s, all),
              HasSubstr("moves by a factor of 4.00, about as rank^-0.50 (rank 1: 0.3, rank 4: 0.15, "
                        "rank 16: 0.075)"));
}

TEST(Findings, NoOptimumIsGuessedBeyondTheGrid) {
  const auto curves = curves_of(study(), records());
  EXPECT_TRUE(curves[0].optimum());
  EXPECT_FALSE(curves[2].optimum());  // best at the edge
  EXPECT_FALSE(transfer_of(curves)[0].exponent) << "two lines make no law";
}

TEST(Findings, APointWhereHalfOfTheRepeatsDivergedHasNoMedian) {
  auto all = records();
  int seen = 0;
  for (StudyRecord& r : all) {
    if (r.variant != "still" || r.at["adapter.rank"] != "2" || r.at["optimizer.lr"] != "0.1") continue;
    if (seen++ < 2) r = record("still", "2", "0.1", seen, std::nullopt);
  }
  const auto curves = curves_of(study(), all);
  EXPECT_EQ(curves[0].points[1].median(), std::nullopt);
  EXPECT_EQ(curves[0].best(), 0u);  // as good as the third, and first
  EXPECT_THAT(page_of(study(), all, ""), HasSubstr("diverged"));
}

TEST(Findings, InvarianceComparesTheSameSeeds) {
  Study s = study();
  s.question = StudyQuestion::kInvariance;
  s.lines = "";
  s.axes = {{"optimizer.lr", {"1", "3"}}, {"training.seed", {"0", "1"}}};
  s.variants = {{"still", {}, {}}};
  std::vector<StudyRecord> all;
  for (const int seed : {0, 1}) {
    all.push_back(record("still", "2", "1", seed, 2.0 + seed));
    all.push_back(record("still", "2", "3", seed, 2.0 + seed + 0.25));
  }
  const auto found = invariance_of(s, all);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_DOUBLE_EQ(*found[0].largest, 0.25);  // though the seeds are 1 apart
  EXPECT_THAT(verdict_of(s, all), HasSubstr("moves by at most 2.50e-01 over lr from 1 to 3"));
}

TEST(StudyRecord, OfARunWhoseResultIsGoneIsAFailureWithItsReason) {
  const auto folder = std::filesystem::temp_directory_path() / ("lomu-record-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder / "run");
  const StudyRun run{"run", "plain", {}, folder / "run", "a: 1\n"};
  const StudyRecord record = finish_record(run, 0);
  EXPECT_THAT(record.failure, HasSubstr("the folder holds no run"));
  EXPECT_FALSE(record.diverged);
  EXPECT_FALSE(read_record(run)) << "it gets another try";
  std::filesystem::remove_all(folder);
}

TEST(StudyPage, SaysTheVerdictAndStandsByItself) {
  const std::string page = page_of(study(), records(), "a machine & a date");
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("still: the best lr stands still (rank 2: 0.1, rank 16: 0.1). Between the points of the grid it "
                      "moves by a factor of 1.00 (rank 2: 0.1, rank 16: 0.1). Keeping"),
            HasSubstr("moving: the best lr moves by 2 steps of the grid (rank 2: 1, rank 16: 0.01). Keeping "
                      "that of rank 2 everywhere costs at most 1.2000 (at rank 16)"),
            HasSubstr("at the edge of the grid")));
  EXPECT_THAT(page, AllOf(HasSubstr("<svg"), HasSubstr("{path: &lt;here&gt;}"), HasSubstr("a machine &amp; a date")));
  EXPECT_THAT(page,
              AllOf(Not(HasSubstr("<script")), Not(HasSubstr("<link")), Not(HasSubstr("src=")), Not(HasSubstr("nan"))));
}

TEST(StudyPlot, KeepsADivergingValueFromFlatteningTheOthers) {
  Plot plot{"t", "x", "y", true, {PlotLine{"a", {}, 1}}};
  for (const double x : {0.01, 0.03, 0.1, 0.3}) plot.lines[0].points.push_back({x, 2 + x, 2 + x, 2 + x});
  plot.lines[0].points.push_back({1, 500, 500, 500});
  const std::string svg = svg_of(plot);
  EXPECT_THAT(svg, AllOf(HasSubstr(">2.1<"), Not(HasSubstr(">200<"))));
}

}  // namespace
}  // namespace lomu
