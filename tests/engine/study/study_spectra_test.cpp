// Spectra of momentum: from what telemetry wrote, through a record, to words and tables.
#include "engine/study/study_spectra.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/study/study_page.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

HistoryPair pair_of(const std::string& name, double median) {
  return {name, {{"momentum_left_median", median}, {"stable_rank", 1.0}, {"condition_left", 3.0}}};
}

TEST(LayerFigures, AreMediansOverThePairsOfALayer) {
  RunHistory run;
  run.steps = {{1, {}, {}},  // without telemetry
               {2,
                {},
                {pair_of("model.layers.0.self_attn.q_proj", 0.1), pair_of("model.layers.0.self_attn.k_proj", 0.5),
                 pair_of("model.layers.0.mlp.up_proj", 0.2), pair_of("model.layers.11.mlp.up_proj", 0.4),
                 pair_of("lm_head", 0.9)}}};
  const auto spectra = layer_figures_of(run);
  ASSERT_EQ(spectra.size(), 2u);
  EXPECT_EQ(spectra[0].step, 2);
  EXPECT_EQ(spectra[0].layer, 0);
  EXPECT_THAT(spectra[0].figures,
              ElementsAre(testing::Pair("condition_left", 3.0), testing::Pair("momentum_left_median", 0.2),
                          testing::Pair("stable_rank", 1.0)));
  EXPECT_EQ(spectra[1].layer, 11);
}

TEST(LayerFigures, KeepThreeDigitsThroughARecord) {
  const std::vector<LayerFigures> spectra = {{5, 3, {{"missed_left", 0.0}, {"momentum_left_median", 0.123456}}}};
  const auto again = layer_figures_from(to_json(spectra)).value();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].step, 5);
  EXPECT_EQ(again[0].layer, 3);
  EXPECT_EQ(again[0].figures.at("momentum_left_median"), 0.123);
  EXPECT_EQ(again[0].figures.size(), 2u);
  EXPECT_FALSE(layer_figures_from("[{\"step\": 1}]"));
  EXPECT_FALSE(layer_figures_from("[{"));
}

Study study() {
  Study study;
  study.file = "spectra.yaml";
  study.question = StudyQuestion::kSpectra;
  study.metric = "validation_loss";
  study.x = "adapter.rank";
  study.repeat = "training.seed";
  study.variants = {{"lora", {}, {}}};
  return study;
}

/// Two layers, looked at twice; the median is rank^-0.5 at the end, and twice that before.
std::vector<StudyRecord> records() {
  std::vector<StudyRecord> all;
  for (const double rank : {1.0, 4.0, 16.0}) {
    for (const double off : {-0.01, 0.0, 0.01}) {
      StudyRecord& r = all.emplace_back();
      r.variant = "lora";
      r.at = {{"adapter.rank", std::to_string(static_cast<int>(rank))}, {"training.seed", std::to_string(off)}};
      r.validation_loss = 2.0;
      for (const std::int64_t step : {10, 20}) {
        for (const int layer : {0, 1}) {
          const double median = (step == 10 ? 2 : 1) / std::sqrt(rank) + off;
          r.telemetry.push_back({step,
                                 layer,
                                 {{"momentum_left_smallest", median / 10},
                                  {"momentum_left_q10", median / 5},
                                  {"momentum_left_median", median},
                                  {"momentum_left_q90", median},
                                  {"momentum_left_largest", 0.5},
                                  {"missed_left", layer == 1 && step == 20 ? 0.25 : 0.0}}});
        }
      }
    }
  }
  return all;
}

TEST(StudySpectra, SayHowTheMomentumLooks) {
  EXPECT_THAT(spectra_sentences(study(), records()),
              ElementsAre(HasSubstr("lora, rank 1: "),
                          AllOf(HasSubstr("lora, rank 4: "),
                                HasSubstr("are 0.1 / 1 / 0.5 at step 10 and 0.05 / 0.5 / 0.5 at step 20."),
                                HasSubstr("miss 6.25 % of the directions on average, at most 25 % in a layer")),
                          HasSubstr("lora, rank 16: "),
                          HasSubstr("lora: at the end the median goes about as rank^-0.50, the largest as rank^0.00")));
}

TEST(StudySpectra, AreOnThePage) {
  const std::string page = page_of(study(), records(), "");
  EXPECT_THAT(page, AllOf(HasSubstr("<h2>Spectra</h2>"), HasSubstr("<th>missed</th>"), HasSubstr("<td>12.5 %</td>"),
                          HasSubstr("share that Newton-Schulz misses"), Not(HasSubstr("nan"))));
}

TEST(StudySpectra, ShowHowFactorsGrow) {
  auto all = records();
  for (StudyRecord& r : all) {
    for (LayerFigures& s : r.telemetry) {
      s.figures["norm_left"] = static_cast<double>(s.step);
      s.figures["norm_right"] = 7;
      s.figures["product_largest"] = 0.5;
    }
  }
  const std::string section = growth_section(study(), all);
  EXPECT_THAT(section,
              HasSubstr("<td>lora, rank 4</td><td>10</td><td>20</td><td>7</td><td>7</td><td>0.5</td><td>0.5</td>"));
  EXPECT_EQ(growth_section(study(), records()), "");
}

TEST(StudySpectra, NeedTelemetry) {
  auto without = records();
  for (StudyRecord& r : without) r.telemetry.clear();
  EXPECT_THAT(spectra_sentences(study(), without), ElementsAre(HasSubstr("set telemetry.every")));
  EXPECT_THAT(page_of(study(), without, ""), HasSubstr("set telemetry.every"));
}

}  // namespace
}  // namespace lomu
