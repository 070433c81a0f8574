// The reference cases that ship with the project, on both backends, and what a wrong file is told.
#include "engine/optimizers/verify_vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "kernels/error.h"

namespace lomu {
namespace {

const std::filesystem::path kData = std::filesystem::path(LOMU_TEST_DATA) / "lora_muon";

class GoldenSteps : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenSteps, ReferenceIsWithin1em9OfTheStep) {
  const auto checks = verify_lora_muon(kData / GetParam(), VectorBackend::kReference);
  EXPECT_GE(checks.size(), 32u);
  for (const VectorCheck& c : checks)
    EXPECT_TRUE(c.pass) << c.case_name << " " << c.quantity << " " << c.error << c.note;
}

TEST_P(GoldenSteps, CpuIsWithin1em6WithNoAllowanceForRounding) {
  const auto checks = verify_lora_muon(kData / GetParam(), VectorBackend::kCpu);
  EXPECT_GE(checks.size(), 32u);
  for (const VectorCheck& c : checks) {
    EXPECT_TRUE(c.pass) << c.case_name << " " << c.quantity << " " << c.error << c.note;
    EXPECT_LT(c.error, 1e-6) << c.case_name << " " << c.quantity;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenSteps, ::testing::Values("plain_steps.json", "hard_steps.json"),
                         [](const auto& which) { return std::string(which.param).substr(0, 5); });

TEST(VerifyLoraMuon, AWrongAnswerFailsAndTheOthersPass) {
  auto cases = read_lora_muon_cases(kData / "plain_steps.json");
  cases.resize(1);
  cases[0].expected.right[0] += 1e-4;
  const auto checks = verify_lora_muon(cases, VectorBackend::kCpu);
  ASSERT_EQ(checks.size(), 4u);
  EXPECT_TRUE(checks[0].pass);
  EXPECT_EQ(checks[1].quantity, "expect_right");
  EXPECT_FALSE(checks[1].pass);
}

TEST(VerifyLoraMuon, ARefusedCaseIsAFailureWithItsReason) {
  auto cases = read_lora_muon_cases(kData / "plain_steps.json");
  cases.resize(1);
  std::fill(cases[0].problem.before.left.begin(), cases[0].problem.before.left.end(), 0.0);
  for (const VectorBackend backend : {VectorBackend::kCpu, VectorBackend::kReference}) {
    for (const VectorCheck& c : verify_lora_muon(cases, backend)) {
      EXPECT_FALSE(c.pass);
      EXPECT_EQ(c.error, kNoResult);
      EXPECT_FALSE(c.note.empty());
    }
  }
}

class BrokenFile : public ::testing::Test {
 protected:
  /// Writes a file with one small case in which one piece of text is replaced, and returns the message it gets.
  std::string message(const std::string& from, const std::string& to) {
    std::string text =
        R"({"format":"lora-muon-vectors/1","cases":[{"name":"small","m":2,"n":1,"r":1,"lr":0.1,"scale":1.0,"momentum":0.9,)"
        R"("weight_decay":0.0,"damping":null,"left":[1,2],"right":[1],"momentum_left":[0,0],"momentum_right":[0],)"
        R"("grad_left":[1,1],"grad_right":[1],"expect_left":[0,0],"expect_right":[0],"expect_momentum_left":[0,0],)"
        R"("expect_momentum_right":[0]}]})";
    if (!from.empty()) text.replace(text.find(from), from.size(), to);
    std::ofstream(path_) << text;
    try {
      read_lora_muon_cases(path_);
    } catch (const FormatError& error) {
      return std::string(error.what()) + " | " + error.where();
    }
    return "read";
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) /
      ("lomu_vectors_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + ".json");
};

TEST_F(BrokenFile, IsReadWhenItIsNotBroken) {
  EXPECT_EQ(message("", ""), "read");
}

TEST_F(BrokenFile, NamesCaseAndField) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  const auto names = [](const char* field) { return AllOf(HasSubstr(field), HasSubstr("case 0 (\"small\")")); };
  EXPECT_THAT(message(R"("m":2)", R"("m":0)"), names("\"m\""));
  EXPECT_THAT(message(R"("m":2)", R"("m":-2)"), names("\"m\""));
  EXPECT_THAT(message(R"("m":2)", R"("m":18446744073709551615)"), names("\"m\""));
  EXPECT_THAT(message(R"("m":2)", R"("m":2.5)"), names("\"m\""));
  EXPECT_THAT(message(R"("n":1,)", ""), names("\"n\""));
  EXPECT_THAT(message(R"("lr":0.1)", R"("lr":"fast")"), names("\"lr\""));
  EXPECT_THAT(message(R"("lr":0.1)", R"("lr":-0.1)"), names("\"lr\""));
  EXPECT_THAT(message(R"("scale":1.0)", R"("scale":0)"), names("\"scale\""));
  EXPECT_THAT(message(R"("momentum":0.9)", R"("momentum":1)"), names("\"momentum\""));
  EXPECT_THAT(message(R"("weight_decay":0.0)", R"("weight_decay":10.0)"), names("\"weight_decay\""));
  EXPECT_THAT(message(R"("damping":null)", R"("damping":0)"), names("\"damping\""));
  EXPECT_THAT(message(R"("left":[1,2])", R"("left":[1])"), names("\"left\""));
  EXPECT_THAT(message(R"("left":[1,2])", R"("left":[1,null])"), names("\"left\""));
  EXPECT_THAT(message(R"("left":[1,2])", R"("left":1)"), names("\"left\""));
  EXPECT_THAT(message(R"("expect_momentum_right":[0])", R"("expect_momentum_right":[])"),
              names("\"expect_momentum_right\""));
}

TEST_F(BrokenFile, IsRefusedAsAWhole) {
  using ::testing::HasSubstr;
  EXPECT_THAT(message("vectors/1", "vectors/2"), HasSubstr("format"));
  EXPECT_THAT(message("\"cases\":[{", "\"cases\":{\"a\":[{"), HasSubstr("JSON"));
  EXPECT_THAT(message("[1,2]", "[1,NaN]"), HasSubstr("JSON"));
  EXPECT_THAT(message("[1,2]", "[1,1e999]"), HasSubstr("JSON"));
  EXPECT_THAT(message("\"cases\":[{", "\"cases\":[7,{"), HasSubstr("case 0"));
  EXPECT_THROW(read_lora_muon_cases(kData / "no_such_file.json"), FileError);
  EXPECT_THROW(read_lora_muon_cases(kData), FileError);
}

}  // namespace
}  // namespace lomu
