#include "models/files/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "kernels/error.h"
#include "models/files/json_value.h"

namespace lomu {
namespace {

// The limit of the reference implementation (safetensors 0.8, MAX_HEADER_SIZE): a header this long holds a million
// tensors.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct TypeBits {
  std::string_view name;
  int bits;
};
// Every dtype of safetensors 0.8. Those that read_* refuse are listed so that their tensors can still be checked.
constexpr std::array kTypes{
    TypeBits{"BOOL", 8},    TypeBits{"F4", 4},          TypeBits{"F6_E2M3", 6},     TypeBits{"F6_E3M2", 6},
    TypeBits{"U8", 8},      TypeBits{"I8", 8},          TypeBits{"F8_E5M2", 8},     TypeBits{"F8_E4M3", 8},
    TypeBits{"F8_E8M0", 8}, TypeBits{"F8_E4M3FNUZ", 8}, TypeBits{"F8_E5M2FNUZ", 8}, TypeBits{"I16", 16},
    TypeBits{"U16", 16},    TypeBits{"F16", 16},        TypeBits{"BF16", 16},       TypeBits{"I32", 32},
    TypeBits{"U32", 32},    TypeBits{"F32", 32},        TypeBits{"C64", 64},        TypeBits{"F64", 64},
    TypeBits{"I64", 64},    TypeBits{"U64", 64},
};

std::string locate(const std::filesystem::path& path, std::string_view tensor) {
  return fmt::format("{}: {}", path.string(), tensor);
}

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename Stored, typename Out>
void widen(std::span<const std::byte> bytes, std::span<Out> out) {
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<Out>(load<Stored>(bytes.data() + i * sizeof(Stored)));
}

// 16-bit floats convert through float only.
template <typename Stored>
void widen_half(std::span<const std::byte> bytes, std::span<double> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<double>(static_cast<float>(load<Stored>(bytes.data() + i * sizeof(Stored))));
  }
}

[[noreturn]] void refuse_type(const std::filesystem::path& path, const SafetensorInfo& info, std::string_view wanted) {
  throw UnsupportedError(fmt::format("tensor of type {} cannot be read as {}", info.dtype, wanted),
                         locate(path, info.name), "convert the file to F32, F16 or BF16");
}

SafetensorInfo parse_entry(const std::string& name, const JsonValue& value, const std::filesystem::path& path,
                           std::uint64_t data_begin, std::uint64_t data_bytes) {
  const std::string where = locate(path, name);
  const JsonFields fields(value, where);
  SafetensorInfo info;
  info.name = name;

  const auto dtype = fields.string("dtype");
  if (!dtype) fields.wrong("dtype", "a string");
  info.dtype = *dtype;
  const auto type = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeBits& t) { return t.name == *dtype; });
  if (type == kTypes.end()) throw FormatError(fmt::format("unknown dtype \"{}\"", *dtype), where);

  const JsonValue* shape = fields.find("shape");
  if (shape == nullptr || shape->if_array() == nullptr) fields.wrong("shape", "a list of integers");
  info.elements = 1;
  for (const JsonValue& item : *shape->if_array()) {
    const std::int64_t* dim = item.if_integer();
    if (dim == nullptr || *dim < 0) fields.wrong("shape", "a list of integers that are not negative");
    info.shape.push_back(*dim);
  }
  // A zero makes the product zero whatever comes before it: multiply only when there is none.
  if (std::find(info.shape.begin(), info.shape.end(), 0) != info.shape.end()) {
    info.elements = 0;
  } else {
    for (const std::int64_t dim : info.shape) {
      if (__builtin_mul_overflow(info.elements, dim, &info.elements)) {
        throw FormatError(
            fmt::format("the shape [{}] has more elements than 63 bits can count", fmt::join(info.shape, ", ")), where);
      }
    }
  }
  std::int64_t bits = 0;
  if (__builtin_mul_overflow(info.elements, std::int64_t{type->bits}, &bits) || bits % 8 != 0) {
    throw FormatError(
        fmt::format("the shape [{}] of {} is no whole number of bytes in 63 bits", fmt::join(info.shape, ", "), *dtype),
        where);
  }

  const JsonValue* offsets = fields.find("data_offsets");
  const JsonArray* pair = offsets == nullptr ? nullptr : offsets->if_array();
  const bool two_integers =
      pair != nullptr && pair->size() == 2 && (*pair)[0].if_integer() != nullptr && (*pair)[1].if_integer() != nullptr;
  if (!two_integers) fields.wrong("data_offsets", "two integers");
  const std::int64_t begin = *(*pair)[0].if_integer();
  const std::int64_t end = *(*pair)[1].if_integer();
  if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > data_bytes) {
    throw FormatError(
        fmt::format("data_offsets [{}, {}] are outside the file's {} bytes of data", begin, end, data_bytes), where,
        "the file is cut short or damaged: fetch it again");
  }
  if (end - begin != bits / 8) {
    throw FormatError(fmt::format("{} of shape [{}] needs {} bytes, but data_offsets [{}, {}] give {}", *dtype,
                                  fmt::join(info.shape, ", "), bits / 8, begin, end, end - begin),
                      where);
  }
  info.begin = data_begin + static_cast<std::uint64_t>(begin);
  info.end = data_begin + static_cast<std::uint64_t>(end);
  return info;
}

