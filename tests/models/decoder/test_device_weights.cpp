// Quantised files on a device (in emulation): the rows go there as the file holds them, through a small buffer, and are
// expanded there to what the host reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "tests/models/decoder/quantised_gguf.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

/// Counts what crosses the bus.
class CountingStorage final : public Storage {
 public:
  explicit CountingStorage(Storage& inner) : inner_(inner) {}
  [[nodiscard]] bool on_host() const override { return false; }
  [[nodiscard]] StorageRoom room() const override { return inner_.room(); }
  std::byte* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(std::byte* data, std::size_t bytes) noexcept override { inner_.release(data, bytes); }
  void upload(void* to, const void* host, std::size_t bytes) override {
    sent += bytes;
    inner_.upload(to, host, bytes);
  }
  void download(void* host, const void* from, std::size_t bytes) override { inner_.download(host, from, bytes); }
  void zero(void* to, std::size_t bytes) override { inner_.zero(to, bytes); }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    inner_.copy_rows(to, to_pitch, from, from_pitch, row_bytes, rows);
  }

  std::atomic<std::size_t> sent = 0;

 private:
  Storage& inner_;
};

class CountingDevice final : public cuda::Device {
 public:
  [[nodiscard]] Storage& storage() override { return storage_; }
  [[nodiscard]] cuda::Stream stream() const override { return whole_->stream(); }
  [[nodiscard]] bool fast_float64() const override { return true; }
  [[nodiscard]] std::unique_ptr<cuda::MatrixProducts> make_products(Memory& memory) override {
    return whole_->make_products(memory);
  }
  [[nodiscard]] std::size_t sent() const { return storage_.sent; }

 private:
  std::unique_ptr<cuda::Device> whole_ = cuda::make_emulated_device();
  CountingStorage storage_{whole_->storage()};
};

constexpr std::int64_t kVocab = 33;
constexpr std::int64_t kManyRows = 8192;  // as many as a device takes at once

class DeviceWeights : public testing::TestWithParam<Precision> {
 protected:
  void open(std::int64_t vocab) {
    const auto path = folder_.path() / "model.gguf";
    write_quantised_gguf(path, vocab);
    files_.emplace(ModelFiles::open(path));
    ops_ = cuda::make_cuda_ops(GetParam(), device_, memory_);
  }

  /// Row by row what the host reads, rounded once.
  void expect_rows(WeightId id, const std::byte* rows, std::int64_t ld, DType dtype) const {
    const WeightShape shape = shape_of(files_->config(), id);
    std::vector<float> want(static_cast<std::size_t>(shape.size()));
    files_->read(id, want);
    const auto cols = static_cast<std::size_t>(shape.cols);
    std::vector<BF16> narrow(cols);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < shape.rows; ++i) {
      const float* row = want.data() + static_cast<std::size_t>(i) * cols;
      std::transform(row, row + cols, narrow.begin(), [](float x) { return BF16(x); });
      const void* expected = dtype == DType::kBF16 ? static_cast<const void*>(narrow.data()) : row;
      const std::size_t pitch = static_cast<std::size_t>(ld) * size_of(dtype);
      const std::byte* got = rows + static_cast<std::size_t>(i) * pitch;
      if (std::memcmp(got, expected, cols * size_of(dtype)) != 0) ++wrong;
      const auto is_set = [](std::byte b) { return b != std::byte{0}; };
      if (std::any_of(got + cols * size_of(dtype), got + pitch, is_set)) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << hf_name(id) << ", " << files_->stored_type(id) << ", of " << shape.rows << " rows";
  }

  TemporaryFolder folder_;
  std::optional<ModelFiles> files_;
  CountingDevice device_;
  Memory memory_{device_.storage()};
  std::unique_ptr<Ops> ops_;
};

