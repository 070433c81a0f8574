// `lomu doctor` as a program, and what it reads off other machines' descriptions of themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/commands/doctor_findings.h"
#include "engine/commands/doctor_machine.h"
#include "kernels/cuda/architectures.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(Doctor, TellsBuildMachineAndSpeed) {
  const Outcome outcome = TinyRun().lomu({"doctor", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  const json document = json::parse(outcome.out);
  EXPECT_EQ(document.at("ok"), true);
  for (const char* name : {"version", "commit", "compiler", "build", "oneDNN", "MPI", "libraries"}) {
    EXPECT_FALSE(document.at("build").at(name).at("value").get<std::string>().empty()) << name;
  }
  const json& machine = document.at("machine");
  for (const char* name : {"processor", "instructions", "bf16", "huge pages"}) {
    EXPECT_TRUE(machine.at(name).contains("status")) << name;
  }
  EXPECT_GE(machine.at("cores").at("number"), 0.1);
  EXPECT_GT(machine.at("memory").at("number"), 1e8);
  EXPECT_LE(machine.at("memory free").at("number"), machine.at("memory").at("number"));
  EXPECT_GT(document.at("speed").at("copy").at("number"), 1e7);
  EXPECT_GT(document.at("speed").at("f32 product").at("number"), 1e6);
  EXPECT_TRUE(document.at("gpu").contains("CUDA"));
  EXPECT_TRUE(document.at("gpu").contains("NCCL"));
  EXPECT_FALSE(document.contains("broken"));
}

TEST(Doctor, SaysWhatToDoWhereSomethingIsMissing) {
  const Outcome outcome = TinyRun().lomu({"doctor"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(outcome.out, HasSubstr("nothing is broken"));
  if (outcome.out.find("missing  CUDA") != std::string::npos) {
    EXPECT_THAT(outcome.out, HasSubstr("-> cmake --preset cuda"));
  }
}

TEST(Doctor, ShowsTheRanksAndTheRingUnderMpi) {
  Launch two;
  two.ranks = 2;
  const Outcome outcome = TinyRun().lomu({"doctor", "--json"}, two);
  ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  const json ranks = json::parse(outcome.out).at("ranks");
  EXPECT_THAT(ranks.at("rank 0").at("value").get<std::string>(), HasSubstr("0 of 2 there"));
  EXPECT_THAT(ranks.at("rank 1").at("value").get<std::string>(), HasSubstr("1 of 2 there"));
  EXPECT_EQ(ranks.at("program").at("status"), "ok");
  EXPECT_EQ(ranks.at("ring").at("status"), "ok");
  EXPECT_THAT(ranks.at("ring").at("value").get<std::string>(), AllOf(HasSubstr("by mpi"), HasSubstr("sums exact")));
}

TEST(Doctor, SendsMessagesAroundTheGpusUnderMpi) {
  Launch two;
  two.ranks = 2;
  two.emulated_gpus = 2;
  const Outcome outcome = TinyRun().lomu({"doctor", "--json"}, two);
  const json ranks = json::parse(outcome.out).at("ranks");
  EXPECT_EQ(ranks.at("ring of GPUs").at("status"), "ok") << ranks;
  EXPECT_THAT(ranks.at("ring of GPUs").at("value").get<std::string>(), HasSubstr("all exact"));
  two.emulated_gpus = 1;
  const json fewer = json::parse(TinyRun().lomu({"doctor", "--json"}, two).out).at("ranks");
  EXPECT_EQ(fewer.at("ring of GPUs").at("status"), "warning");
  EXPECT_THAT(fewer.at("ring of GPUs").at("value").get<std::string>(), HasSubstr("2 ranks on a machine with 1 GPU"));
}

TEST(DoctorReport, OnlyWhatIsBrokenIsAFailure) {
  std::vector<Section> sections = {
      {"a", {{"one", Verdict::kOk, "1", {}, 1.0}, {"second", Verdict::kMissing, "none", "get it"}}},
      {"b", {{"three", Verdict::kWarning, "slow"}}},
      {"empty", {}}};
  EXPECT_TRUE(is_well(sections));
  EXPECT_EQ(doctor_text(sections, Style()),
            "a\n"
            "  ok       one     1\n"
            "  missing  second  none\n"
            "                   -> get it\n"
            "b\n"
            "  warning  three   slow\n"
            "nothing is broken, 1 warning\n");
  sections[1].findings.push_back({"four", Verdict::kBroken, "gone"});
  EXPECT_FALSE(is_well(sections));
  EXPECT_THAT(doctor_text(sections, Style()), HasSubstr("1 broken, 1 warning\n"));
  const json document = json::parse(doctor_json(sections));
  EXPECT_EQ(document.at("ok"), false);
  EXPECT_EQ(document.at("a").at("one").at("number"), 1.0);
  EXPECT_EQ(document.at("a").at("second").at("advice"), "get it");
  EXPECT_FALSE(document.at("b").at("three").contains("advice"));
}

TEST(DoctorMachine, ReadsProcessors) {
  const auto x86 = parse_cpuinfo(
      "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_bf16\n\n"
      "processor\t: 1\nmodel name\t: Another\nflags\t\t: none\n");
  EXPECT_EQ(x86.model, "Some CPU @ 2 GHz");
  EXPECT_THAT(x86.flags, ElementsAre("fpu", "avx2", "avx512_bf16"));
  EXPECT_TRUE(x86.has("avx2"));
  EXPECT_FALSE(x86.has("avx"));
  const auto arm = parse_cpuinfo("processor : 0\nFeatures : fp asimd bf16");
  EXPECT_EQ(arm.model, "");
  EXPECT_THAT(arm.flags, Contains("bf16"));
  EXPECT_TRUE(parse_cpuinfo("").flags.empty());
}

TEST(DoctorMachine, ReadsMemoryAndChoices) {
  const char* text = "MemTotal:       100 kB\nMemAvailable:    7 kB\nHugepagesize: x kB\n";
  EXPECT_EQ(parse_meminfo(text, "MemTotal"), 102400u);
  EXPECT_EQ(parse_meminfo(text, "MemAvailable"), 7168u);
  EXPECT_EQ(parse_meminfo(text, "MemFree"), std::nullopt);
  EXPECT_EQ(parse_meminfo(text, "Hugepagesize"), std::nullopt);
  EXPECT_EQ(parse_choice("always [madvise] never\n"), "madvise");
  EXPECT_EQ(parse_choice("]["), "");
  EXPECT_EQ(parse_choice(""), "");
}

TEST(DoctorMachine, WritesCoresAsRanges) {
  EXPECT_EQ(ranges_text({}), "");
  EXPECT_EQ(ranges_text({3}), "3");
  EXPECT_EQ(ranges_text({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

TEST(CudaArchitectures, KnowWhichDevicesTheyServe) {
  EXPECT_TRUE(cuda::runs_on("80,90a,100a", 8, 0));
  EXPECT_TRUE(cuda::runs_on("80,90a,100a", 9, 0));
  EXPECT_TRUE(cuda::runs_on("80", 12, 1)) << "PTX comes along";
  EXPECT_FALSE(cuda::runs_on("80", 7, 5));
  EXPECT_FALSE(cuda::runs_on("90a", 10, 0));
  EXPECT_FALSE(cuda::runs_on("90a", 8, 9));
  EXPECT_TRUE(cuda::runs_on("80-real", 8, 6));
  EXPECT_FALSE(cuda::runs_on("86-real", 8, 0));
  EXPECT_FALSE(cuda::runs_on("80-real", 9, 0));
  EXPECT_TRUE(cuda::runs_on("80-virtual", 9, 0));
  EXPECT_TRUE(cuda::runs_on("100f", 10, 3));
  EXPECT_FALSE(cuda::runs_on("100f", 11, 0));
  EXPECT_FALSE(cuda::runs_on("", 9, 0));
  EXPECT_FALSE(cuda::runs_on("nothing", 9, 0));
  EXPECT_TRUE(cuda::runs_on("native", 9, 0));
  EXPECT_FALSE(cuda::runs_on("9", 9, 0));
}

}  // namespace
}  // namespace lomu