// The format wants every byte to belong to exactly one tensor, so that nothing can hide in a file.
void check_layout(const std::vector<SafetensorInfo>& tensors, const std::filesystem::path& path,
                  std::uint64_t data_begin, std::uint64_t file_bytes) {
  std::vector<const SafetensorInfo*> order;
  for (const SafetensorInfo& info : tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](const SafetensorInfo* a, const SafetensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t expected = data_begin;
  const SafetensorInfo* previous = nullptr;
  for (const SafetensorInfo* info : order) {
    if (info->begin < expected) {
      throw FormatError(fmt::format("its data overlap those of {}", previous->name), locate(path, info->name));
    }
    if (info->begin > expected) {
      throw FormatError(fmt::format("{} bytes before its data belong to no tensor", info->begin - expected),
                        locate(path, info->name));
    }
    expected = info->end;
    previous = info;
  }
  if (expected != file_bytes) {
    throw FormatError(fmt::format("the last {} bytes belong to no tensor", file_bytes - expected), path.string(),
                      "the header and the data do not belong together: fetch the file again");
  }
}

}  // namespace

std::optional<DType> dtype_of(const SafetensorInfo& info) {
  if (info.dtype == "F32") return DType::kF32;
  if (info.dtype == "BF16") return DType::kBF16;
  if (info.dtype == "F16") return DType::kF16;
  if (info.dtype == "F64") return DType::kF64;
  if (info.dtype == "I32") return DType::kI32;
  return std::nullopt;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  parse_header();
}

void SafetensorsFile::parse_header() {
  const std::string where = path().string();
  const std::string hint = "is this a safetensors file, and was it fetched whole?";
  if (file_.size() < 8) {
    throw FormatError(
        fmt::format("a safetensors file begins with 8 bytes of header length; this one has {} bytes", file_.size()),
        where, hint);
  }
  const auto length = load<std::uint64_t>(file_.bytes().data());
  if (length > kMaxHeaderBytes || length > file_.size() - 8) {
    throw FormatError(fmt::format("the header length field says {} bytes, but the file has {}", length, file_.size()),
                      where, hint);
  }
  data_begin_ = 8 + static_cast<std::size_t>(length);
  const std::string_view text(reinterpret_cast<const char*>(file_.bytes().data()) + 8,
                              static_cast<std::size_t>(length));
  if (text.empty() || text.front() != '{') throw FormatError("the header does not begin with {", where, hint);
  const JsonValue header = parse_json(text, where, 4);

  const std::uint64_t data_bytes = file_.size() - data_begin_;
  for (const auto& [name, value] : *header.if_object()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_entry(name, value, path(), data_begin_, data_bytes));
      continue;
    }
    const JsonFields fields(value, locate(path(), name));
    for (const auto& [key, text_value] : *value.if_object()) {
      if (text_value.if_string() == nullptr) fields.wrong(key, "a string");
      metadata_[key] = *text_value.if_string();
    }
  }
  check_layout(tensors_, path(), data_begin_, file_.size());
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

const SafetensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const SafetensorInfo& info, std::string_view n) { return info.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

const SafetensorInfo& SafetensorsFile::at(std::string_view name) const {
  if (const SafetensorInfo* info = find(name)) return *info;
  throw FormatError("the file has no tensor of this name", locate(path(), name));
}

std::span<const std::byte> SafetensorsFile::raw(const SafetensorInfo& info) const {
  return file_.bytes().subspan(info.begin, info.end - info.begin);
}

void SafetensorsFile::read_f32(const SafetensorInfo& info, std::int64_t first, std::span<float> out) const {
  const auto dtype = dtype_of(info);
  if (!dtype || *dtype == DType::kF64 || *dtype == DType::kI32) refuse_type(path(), info, "f32");
  const auto count = static_cast<std::int64_t>(out.size());
  if (first < 0 || count > info.elements || first > info.elements - count) {
    throw FormatError(
        fmt::format("elements {} to {} were asked for; the tensor has {}", first, first + count, info.elements),
        locate(path(), info.name));
  }
  const std::size_t width = size_of(*dtype);
  const auto bytes = raw(info).subspan(static_cast<std::size_t>(first) * width, out.size() * width);
  if (out.empty()) return;
  switch (*dtype) {
    case DType::kF32: std::memcpy(out.data(), bytes.data(), bytes.size()); break;
    case DType::kF16: widen<F16>(bytes, out); break;
    default: widen<BF16>(bytes, out); break;
  }
}

const SafetensorInfo& SafetensorsFile::whole(std::string_view name, std::size_t elements) const {
  const SafetensorInfo& info = at(name);
  if (static_cast<std::uint64_t>(info.elements) != elements) {
    throw FormatError(
        fmt::format("{} elements were expected; its shape is [{}]", elements, fmt::join(info.shape, ", ")),
        locate(path(), name));
  }
  return info;
}

void SafetensorsFile::read_f32(std::string_view name, std::span<float> out) const {
  read_f32(whole(name, out.size()), 0, out);
}

void SafetensorsFile::read_f64(std::string_view name, std::span<double> out) const {
  const SafetensorInfo& info = whole(name, out.size());
  const auto dtype = dtype_of(info);
  if (!dtype || *dtype == DType::kI32) refuse_type(path(), info, "f64");
  switch (*dtype) {
    case DType::kF64: widen<double>(raw(info), out); break;
    case DType::kF32: widen<float>(raw(info), out); break;
    case DType::kF16: widen_half<F16>(raw(info), out); break;
    default: widen_half<BF16>(raw(info), out); break;
  }
}

void SafetensorsFile::read_i64(std::string_view name, std::span<std::int64_t> out) const {
  const SafetensorInfo& info = whole(name, out.size());
  if (info.dtype == "I64") {
    widen<std::int64_t>(raw(info), out);
  } else if (info.dtype == "I32") {
    widen<std::int32_t>(raw(info), out);
  } else {
    refuse_type(path(), info, "i64");
  }
}

void SafetensorsFile::read_i32(std::string_view name, std::span<std::int32_t> out) const {
  std::vector<std::int64_t> wide(out.size());
  read_i64(name, wide);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    if (wide[i] < std::numeric_limits<std::int32_t>::min() || wide[i] > std::numeric_limits<std::int32_t>::max()) {
      throw FormatError(fmt::format("element {} is {}, which 32 bits cannot hold", i, wide[i]), locate(path(), name));
    }
    out[i] = static_cast<std::int32_t>(wide[i]);
  }
}

SafetensorsSet::SafetensorsSet(std::vector<SafetensorsFile> files) : files_(std::move(files)) {
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorInfo& info : file.tensors()) {
      const auto [it, inserted] = entries_.emplace(info.name, Entry{&file, &info});
      if (!inserted) {
        throw FormatError(fmt::format("the tensor is in {} too", it->second.file->path().filename().string()),
                          locate(file.path(), info.name));
      }
    }
  }
}

SafetensorsSet SafetensorsSet::open(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  const fs::path single = folder / "model.safetensors";
  const fs::path index_path = folder / "model.safetensors.index.json";
  std::vector<SafetensorsFile> files;
  if (fs::exists(single)) {
    files.emplace_back(single);
    return SafetensorsSet(std::move(files));
  }
  if (!fs::exists(index_path)) {
    if (fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json")) {
      throw UnsupportedError("the weights are pickled (pytorch_model.bin)", folder.string(),
                             "save the model again with safe_serialization=True");
    }
    throw FileError("no weights here: neither model.safetensors nor model.safetensors.index.json", folder.string(),
                    "give the folder of a model, with config.json and its safetensors files");
  }

  const JsonValue index = read_json_file(index_path);
  const JsonFields fields(index, index_path.string());
  const JsonValue* weight_map = fields.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) fields.wrong("weight_map", "an object");
  std::map<std::string, std::vector<std::string>> tensors_by_file;
  for (const auto& [tensor, file] : *weight_map->if_object()) {
    const std::string* name = file.if_string();
    // A name with a folder in it could point anywhere on this machine.
    if (name == nullptr || name->empty() || fs::path(*name).filename() != *name || *name == "..") {
      throw FormatError("weight_map must name a file of the same folder", locate(index_path, tensor));
    }
    tensors_by_file[*name].push_back(tensor);
  }
  if (tensors_by_file.empty()) throw FormatError("weight_map is empty", index_path.string());
  for (const auto& [name, tensors] : tensors_by_file) {
    const SafetensorsFile& file = files.emplace_back(folder / name);
    for (const std::string& tensor : tensors) {
      if (file.find(tensor) != nullptr) continue;
      throw FormatError(fmt::format("the index says that this tensor is in {}, but it is not", name),
                        locate(index_path, tensor), "index and shards do not belong together: fetch the folder again");
    }
  }
  return SafetensorsSet(std::move(files));
}

std::optional<SafetensorsSet::Entry> SafetensorsSet::find(std::string_view name) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) return std::nullopt;
  return it->second;
}

}  // namespace lomu