TEST_P(DeviceWeights, AreBitForBitWhatTheHostReadsAndCrossTheBusAsTheFileHoldsThem) {
  open(kVocab);
  std::set<std::string> types;
  for (const WeightId id : weights_of(files_->config())) types.insert(files_->stored_type(id));
  ASSERT_EQ(types.size(), kAllEncodings.size());

  AdapterOptions adapter;
  adapter.rank = 3;
  adapter.targets = {Site::kQ, Site::kK, Site::kDown};
  const WeightsLayout layout(files_->config(), *ops_, true, plan_pairs(files_->config(), adapter));
  const Buffer region = memory_.allocate(Scope::kWeights, layout.bytes(), "weights");
  std::memset(region.data(), 0xff, region.size());
  const std::size_t before = device_.sent();
  layout.fill({region.data(), region.size()}, *files_, *ops_, 3, memory_);
  // The biases of q and k, put into another order, are sent as floats.
  const std::size_t widened = 2 * (256 + 128) * (sizeof(float) - sizeof(F16));
  EXPECT_EQ(device_.sent() - before, files_->stored_bytes() + widened);

  const ModelWeights w = layout.bind(region.data());
  const DType dtype = GetParam().activation;
  expect_rows({WeightKind::kEmbed, 0}, static_cast<const std::byte*>(w.embedding.data), 256, dtype);
  expect_rows({WeightKind::kLmHead, 0}, w.head.storage, 256, dtype);
  expect_rows({WeightKind::kFinalNorm, 0}, reinterpret_cast<const std::byte*>(w.final_norm), 256, DType::kF32);
  for (std::int64_t i = 0; i < files_->config().num_layers; ++i) {
    const LayerWeights& layer = w.layers[static_cast<std::size_t>(i)];
    for (const Site site : kAllSites) {
      const auto [group, part] = place_of(site);
      const AdaptedLinear& linear = layer.*group;
      EXPECT_EQ(linear.frozen.spare, group == &LayerWeights::qkv || group == &LayerWeights::down ? 64 : 0);
      const std::int64_t ld = linear.frozen.in + linear.frozen.spare;
      std::int64_t first = 0;
      for (std::size_t p = 0; p < part; ++p) first += linear.frozen.outs[p];
      expect_rows(weight_of(i, site), linear.frozen.storage + static_cast<std::size_t>(first * ld) * size_of(dtype), ld,
                  dtype);
      if (!has_bias(files_->config(), site)) continue;
      const WeightId bias = bias_of(i, site);
      expect_rows(bias, reinterpret_cast<const std::byte*>(linear.bias[part]), shape_of(files_->config(), bias).cols,
                  DType::kF32);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, DeviceWeights, testing::Values(kBF16Precision, kF32Precision),
                         [](const auto& precision) { return std::string(name_of(precision.param.activation)); });

class LargeDeviceWeights : public DeviceWeights {};

TEST_P(LargeDeviceWeights, NeedLittleRoomOnTheirWay) {
  open(kManyRows + 1);
  const WeightsLayout layout(files_->config(), *ops_, false);
  const Buffer region = memory_.allocate(Scope::kWeights, layout.bytes(), "weights");
  layout.fill({region.data(), region.size()}, *files_, *ops_, 2, memory_);
  EXPECT_EQ(memory_.current(Scope::kWorkspace), 0u);
  EXPECT_GT(memory_.peak(Scope::kWorkspace), 0u);
  // Two threads, each with some rows of one of the two largest matrices as they are stored.
  std::vector<std::byte> space;
  std::size_t most = 0;
  for (const WeightKind kind : {WeightKind::kEmbed, WeightKind::kLmHead}) {
    most = std::max(most, files_->encoded_rows({kind, 0}, 0, kManyRows, space).bytes());
  }
  EXPECT_LE(memory_.peak(Scope::kWorkspace), 2 * most);
  const ModelWeights w = layout.bind(region.data());
  expect_rows({WeightKind::kLmHead, 0}, w.head.storage, 256, GetParam().activation);
}

INSTANTIATE_TEST_SUITE_P(Precisions, LargeDeviceWeights, testing::Values(kBF16Precision),
                         [](const auto& precision) { return std::string(name_of(precision.param.activation)); });

}  // namespace
}  // namespace lomu::test
