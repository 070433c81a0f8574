// What a build without cuDNN says.
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

constexpr const char* kRefusal = "not in this build";

}  // namespace

CudnnFacts cudnn_facts() {
  return {0, 0, kRefusal};
}

std::unique_ptr<AttentionGraphs> open_cudnn_attention(int, int, Stream) {
  return nullptr;
}

std::unique_ptr<AttentionGraphs> describe_cudnn_attention(const std::string&) {
  throw Error(kRefusal, "cuDNN");
}

std::string failed_cudnn_control(const std::string&) {
  throw Error(kRefusal, "cuDNN");
}

}  // namespace lomu::cuda
