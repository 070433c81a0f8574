// The whole decoder, forward and backward, through the CUDA backend's own kernels in emulation, against Hugging Face's
// results: the same cases, errors and limits as `lomu verify model` on a device. Large products are plain loops here.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/verify/model_cases.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"

namespace lomu {
namespace {

class CudaModels : public testing::TestWithParam<const char*> {
 protected:
  static void expect_all_pass(const Precision& precision) {
    const auto folder = std::filesystem::path(LOMU_TEST_DATA) / "models" / GetParam();
    const auto device = cuda::make_emulated_device();
    Memory memory(device->storage());
    const auto ops = cuda::make_cuda_ops(precision, *device, memory);
    const auto checks = verify_model_cases(folder, {}, *ops, 1, memory);
    EXPECT_GT(checks.size(), 10U);
    for (const ModelCheck& check : checks) {
      EXPECT_TRUE(check.pass) << check.quantity << ": " << check.error << " of " << check.tolerance;
    }
  }
};

TEST_P(CudaModels, F32MeetsTheReference) {
  expect_all_pass(kF32Precision);
}

TEST_P(CudaModels, BF16StaysWithinItsRounding) {
  expect_all_pass(kBF16Precision);
}

INSTANTIATE_TEST_SUITE_P(Families, CudaModels,
                         testing::Values("llama-bias", "llama-tied", "llama3-rope-sharded", "mistral-window", "qwen2",
                                         "qwen3"),
                         [](const auto& name) {
                           std::string text = name.param;
                           std::replace(text.begin(), text.end(), '-', '_');
                           return text;
                         });

}  // namespace
}  // namespace lomu
