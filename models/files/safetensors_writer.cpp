#include "models/files/safetensors_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/error.h"

namespace lomu {
namespace {

std::string_view format_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "F32";
    case DType::kF16: return "F16";
    case DType::kBF16: return "BF16";
    case DType::kI32: return "I32";
    case DType::kF64: break;
  }
  return "";
}

template <typename Stored>
void narrow_to(std::span<const float> values, std::span<std::byte> out, const std::string& where) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Stored stored(values[i]);
    if (std::isinf(static_cast<float>(stored)) && std::isfinite(values[i])) {
      throw NumericError(fmt::format("{} is beyond the range of the 16-bit type it is to be stored as", values[i]),
                         where, "store it as bf16 or f32");
    }
    std::memcpy(out.data() + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

std::string header_of(const std::vector<TensorSpec>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";
  std::uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    nlohmann::ordered_json& entry = header[tensor.name];
    entry["dtype"] = format_name(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {offset, offset + tensor.bytes()};
    offset += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data begin on a multiple of 8
  return text;
}

std::vector<TensorSpec> checked(std::vector<TensorSpec> tensors, const std::filesystem::path& path) {
  std::set<std::string_view> names;
  for (const TensorSpec& tensor : tensors) {
    const std::string where = fmt::format("{}: {}", path.string(), tensor.name);
    if (format_name(tensor.dtype).empty()) {
      throw UsageError(fmt::format("tensors of type {} are not written", name_of(tensor.dtype)), where);
    }
    if (!names.insert(tensor.name).second) throw UsageError("two tensors have this name", where);
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorSpec& a, const TensorSpec& b) { return size_of(a.dtype) > size_of(b.dtype); });
  return tensors;
}

}  // namespace

std::int64_t TensorSpec::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  return count;
}

std::uint64_t TensorSpec::bytes() const {
  return static_cast<std::uint64_t>(elements()) * size_of(dtype);
}

void narrow(std::span<const float> values, DType dtype, std::span<std::byte> out, const std::string& where) {
  if (out.size() != values.size() * size_of(dtype)) {
    throw UsageError(
        fmt::format("{} values of {} need another buffer than {} bytes", values.size(), name_of(dtype), out.size()),
        where);
  }
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
      break;
    case DType::kF16: narrow_to<F16>(values, out, where); break;
    case DType::kBF16: narrow_to<BF16>(values, out, where); break;
    default: throw UsageError(fmt::format("floats cannot be stored as {}", name_of(dtype)), where);
  }
}

float stored_value(float value, DType dtype) {
  switch (dtype) {
    case DType::kF16: return static_cast<float>(F16(value));
    case DType::kBF16: return static_cast<float>(BF16(value));
    default: return value;
  }
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors)
    : path_(path), tensors_(checked(std::move(tensors), path)), file_(path) {
  const std::string header = header_of(tensors_);
  std::array<std::byte, 8> length{};
  for (std::size_t i = 0; i < length.size(); ++i) length[i] = static_cast<std::byte>(header.size() >> (8 * i));
  file_.write(length);
  file_.write(header);
  skip_empty();
}

void SafetensorsWriter::skip_empty() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].elements()) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::advance(std::size_t count, bool as_integers) {
  if (current_ == tensors_.size()) throw UsageError("more values than the header announced", path_.string());
  const TensorSpec& tensor = tensors_[current_];
  const std::string where = fmt::format("{}: {}", path_.string(), tensor.name);
  if ((tensor.dtype == DType::kI32) != as_integers) {
    throw UsageError(fmt::format("values of another kind than {}", name_of(tensor.dtype)), where);
  }
  if (static_cast<std::int64_t>(count) > tensor.elements() - written_) {
    throw UsageError(fmt::format("{} values after {}, but it has {} elements", count, written_, tensor.elements()),
                     where);
  }
  written_ += static_cast<std::int64_t>(count);
}

void SafetensorsWriter::write(std::span<const float> values) {
  if (values.empty()) return;
  advance(values.size(), false);
  const TensorSpec& tensor = tensors_[current_];
  if (tensor.dtype == DType::kF32) {
    file_.write(std::as_bytes(values));
  } else {
    narrowed_.resize(values.size() * size_of(tensor.dtype));
    narrow(values, tensor.dtype, narrowed_, fmt::format("{}: {}", path_.string(), tensor.name));
    file_.write(narrowed_);
  }
  skip_empty();
}

void SafetensorsWriter::write(std::span<const std::int32_t> values) {
  if (values.empty()) return;
  advance(values.size(), true);
  file_.write(std::as_bytes(values));
  skip_empty();
}

void SafetensorsWriter::commit() {
  if (current_ != tensors_.size()) {
    throw UsageError(fmt::format("only {} of {} elements were written", written_, tensors_[current_].elements()),
                     fmt::format("{}: {}", path_.string(), tensors_[current_].name));
  }
  file_.commit();
}

FileShardPlan plan_file_shards(std::vector<TensorSpec> tensors, std::uint64_t max_bytes) {
  FileShardPlan plan;
  std::uint64_t total = 0;
  std::uint64_t in_shard = 0;
  for (TensorSpec& tensor : tensors) {
    const std::uint64_t bytes = tensor.bytes();
    if (plan.shards.empty() || (in_shard > 0 && in_shard + bytes > max_bytes)) {
      plan.shards.emplace_back();
      in_shard = 0;
    }
    in_shard += bytes;
    total += bytes;
    plan.shards.back().tensors.push_back(std::move(tensor));
  }
  if (plan.shards.size() == 1) {
    plan.shards.front().file = "model.safetensors";
    return plan;
  }
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total;
  for (std::size_t i = 0; i < plan.shards.size(); ++i) {
    FileShardPlan::Shard& shard = plan.shards[i];
    shard.file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, plan.shards.size());
    for (const TensorSpec& tensor : shard.tensors) index["weight_map"][tensor.name] = shard.file;
  }
  plan.index = index.dump(2) + "\n";
  return plan;
}

}  // namespace lomu
