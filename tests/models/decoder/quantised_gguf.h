// A small random model as a GGUF file, each of its weights in another encoding: enough rows that loading cuts them,
// wide enough for the largest blocks, with the interleaved q and k (and biases) of llama.cpp's converter.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/encoded_rows.h"
#include "kernels/philox.h"
#include "models/files/ggml_types.h"
#include "models/files/names.h"
#include "tests/models/files/gguf_bytes.h"

namespace lomu::test {

inline constexpr std::array kAllEncodings{Encoding::kF32,  Encoding::kF16,  Encoding::kBF16, Encoding::kQ8_0,
                                          Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ5_0, Encoding::kQ5_1,
                                          Encoding::kQ4_K, Encoding::kQ6_K};

/// Hidden 256, 4 heads over 2, two layers with biases at q, k and v, a head of its own.
inline ModelConfig quantised_config(std::int64_t vocab) {
  ModelConfig config;
  config.architecture = Architecture::kLlama;
  config.hidden_size = 256;
  config.intermediate_size = 256;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = vocab;
  config.qkv_bias = true;
  return config;
}

/// Random bits with scales of ordinary size.
inline std::string random_rows(Encoding encoding, std::int64_t elements, std::uint64_t stream) {
  const BlockSize block = block_of(encoding);
  std::string bytes(static_cast<std::size_t>(elements / block.elements * block.bytes), '\0');
  const auto random = [&](std::size_t i) { return Philox(3, Purpose::kTest).bits(stream, i); };
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(random(i));
  const auto value = [&](std::size_t i) { return static_cast<float>(random(i) % 2001) * 1e-4F - 0.1F; };
  const auto put = [&](std::size_t at, const auto& x) { std::memcpy(bytes.data() + at, &x, sizeof x); };
  for (std::size_t i = 0; i < static_cast<std::size_t>(elements / block.elements); ++i) {
    const std::size_t at = i * static_cast<std::size_t>(block.bytes);
    switch (encoding) {
      case Encoding::kF32: put(at, value(i)); break;
      case Encoding::kBF16: put(at, BF16(value(i))); break;
      case Encoding::kQ6_K: put(at + 208, F16(value(i) / 100)); break;
      case Encoding::kQ4_1:
      case Encoding::kQ5_1:
      case Encoding::kQ4_K: put(at + 2, F16(value(i + 1) / 10)); [[fallthrough]];
      default: put(at, F16(encoding == Encoding::kF16 ? value(i) : value(i) / 10));
    }
  }
  return bytes;
}

/// Writes the model. Norms are f32 as in every file, biases f16.
inline void write_quantised_gguf(const std::filesystem::path& path, std::int64_t vocab) {
  const ModelConfig config = quantised_config(vocab);
  const std::vector<WeightId> weights = weights_of(config);
  GgufBytes file;
  file.header(weights.size(), 8);
  file.key_string("general.architecture", "llama");
  file.key_u32("llama.block_count", 2).key_u32("llama.context_length", 64);
  file.key_u32("llama.embedding_length", 256).key_u32("llama.feed_forward_length", 256);
  file.key_u32("llama.attention.head_count", 4).key_u32("llama.attention.head_count_kv", 2);
  file.key_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  std::string data;
  std::size_t matrices = 0;
  for (const WeightId id : weights) {
    const WeightShape shape = shape_of(config, id);
    std::vector<std::int64_t> dims = shape.dims();
    std::reverse(dims.begin(), dims.end());
    const bool bias = id.kind == WeightKind::kQBias || id.kind == WeightKind::kKBias || id.kind == WeightKind::kVBias;
    const Encoding encoding = bias           ? Encoding::kF16
                              : shape.vector ? Encoding::kF32
                                             : kAllEncodings.at((7 + 3 * matrices++) % kAllEncodings.size());
    std::uint32_t number = 0;
    while (!ggml_type_info(number) || ggml_type_info(number)->encoding != encoding) ++number;
    data.resize((data.size() + 31) / 32 * 32, '\0');
    file.tensor(gguf_name(id), dims, number, data.size());
    data += random_rows(encoding, shape.size(), data.size());
  }
  file.align().raw(data);
  std::ofstream(path, std::ios::binary) << file.bytes();
}

}  // namespace lomu::test
