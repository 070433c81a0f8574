// Makes GGUF files byte by byte, right or wrong, for tests of the reader.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace lomu::test {

class GgufBytes {
 public:
  template <typename T>
  GgufBytes& put(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
    return *this;
  }
  GgufBytes& raw(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  GgufBytes& string(std::string_view text) { return put(static_cast<std::uint64_t>(text.size())).raw(text); }

  GgufBytes& header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return raw("GGUF").put(version).put(tensors).put(keys);
  }
  GgufBytes& key_u32(std::string_view key, std::uint32_t value) { return string(key).put(4u).put(value); }
  GgufBytes& key_f32(std::string_view key, float value) { return string(key).put(6u).put(value); }
  GgufBytes& key_string(std::string_view key, std::string_view value) { return string(key).put(8u).string(value); }

  GgufBytes& tensor(std::string_view name, const std::vector<std::int64_t>& dims, std::uint32_t type,
                    std::uint64_t offset) {
    string(name).put(static_cast<std::uint32_t>(dims.size()));
    for (const std::int64_t dim : dims) put(dim);
    return put(type).put(offset);
  }
  GgufBytes& align(std::size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  GgufBytes& zeros(std::size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  GgufBytes& floats(const std::vector<float>& values) {
    for (const float value : values) put(value);
    return *this;
  }

  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace lomu::test
