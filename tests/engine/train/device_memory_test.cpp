// What happens when a device has too little memory: the real trainer on several ranks, each with an emulated GPU of a
// size that the test sets. This file stands in for the CUDA backend at link time (kernels/cuda/cuda_backend.h).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "comm/thread_communicator.h"
#include "engine/config/load.h"
#include "engine/session/model_session.h"
#include "engine/train/job_options.h"
#include "engine/train/make_step.h"
#include "engine/train/memory_fit.h"
#include "engine/train/memory_plan.h"
#include "engine/train/trainer.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_steps.h"
#include "kernels/error.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

constexpr int kDevices = 3;
constexpr std::size_t kUnlimited = std::size_t{1} << 40;

/// Bytes of each device; set before a run.
std::array<std::size_t, kDevices> device_bytes{};
/// How many of them there are; a job has a rank for each.
int devices = 1;

/// Device memory that refuses what goes beyond its size.
class LimitedStorage final : public Storage {
 public:
  LimitedStorage(Storage& inner, std::size_t bytes) : inner_(inner), bytes_(bytes) {}
  [[nodiscard]] bool on_host() const override { return false; }
  [[nodiscard]] StorageRoom room() const override { return {bytes_, bytes_ - taken_}; }
  std::byte* allocate(std::size_t bytes) override {
    if (taken_ + bytes > bytes_) return nullptr;
    std::byte* data = inner_.allocate(bytes);
    if (data != nullptr) taken_ += bytes;
    return data;
  }
  void release(std::byte* data, std::size_t bytes) noexcept override {
    taken_ -= bytes;
    inner_.release(data, bytes);
  }
  void upload(void* to, const void* host, std::size_t bytes) override { inner_.upload(to, host, bytes); }
  void download(void* host, const void* from, std::size_t bytes) override { inner_.download(host, from, bytes); }
  void zero(void* to, std::size_t bytes) override { inner_.zero(to, bytes); }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    inner_.copy_rows(to, to_pitch, from, from_pitch, row_bytes, rows);
  }

 private:
  Storage& inner_;
  std::size_t bytes_;
  std::atomic<std::size_t> taken_ = 0;
};

}  // namespace

namespace cuda {

bool built_with_cuda() {
  return true;
}

std::vector<std::string> device_buses() {
  std::vector<std::string> buses;
  for (int device = 0; device < devices; ++device) buses.push_back(std::to_string(device));
  return buses;
}

std::string device_refusal() {
  return {};
}

namespace {

class LimitedDevice final : public Device {
 public:
  explicit LimitedDevice(std::size_t bytes) : whole_(make_emulated_device()), storage_(whole_->storage(), bytes) {}
  [[nodiscard]] Storage& storage() override { return storage_; }
  [[nodiscard]] Stream stream() const override { return whole_->stream(); }
  [[nodiscard]] bool fast_float64() const override { return whole_->fast_float64(); }
  [[nodiscard]] std::unique_ptr<MatrixProducts> make_products(Memory& memory) override {
    return whole_->make_products(memory);
  }

 private:
  std::unique_ptr<Device> whole_;
  LimitedStorage storage_;
};

}  // namespace

Backend make_backend(const Precision& precision, int index, const CudaOptions&) {
  auto device = std::make_shared<LimitedDevice>(device_bytes.at(static_cast<std::size_t>(index)));
  Backend backend;
  backend.memory = std::make_unique<Memory>(device->storage());
  backend.ops = make_cuda_ops(precision, *device, *backend.memory);
  backend.steps = make_device_steps(*device);
  backend.device = std::move(device);
  return backend;
}

}  // namespace cuda

namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class DeviceMemory : public testing::Test {
 protected:
  DeviceMemory() { device_bytes.fill(kUnlimited); }

  config::TrainConfig job(int ranks, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> settings = {"model.path=" + run_.path("model").string(),
                                         "data.train=" + run_.path("train.jsonl").string(),
                                         "data.cache_dir=" + run_.path("cache").string(),
                                         "output.dir=" + run_.path("out").string(),
                                         "runtime.device=cuda",
                                         "training.steps=1",
                                         fmt::format("training.micro_batches={}", ranks)};
    std::erase_if(settings, [&](const std::string& setting) {
      const std::string key = setting.substr(0, setting.find('=') + 1);
      return std::any_of(more.begin(), more.end(), [&](const std::string& other) { return other.starts_with(key); });
    });
    settings.insert(settings.end(), more.begin(), more.end());
    return config::load_config(run_.path("job.yaml"), settings);
  }

  /// One step on `ranks` GPUs; the error that ended it, or none.
  std::optional<Error> train(int ranks, const std::vector<std::string>& more = {}) const {
    const config::TrainConfig config = job(ranks, more);
    try {
      devices = ranks;
      run_threads(ranks, [&](Communicator& comm) { lomu::train(config, false, comm); });
    } catch (const Error& error) {
      return error;
    }
    return {};
  }

  /// What a device must have for the job's decoder at `level` with micro-batches of `tokens`.
  std::size_t needed(Recompute level, std::int64_t tokens = kTokens) const {
    devices = 1;
    const config::TrainConfig config = job(1);
    const auto alone = make_self_communicator();
    const ModelSession session = ModelSession::open(session_options(config), *alone, true);
    AdapterSet adapters(session.config(), adapter_options(config, session.config()),
                        session.files(), DType::kF32, session.host_memory());
    AdaptedModel model(session.weights(), &adapters, session.ops(), session.memory());
    const auto step = make_step(config, session, model, true, *alone, nullptr);
    const DecoderCapacity capacity{tokens, tokens, kLongest, true, level};
    return session.memory().current_total() +
           Decoder::plan(session.config(), adapters.pairs(), 0, session.ops(), capacity).bytes();
  }

  void expect_nothing_written() const { EXPECT_THAT(run_.list("out"), IsEmpty()); }

  static constexpr std::int64_t kTokens = 128;  // of the job
  static constexpr std::int64_t kLongest = 40;  // about the longest record; it decides a few rows of tables
  TinyRun run_;
};

/// The ledger after two steps against the plan that was made from shapes alone.
TEST_F(DeviceMemory, OfARunIsWithinThreePercentOfItsPlan) {
  devices = 1;
  const auto alone = make_self_communicator();
  for (const std::vector<std::string>& settings : std::vector<std::vector<std::string>>{
           {"runtime.device=cuda"},
           {"runtime.device=cuda", "runtime.dtype=bf16", "adapter.dropout=0.1", "training.micro_batches=5"},
           {"runtime.device=cpu", "optimizer.name=adamw"},
           {"runtime.device=cpu", "adapter.targets=v,down", "training.micro_batches=3"}}) {
    const config::TrainConfig config = job(1, settings);
    const ModelSession session = ModelSession::open(session_options(config), *alone, true);
    const MemoryPlan plan =
        plan_memory(config, session.config(), session.ops(), session.device_steps(), Recompute::kNorms, kLongest);
    AdapterSet adapters(session.config(), adapter_options(config, session.config()),
                        session.files(), DType::kF32, session.host_memory());
    AdaptedModel model(session.weights(), &adapters, session.ops(), session.memory());
    const auto step = make_step(config, session, model, true, *alone, nullptr);
    std::optional<Decoder> decoder;
    make_decoder(decoder, model, session.ops(), session.memory(), {kTokens, kTokens, kLongest, true},
                 config::RecomputeLevel::kNorms, *alone);
    const std::vector<std::int32_t> ids(kLongest, 7);
    std::vector<std::int32_t> positions(kLongest);
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<std::int32_t> ends = {0, kLongest};
    for (int number = 1; number <= 2; ++number) {
      step->begin(static_cast<std::size_t>(config.training.micro_batches));
      for (std::size_t i = step->block().begin; i < step->block().end; ++i) {
        decoder->forward_backward({ids, ids, positions, ends}, 0.01, i);
        step->add(i);
      }
      step->finish(number, 1e-3);
    }
    double peak = 0;
    for (std::size_t i = 0; i < kScopes; ++i) {
      const auto bytes = static_cast<double>(session.memory().peak(static_cast<Scope>(i)));
      EXPECT_NEAR(bytes, static_cast<double>(plan.bytes[i]), 0.01 * static_cast<double>(plan.total()))
          << name_of(static_cast<Scope>(i)) << ", " << settings.front();
      peak += bytes;
    }
    EXPECT_NEAR(peak, static_cast<double>(plan.total()), 0.03 * static_cast<double>(plan.total()));
  }
}

