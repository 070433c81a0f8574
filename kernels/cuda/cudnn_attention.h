// Attention graphs by cuDNN: flash attention over packed sequences. The one place that knows cuDNN; the library is
// loaded when it is first asked for, so that a program built with it runs where it is missing. No type of cuDNN is seen
// here.
//
// Graphs can be made for a described GPU that is not there: they then answer what they would there, refusal or memory,
// and cannot run. So a test without a GPU sees the very graphs that a device gets.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/attention_graphs.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

struct CudnnFacts {
  std::size_t built_with = 0;  ///< 91900 is 9.19.0; 0: a build without it
  std::size_t loaded = 0;      ///< the version that runs; 0: none
  std::string refusal;         ///< why none runs; empty if one does
};

/// Loads the library if it is there.
CudnnFacts cudnn_facts();

/// On the current device of the calling thread, of compute capability major.minor, on `stream`, which outlives the
/// result. Null where cudnn_facts() has a refusal.
std::unique_ptr<AttentionGraphs> open_cudnn_attention(int major, int minor, Stream stream);

/// For the GPU that `description` describes: the JSON text that launch/gpu-check saves. run() of the result throws.
/// Needs no GPU, but some libcuda.so.1: that of the toolkit's stubs will do. Throws Error without cuDNN, and for a text
/// that cuDNN does not take.
std::unique_ptr<AttentionGraphs> describe_cudnn_attention(const std::string& description);

/// Whether cuDNN itself refuses what it must on the described GPU, 8-bit integers forward and float32 backward; if not,
/// a yes of describe_cudnn_attention() means nothing. Empty: it does. Else what it said.
std::string failed_cudnn_control(const std::string& description);

}  // namespace lomu::cuda
