// Who a process is, by every launcher's environment; where the ranks meet; and how they then talk.
#include "comm/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace lomu {
namespace {

using Variables = std::map<std::string, std::string>;

Environment environment_of(const Variables& variables) {
  return [&variables](const char* name) -> const char* {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  };
}

std::string place_in(const Variables& variables) {
  const auto place = launched_place(environment_of(variables));
  if (!place) return "alone";
  return std::to_string(place->rank) + "/" + std::to_string(place->size) + " local " +
         (place->local_rank ? std::to_string(*place->local_rank) : "?") + " by " + place->launcher;
}

std::string meeting_in(const Variables& variables) {
  const auto place = meeting_place(environment_of(variables));
  return place ? (place->address ? "tcp " : "file ") + place->text() : "nowhere";
}

Transport transport_in(const Variables& variables, bool build_has_mpi) {
  const Environment environment = environment_of(variables);
  return choose_transport(launched_place(environment), meeting_place(environment), environment, build_has_mpi);
}

const Variables kOpenMpi = {
    {"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}};
const Variables kTorchrun = {{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "1"}};
const Variables kMaster = {{"MASTER_ADDR", "node0"}, {"MASTER_PORT", "29500"}};

Variables both(Variables a, const Variables& b) {
  a.insert(b.begin(), b.end());
  return a;
}

TEST(LaunchedPlace, IsReadFromEveryLauncher) {
  EXPECT_EQ(place_in({}), "alone");
  EXPECT_EQ(place_in(kOpenMpi), "3/4 local 1 by Open MPI");
  EXPECT_EQ(place_in({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}}), "0/2 local 0 by PMI");
  EXPECT_EQ(place_in({{"MV2_COMM_WORLD_RANK", "1"}, {"MV2_COMM_WORLD_SIZE", "2"}}), "1/2 local ? by MVAPICH");
  EXPECT_EQ(place_in({{"SLURM_PROCID", "6"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "2"}}),
            "6/8 local 2 by Slurm");
  EXPECT_EQ(place_in(kTorchrun), "5/8 local 1 by RANK and WORLD_SIZE");
}

TEST(LaunchedPlace, AllocationShellsAreNotLaunchers) {
  EXPECT_EQ(place_in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}), "alone");
  EXPECT_EQ(place_in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_STEP_NUM_TASKS", "1"}}), "alone");
}

TEST(LaunchedPlace, IsThatOfTheInnermostLauncher) {
  // torchrun started by srun; mpirun in a container whose operator set RANK for the container.
  EXPECT_EQ(place_in(both(kTorchrun, {{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}})),
            "5/8 local 1 by RANK and WORLD_SIZE");
  EXPECT_EQ(place_in(both(kOpenMpi, {{"RANK", "0"}, {"WORLD_SIZE", "2"}})), "3/4 local 1 by Open MPI");
}

TEST(LaunchedPlace, RefusesWhatCannotBe) {
  EXPECT_THROW(place_in({{"RANK", "two"}, {"WORLD_SIZE", "4"}}), UsageError);
  EXPECT_THROW(place_in({{"RANK", "-1"}, {"WORLD_SIZE", "4"}}), UsageError);
  EXPECT_THROW(place_in({{"RANK", "99999999999"}, {"WORLD_SIZE", "4"}}), UsageError);
  EXPECT_THROW(place_in({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), UsageError);
  EXPECT_THROW(place_in({{"OMPI_COMM_WORLD_RANK", "4"}, {"OMPI_COMM_WORLD_SIZE", "4"}}), UsageError);
}

TEST(MeetingPlaces, AreReadFromTheEnvironment) {
  EXPECT_EQ(meeting_in({}), "nowhere");
  EXPECT_EQ(meeting_in({{"MASTER_ADDR", "node0"}}), "nowhere");
  EXPECT_EQ(meeting_in(kMaster), "tcp node0:29500");
  EXPECT_EQ(meeting_in(both(kMaster, {{"LOMU_RENDEZVOUS", "/shared/job 7"}})), "file /shared/job 7");
  EXPECT_EQ(meeting_in({{"LOMU_RENDEZVOUS", "tcp://[fe80::1]:80"}}), "tcp [fe80::1]:80");
  EXPECT_EQ(meeting_in(both(kMaster, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}})), "tcp node0:29501");
  EXPECT_EQ(meeting_in(both(kMaster, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})), "tcp node0:29500");
}

TEST(MeetingPlaces, RefuseWhatCannotBe) {
  for (const char* text :
       {"tcp://node0", "tcp://:5", "tcp://node0:0", "tcp://node0:70000", "tcp://node0:5x", "http://a"}) {
    EXPECT_THROW(meeting_in({{"LOMU_RENDEZVOUS", text}}), UsageError) << text;
  }
  EXPECT_THROW(meeting_in({{"MASTER_ADDR", "a"}, {"MASTER_PORT", "0"}}), UsageError);
  EXPECT_THROW(meeting_in({{"MASTER_ADDR", "a"}, {"MASTER_PORT", "65535"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}}),
               UsageError);
}

TEST(Transports, FollowLauncherAndBuild) {
  EXPECT_EQ(transport_in({}, true), Transport::kAlone);
  EXPECT_EQ(transport_in({}, false), Transport::kAlone);
  EXPECT_EQ(transport_in(kOpenMpi, true), Transport::kMpi);
  EXPECT_EQ(transport_in({{"PMIX_RANK", "0"}}, true), Transport::kMpi);
  EXPECT_EQ(transport_in(both(kTorchrun, kMaster), true), Transport::kTcp);
  EXPECT_EQ(transport_in(both(kTorchrun, kMaster), false), Transport::kTcp);
  EXPECT_EQ(transport_in({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}, true), Transport::kAlone);
  // srun without PMIx, told where to meet.
  const Variables slurm = {{"SLURM_PROCID", "6"}, {"SLURM_STEP_NUM_TASKS", "8"}};
  EXPECT_EQ(transport_in(both(slurm, {{"LOMU_RENDEZVOUS", "/shared/meeting"}}), true), Transport::kTcp);
  EXPECT_EQ(transport_in(both(slurm, kMaster), false), Transport::kTcp);
}

TEST(Transports, PreferMpiWhereItsLauncherSaysTheSame) {
  EXPECT_EQ(transport_in(both(kOpenMpi, kMaster), true), Transport::kMpi);
  const Variables translated = {{"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}};
  EXPECT_EQ(transport_in(both(both(kOpenMpi, translated), kMaster), true), Transport::kMpi);
  EXPECT_EQ(transport_in(both(both(kOpenMpi, kTorchrun), kMaster), true), Transport::kTcp);
}

TEST(Transports, SayWhatToSetWhenRanksCannotMeet) {
  for (const auto& [variables, has_mpi] : {std::pair{kTorchrun, true}, {kTorchrun, false}, {kOpenMpi, false}}) {
    try {
      transport_in(variables, has_mpi);
      FAIL();
    } catch (const UsageError& error) {
      EXPECT_THAT(error.hint(), ::testing::HasSubstr("launch/ranks -n N"));
    }
  }
}

}  // namespace
}  // namespace lomu
