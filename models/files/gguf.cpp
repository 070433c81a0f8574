#include "models/files/gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "kernels/dequantize.h"
#include "kernels/error.h"

namespace lomu {
namespace {

enum class ValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

constexpr std::string_view kDamaged = "the file is cut short or damaged: fetch it again";
constexpr int kMaxArrayDepth = 4;
constexpr std::uint32_t kMaxDims = 4;          // GGML_MAX_DIMS
constexpr std::uint64_t kMinKeyBytes = 13;     // length, type, one byte of value
constexpr std::uint64_t kMinTensorBytes = 24;  // name length, dimension count, type, offset

// f32 metadata were written from decimal numbers: 1e-5 becomes 9.99999975e-06 as a double unless one goes back.
double shortest_decimal(float value) {
  std::array<char, 32> text{};
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = value;
  std::from_chars(text.data(), written.ptr, result);
  return result;
}

// Walks the header. Every take checks what is left of the file first.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}

  [[nodiscard]] std::size_t position() const { return position_; }
  [[nodiscard]] std::uint64_t left() const { return bytes_.size() - position_; }
  void set_context(std::string context) { context_ = std::move(context); }
  [[nodiscard]] std::string where() const { return context_.empty() ? path_ : fmt::format("{}: {}", path_, context_); }

  [[noreturn]] void fail(std::string what) const {
    throw FormatError(fmt::format("{} (byte {})", what, position_), where(), std::string(kDamaged));
  }

  template <typename T>
  T take() {
    if (left() < sizeof(T)) fail("the file ends inside its header");
    T value{};
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string take_string() {
    const auto length = take<std::uint64_t>();
    if (length > left()) fail(fmt::format("a string of {} bytes does not fit the {} bytes left", length, left()));
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + position_, static_cast<std::size_t>(length));
    position_ += static_cast<std::size_t>(length);
    return text;
  }

  /// A number of things of at least `min_bytes` each.
  std::uint64_t take_count(std::string_view things, std::uint64_t min_bytes) {
    const auto count = take<std::uint64_t>();
    check_count(count, things, min_bytes);
    return count;
  }

  void check_count(std::uint64_t count, std::string_view things, std::uint64_t min_bytes) const {
    if (count > left() / min_bytes) fail(fmt::format("{} {} do not fit the {} bytes left", count, things, left()));
  }

  std::int64_t take_integer(ValueType type) {
    switch (type) {
      case ValueType::kU8: return take<std::uint8_t>();
      case ValueType::kI8: return take<std::int8_t>();
      case ValueType::kU16: return take<std::uint16_t>();
      case ValueType::kI16: return take<std::int16_t>();
      case ValueType::kU32: return take<std::uint32_t>();
      case ValueType::kI32: return take<std::int32_t>();
      case ValueType::kI64: return take<std::int64_t>();
      case ValueType::kU64: break;
      default: fail("not an integer type");
    }
    const auto value = take<std::uint64_t>();
    if (value > static_cast<std::uint64_t>(INT64_MAX)) fail(fmt::format("the number {} is beyond 63 bits", value));
    return static_cast<std::int64_t>(value);
  }

  bool take_bool() {
    const auto value = take<std::uint8_t>();
    if (value > 1) fail(fmt::format("a boolean must be 0 or 1, not {}", value));
    return value == 1;
  }

  ValueType take_type() {
    const auto number = take<std::uint32_t>();
    if (number > static_cast<std::uint32_t>(ValueType::kF64)) fail(fmt::format("unknown value type {}", number));
    return static_cast<ValueType>(number);
  }

  GgufValue take_value(ValueType type) {
    switch (type) {
      case ValueType::kString: return take_string();
      case ValueType::kBool: return take_bool();
      case ValueType::kF32: return shortest_decimal(take<float>());
      case ValueType::kF64: return take<double>();
      case ValueType::kArray: return take_array(1);
      default: return take_integer(type);
    }
  }

 private:
  static std::uint64_t min_bytes(ValueType type) {
    switch (type) {
      case ValueType::kU8:
      case ValueType::kI8:
      case ValueType::kBool: return 1;
      case ValueType::kU16:
      case ValueType::kI16: return 2;
      case ValueType::kU32:
      case ValueType::kI32:
      case ValueType::kF32: return 4;
      case ValueType::kArray: return 12;
      default: return 8;
    }
  }

  GgufArray take_array(int depth) {
    if (depth > kMaxArrayDepth) fail(fmt::format("arrays are nested deeper than {} levels", kMaxArrayDepth));
    const ValueType type = take_type();
    const std::uint64_t count = take_count("array elements", min_bytes(type));
    switch (type) {
      case ValueType::kString: return fill<std::string>(count, [&] { return take_string(); });
      case ValueType::kArray: return fill<GgufArray>(count, [&] { return take_array(depth + 1); });
      case ValueType::kF32: return fill<double>(count, [&] { return double{take<float>()}; });
      case ValueType::kF64: return fill<double>(count, [&] { return take<double>(); });
      case ValueType::kBool: return fill<std::int64_t>(count, [&] { return std::int64_t{take_bool()}; });
      default: return fill<std::int64_t>(count, [&] { return take_integer(type); });
    }
  }