TEST_F(DeviceMemory, TooLittleForTheWeightsIsToldWithWhatWouldFit) {
  device_bytes[0] = 1'200'000;
  const auto error = train(1);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->what(), AllOf(HasSubstr("out of memory on the GPU"), HasSubstr("for weights"),
                                   HasSubstr("1.2 MB of 1.2 MB are free"), HasSubstr("activations")));
  EXPECT_THAT(error->hint(), HasSubstr("dtype bf16 takes 0.8 MB"));
  device_bytes[0] = 1'000;
  const auto hopeless = train(1);
  ASSERT_TRUE(hopeless);
  EXPECT_THAT(hopeless->hint(), HasSubstr("a smaller model"));
  expect_nothing_written();
}

TEST_F(DeviceMemory, TooLittleForTheBuffersIsToldWithTheLevelThatFits) {
  device_bytes[0] = (needed(Recompute::kNone) + needed(Recompute::kBlock)) / 2;
  const auto error = train(1, {"training.recompute=none"});
  ASSERT_TRUE(error);
  EXPECT_THAT(error->what(),
              AllOf(HasSubstr("out of memory on the GPU"), HasSubstr("activations"), HasSubstr("this rank has taken")));
  EXPECT_THAT(error->hint(), AllOf(HasSubstr("training.recompute: "), HasSubstr(" instead of ")));
  expect_nothing_written();
}

TEST_F(DeviceMemory, TooLittleForAnyLevelIsToldWithTheTokensThatFit) {
  device_bytes[0] = needed(Recompute::kBlock) - (needed(Recompute::kBlock) - needed(Recompute::kBlock, 64)) / 4;
  const auto error = train(1);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->hint(), AllOf(HasSubstr("training.micro_batch_tokens: 64"), HasSubstr("training.recompute: ")));
  device_bytes[0] = needed(Recompute::kBlock, 64) * 9 / 10;
  const auto hopeless = train(1);
  ASSERT_TRUE(hopeless);
  EXPECT_THAT(hopeless->hint(), HasSubstr("no micro-batch fits"));
  expect_nothing_written();
}

TEST_F(DeviceMemory, OneRankWithTooLittleEndsAllWithItsMessage) {
  device_bytes[1] = needed(Recompute::kBlock) - (needed(Recompute::kBlock) - needed(Recompute::kBlock, 64)) / 4;
  const auto error = train(3);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->what(), AllOf(HasSubstr("rank 1"), HasSubstr("out of memory on the GPU")));
  EXPECT_THAT(error->hint(), HasSubstr("training."));
  expect_nothing_written();
}

TEST_F(DeviceMemory, TheRankWithTheLeastDecidesTheLevelAndTheResultIsTheSame) {
  ASSERT_FALSE(train(2));
  const std::string adapter = run_.adapter("out");
  EXPECT_THAT(run_.read("out/summary.json"), HasSubstr("\"recompute\": \"none\""));
  device_bytes[1] = (needed(Recompute::kNone) + needed(Recompute::kBlock)) / 2;
  ASSERT_FALSE(train(2, {"output.overwrite=true"}));
  EXPECT_THAT(run_.read("out/summary.json"), Not(HasSubstr("\"recompute\": \"none\"")));
  EXPECT_TRUE(run_.adapter("out") == adapter);
}

}  // namespace
}  // namespace lomu
