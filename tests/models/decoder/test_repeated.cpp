// Micro-batches of one shape on a device that replays what it has recorded: the same bits as without.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "models/decoder/decoder.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

/// The emulated device, counting what it replays.
class CountingDevice final : public cuda::Device {
 public:
  [[nodiscard]] Storage& storage() override { return whole_->storage(); }
  [[nodiscard]] cuda::Stream stream() const override { return whole_->stream(); }
  [[nodiscard]] bool fast_float64() const override { return whole_->fast_float64(); }
  [[nodiscard]] std::unique_ptr<cuda::MatrixProducts> make_products(Memory& memory) override {
    return whole_->make_products(memory);
  }
  [[nodiscard]] std::unique_ptr<cuda::StreamRecorder> make_recorder() override {
    return std::make_unique<Recorder>(whole_->make_recorder(), replays);
  }

  int replays = 0;

 private:
  struct Work final : cuda::RecordedWork {
    Work(std::unique_ptr<cuda::RecordedWork> w, int& count) : work(std::move(w)), replays(count) {}
    void replay() override {
      ++replays;
      work->replay();
    }
    std::unique_ptr<cuda::RecordedWork> work;
    int& replays;
  };
  struct Recorder final : cuda::StreamRecorder {
    Recorder(std::unique_ptr<cuda::StreamRecorder> r, int& count) : recorder(std::move(r)), replays(count) {}
    std::unique_ptr<cuda::RecordedWork> record(const std::function<void()>& body) override {
      auto work = recorder->record(body);
      return work ? std::make_unique<Work>(std::move(work), replays) : nullptr;
    }
    std::unique_ptr<cuda::StreamRecorder> recorder;
    int& replays;
  };
  std::unique_ptr<cuda::Device> whole_ = cuda::make_emulated_device();
};

struct Result {
  std::vector<double> numbers;  ///< losses and gradients of all micro-batches
  int replays = 0;
};

/// Micro-batches of two shapes in turn, with an evaluation and a change of factors in between.
Result run(const Precision& precision, bool recordings, double dropout = 0) {
  CountingDevice device;
  Memory memory(device.storage());
  cuda::CudaOptions choice;
  choice.recordings = recordings;
  const auto ops = cuda::make_cuda_ops(precision, device, memory, choice);
  AdapterOptions options;
  options.rank = 3;
  options.dropout = dropout;
  const TinyModel model("qwen3", *ops, true, options);
  Memory host;
  AdapterSet adapters(model.config(), options, model.files(), DType::kF32, host);
  randomize(adapters);
  AdaptedModel adapted(model.weights(), &adapters, *ops, memory);
  Decoder decoder(adapted, *ops, memory, {24, 24, 12, true});
  Result result;
  for (std::uint64_t i = 0; i < 4; ++i) {
    for (const std::vector<std::int64_t>& documents :
         {std::vector<std::int64_t>{9, 5}, std::vector<std::int64_t>{12}}) {
      RandomBatch batch(documents, i + 1);
      batch.labels = batch.ids;  // as many supervised tokens each time
      result.numbers.push_back(decoder.forward_backward(batch.view(), 0.25, i));
      adapted.fetch_gradients();
      const std::vector<double> gradients = gradients_of(adapters);
      result.numbers.insert(result.numbers.end(), gradients.begin(), gradients.end());
    }
    result.numbers.push_back(decoder.forward(RandomBatch({7, 3}, i).view()));
    for (float& x : adapters.factors()) x *= 1.125F;
    adapted.refresh();
  }
  result.replays = device.replays;
  return result;
}

TEST(RepeatedMicroBatches, AreReplayedWithTheSameBits) {
  for (const Precision& precision : {kF32Precision, kBF16Precision}) {
    const Result replayed = run(precision, true);
    const Result computed = run(precision, false);
    EXPECT_EQ(replayed.numbers, computed.numbers);
    EXPECT_EQ(replayed.replays, 4);  // the third and fourth of both shapes
    EXPECT_EQ(computed.replays, 0);
  }
}

TEST(RepeatedMicroBatches, WithDropoutAreComputedEveryTime) {
  const Result with = run(kF32Precision, true, 0.2);
  EXPECT_EQ(with.replays, 0);
  EXPECT_EQ(with.numbers, run(kF32Precision, false, 0.2).numbers);
}

}  // namespace
}  // namespace lomu::test