  template <typename T, typename Take>
  static GgufArray fill(std::uint64_t count, Take take_one) {
    std::vector<T> items;
    items.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) items.push_back(take_one());
    return GgufArray{std::move(items)};
  }

  std::span<const std::byte> bytes_;
  std::string path_;
  std::string context_;
  std::size_t position_ = 0;
};

std::uint32_t take_version(Cursor& cursor, const std::string& path) {
  const auto magic = cursor.take<std::array<char, 4>>();
  if (std::string_view(magic.data(), magic.size()) != "GGUF") {
    throw FormatError("the file does not begin with GGUF", path,
                      "give a .gguf file, or the folder of a Hugging Face model");
  }
  const auto version = cursor.take<std::uint32_t>();
  if (version == 2 || version == 3) return version;
  if ((version & 0xffffu) == 0 && version != 0) {
    throw UnsupportedError("big-endian GGUF file", path, "convert it to little-endian");
  }
  throw UnsupportedError(fmt::format("GGUF version {}", version), path,
                         "versions 2 and 3 are read; convert the file again");
}

// Offsets in the table count from the start of the data, which is not known before the whole table has been read.
GgufTensor take_tensor(Cursor& cursor) {
  GgufTensor tensor;
  tensor.name = cursor.take_string();
  cursor.set_context(tensor.name);
  const auto dims = cursor.take<std::uint32_t>();
  if (dims == 0 || dims > kMaxDims) cursor.fail(fmt::format("a tensor has 1 to {} dimensions, not {}", kMaxDims, dims));
  tensor.elements = 1;
  for (std::uint32_t i = 0; i < dims; ++i) {
    const auto dim = cursor.take<std::int64_t>();
    if (dim <= 0) cursor.fail(fmt::format("dimension {} is {}; it must be positive", i, dim));
    tensor.dims.push_back(dim);
    if (__builtin_mul_overflow(tensor.elements, dim, &tensor.elements)) {
      cursor.fail(fmt::format("the shape [{}] has more elements than 63 bits can count", fmt::join(tensor.dims, ", ")));
    }
  }
  const auto type = cursor.take<std::uint32_t>();
  const auto info = ggml_type_info(type);
  if (!info) throw UnsupportedError(fmt::format("GGUF tensor type number {}", type), cursor.where());
  tensor.type = *info;
  if (tensor.dims[0] % info->block_elements != 0) {
    cursor.fail(fmt::format("rows of {} elements are no whole number of {} blocks of {}", tensor.dims[0], info->name,
                            info->block_elements));
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(tensor.elements / info->block_elements, info->block_bytes, &bytes)) {
    cursor.fail(fmt::format("the shape [{}] has more bytes than 63 bits can count", fmt::join(tensor.dims, ", ")));
  }
  tensor.bytes = static_cast<std::uint64_t>(bytes);
  tensor.begin = cursor.take<std::uint64_t>();
  return tensor;
}

void check_no_overlap(const std::map<std::string, GgufTensor, std::less<>>& tensors, const std::string& path) {
  std::vector<const GgufTensor*> order;
  order.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) { return a->begin < b->begin; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (order[i]->begin < order[i - 1]->begin + order[i - 1]->bytes) {
      throw FormatError(fmt::format("its data overlap those of {}", order[i - 1]->name),
                        fmt::format("{}: {}", path, order[i]->name), std::string(kDamaged));
    }
  }
}

}  // namespace

std::size_t GgufArray::size() const {
  return std::visit([](const auto& list) { return list.size(); }, items);
}

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) {
  const std::string where = path.string();
  Cursor cursor(file_.bytes(), where);
  version_ = take_version(cursor, where);
  const std::uint64_t tensor_count = cursor.take_count("tensors", kMinTensorBytes);
  const std::uint64_t key_count = cursor.take_count("metadata keys", kMinKeyBytes);

  for (std::uint64_t i = 0; i < key_count; ++i) {
    cursor.set_context(fmt::format("metadata key {}", i));
    std::string key = cursor.take_string();
    cursor.set_context(key);
    const ValueType type = cursor.take_type();
    GgufValue value = cursor.take_value(type);
    if (!metadata_.emplace(std::move(key), std::move(value)).second) cursor.fail("the key appears twice");
  }
  if (integer("split.count").value_or(1) > 1) {
    throw UnsupportedError("GGUF split over several files (split.count)", where,
                           "merge it with llama-gguf-split --merge");
  }
  const std::int64_t alignment = integer("general.alignment").value_or(32);
  if (alignment <= 0 || alignment > (std::int64_t{1} << 30) || (alignment & (alignment - 1)) != 0) {
    throw FormatError(fmt::format("general.alignment must be a power of two, not {}", alignment), where);
  }

  std::vector<GgufTensor> table;
  cursor.set_context({});
  cursor.check_count(tensor_count, "tensors", kMinTensorBytes);
  table.reserve(static_cast<std::size_t>(tensor_count));
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    cursor.set_context(fmt::format("tensor {}", i));
    table.push_back(take_tensor(cursor));
  }

  const auto align = static_cast<std::uint64_t>(alignment);
  const std::uint64_t data_begin = (cursor.position() + align - 1) / align * align;
  if (data_begin > file_.size() && !table.empty()) {
    throw FormatError("the file ends before its tensor data", where, std::string(kDamaged));
  }
  data_begin_ = static_cast<std::size_t>(std::min<std::uint64_t>(data_begin, file_.size()));
  const std::uint64_t data_bytes = file_.size() - data_begin_;
  for (GgufTensor& tensor : table) {
    const std::string tensor_where = fmt::format("{}: {}", where, tensor.name);
    if (tensor.begin % align != 0) {
      throw FormatError(fmt::format("its offset {} is not a multiple of the alignment {}", tensor.begin, align),
                        tensor_where);
    }
    if (tensor.begin > data_bytes || tensor.bytes > data_bytes - tensor.begin) {
      throw FormatError(fmt::format("offset {} and {} bytes are outside the file's {} bytes of data", tensor.begin,
                                    tensor.bytes, data_bytes),
                        tensor_where, std::string(kDamaged));
    }
    tensor.begin += data_begin_;
    std::string name = tensor.name;
    if (!tensors_.emplace(std::move(name), std::move(tensor)).second) {
      throw FormatError("two tensors have this name", tensor_where);
    }
  }
  check_no_overlap(tensors_, where);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

bool GgufFile::has(std::string_view key) const {
  return metadata_.find(key) != metadata_.end();
}

template <typename T>
const T* GgufFile::get(std::string_view key, std::string_view expected) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return nullptr;
  if (const T* value = std::get_if<T>(&it->second)) return value;
  throw FormatError(fmt::format("the metadata key {} must be {}", key, expected), path().string());
}

template <typename T>
const std::vector<T>* GgufFile::get_array(std::string_view key, std::string_view expected) const {
  const auto* array = get<GgufArray>(key, expected);
  if (array == nullptr) return nullptr;
  if (const auto* items = std::get_if<std::vector<T>>(&array->items)) return items;
  throw FormatError(fmt::format("the metadata key {} must be {}", key, expected), path().string());
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const auto* value = get<std::int64_t>(key, "an integer");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it != metadata_.end()) {
    if (const auto* integer = std::get_if<std::int64_t>(&it->second)) return static_cast<double>(*integer);
  }
  const auto* value = get<double>(key, "a number");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const auto* value = get<bool>(key, "a boolean");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<std::string> GgufFile::string(std::string_view key) const {
  const auto* value = get<std::string>(key, "a string");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

const std::vector<std::string>* GgufFile::strings(std::string_view key) const {
  return get_array<std::string>(key, "a list of strings");
}
const std::vector<std::int64_t>* GgufFile::integers(std::string_view key) const {
  return get_array<std::int64_t>(key, "a list of integers");
}
const std::vector<double>* GgufFile::numbers(std::string_view key) const {
  return get_array<double>(key, "a list of numbers");
}

std::span<const std::byte> GgufFile::raw(const GgufTensor& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.bytes);
}

void GgufFile::read_f32(const GgufTensor& tensor, std::int64_t first, std::span<float> out) const {
  const auto where = [&] { return fmt::format("{}: {}", path().string(), tensor.name); };
  if (!tensor.type.encoding) {
    throw UnsupportedError(fmt::format("GGUF tensor type {}", tensor.type.name), where(),
                           "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q6_K are read");
  }
  const auto count = static_cast<std::int64_t>(out.size());
  const std::int64_t block = tensor.type.block_elements;
  if (first < 0 || count > tensor.elements || first > tensor.elements - count || first % block != 0 ||
      count % block != 0) {
    throw FormatError(fmt::format("elements {} to {} were asked for; the tensor has {} in blocks of {}", first,
                                  first + count, tensor.elements, block),
                      where());
  }
  const auto block_bytes = static_cast<std::size_t>(tensor.type.block_bytes);
  const auto blocks = raw(tensor).subspan(static_cast<std::size_t>(first / block) * block_bytes,
                                          static_cast<std::size_t>(count / block) * block_bytes);
  dequantize(*tensor.type.encoding, blocks, out);
}

}  // namespace lomu
