#include "kernels/cuda/algorithm_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include "kernels/error.h"

namespace lomu::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTitle = "lomu matrix products 1";
constexpr std::size_t kLargestFile = std::size_t{4} << 20;  // some 25,000 shapes: a run meets a few dozen

std::int64_t rounded_size(std::int64_t size) {
  const int bits = std::bit_width(static_cast<std::uint64_t>(size));
  const int low_bits = std::max(0, bits - 3);
  return ((size - 1) >> low_bits << low_bits) + (std::int64_t{1} << low_bits);
}

/// The largest power of two up to 16 that divides the address of every row.
std::uint64_t row_alignment(const void* data, std::int64_t ld, DType type) {
  const std::uint64_t bits =
      reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uint64_t>(ld) * size_of(type) | 16;
  return bits & (~bits + 1);
}

/// FNV-1a, 64 bits.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string closing_line(std::string_view text) {
  return fmt::format("end {:016x}\n", hash_of(text));
}

/// The first line of `text` without its end, cut off; throws when there is none.
std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) throw FormatError("it ends in the middle of a line");
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

/// Reads the whole file; none: it is not there. Throws FormatError and FileError.
std::optional<std::string> read_small_file(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error == std::errc::no_such_file_or_directory) return std::nullopt;
  if (error) throw FileError(error.message());
  if (size > kLargestFile) throw FormatError("it is too large");
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad() || !file.is_open()) throw FileError("it cannot be read");
  return text;
}

/// Not synced to the disk: what a crash of the machine takes is measured again in a second.
void replace_file(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  const fs::path temporary = fmt::format("{}.{}", path.string(), getpid());
  std::ofstream file(temporary, std::ios::binary);
  file << text;
  file.close();
  std::error_code error;
  if (file) fs::rename(temporary, path, error);
  if (file && !error) return;
  std::error_code ignored;
  fs::remove(temporary, ignored);
  throw FileError(error ? error.message() : "it cannot be written");
}

}  // namespace

std::string shape_text(const Product& p) {
  return fmt::format("{}x{}x{},{}>{},{}{}{}{},{}.{}.{}.{}", rounded_size(p.m), rounded_size(p.k), rounded_size(p.n),
                     name_of(p.operand), name_of(p.result), p.a.transposed ? 't' : 'n', p.b.transposed ? 't' : 'n',
                     p.beta != 0 ? '+' : '-', p.bias != nullptr ? 'b' : '-', row_alignment(p.a.data, p.a.ld, p.operand),
                     row_alignment(p.b.data, p.b.ld, p.operand), row_alignment(p.addend(), p.addend_ld(), p.result),
                     row_alignment(p.d, p.ldd, p.result));
}

std::string cache_text(const AlgorithmCache::Table& table, std::string_view environment) {
  std::string text = fmt::format("{}\n{}\n", kTitle, environment);
  for (const auto& [shape, algorithm] : table) {
    text += fmt::format("{} {:016x}\n", shape, fmt::join(algorithm, " "));
  }
  return text + closing_line(text);
}

AlgorithmCache::Table parse_cache(std::string_view text, std::string_view environment) {
  std::string_view rest = text;
  if (take_line(rest) != kTitle) throw FormatError("it is not a table of matrix products");
  if (const auto theirs = take_line(rest); theirs != environment) {
    throw FormatError(fmt::format("it is of another environment, {:.100}", theirs));
  }
  AlgorithmCache::Table table;
  for (;;) {
    const auto before = static_cast<std::size_t>(rest.data() - text.data());
    const std::string_view line = take_line(rest);
    if (line.starts_with("end ")) {
      if (!rest.empty() || text.substr(before) != closing_line(text.substr(0, before))) {
        throw FormatError("its checksum is wrong");
      }
      return table;
    }
    std::string_view left = line.substr(std::min(line.size(), line.find(' ')));
    AlgorithmCache::Algorithm algorithm{};
    for (std::uint64_t& word : algorithm) {
      if (left.size() < 17 || left.front() != ' ') throw FormatError(fmt::format("a bad line: {:.100}", line));
      const char* const end = left.data() + 17;
      const auto [stop, error] = std::from_chars(left.data() + 1, end, word, 16);
      if (error != std::errc() || stop != end) throw FormatError(fmt::format("a bad line: {:.100}", line));
      left.remove_prefix(17);
    }
    if (!left.empty() || line.front() == ' ') throw FormatError(fmt::format("a bad line: {:.100}", line));
    table.insert_or_assign(std::string(line.substr(0, line.find(' '))), algorithm);
  }
}

AlgorithmCache::AlgorithmCache(fs::path file, std::string environment, Warn warn)
    : file_(std::move(file)), environment_(std::move(environment)), warn_(std::move(warn)) {
  std::replace(environment_.begin(), environment_.end(), '\n', ' ');
  if (file_.empty()) return;
  try {
    if (const auto text = read_small_file(file_)) table_ = parse_cache(*text, environment_);
  } catch (const Error& error) {
    report(fmt::format("{} is not used: {}", file_.string(), error.what()));
  }
}

std::optional<AlgorithmCache::Algorithm> AlgorithmCache::find(std::string_view shape) const {
  const auto found = table_.find(shape);
  if (found == table_.end()) return std::nullopt;
  return found->second;
}

void AlgorithmCache::add(std::string shape, const Algorithm& algorithm) {
  table_.insert_or_assign(std::move(shape), algorithm);
  changed_ = true;
}

void AlgorithmCache::save() noexcept {
  if (!changed_ || file_.empty()) return;
  changed_ = false;
  try {
    Table all = table_;
    try {
      if (const auto text = read_small_file(file_)) all.merge(parse_cache(*text, environment_));
    } catch (const Error&) {
      // What cannot be used is replaced; the constructor has spoken of it.
    }
    replace_file(file_, cache_text(all, environment_));
  } catch (const std::exception& error) {
    try {
      report(fmt::format("{} is not written: {}", file_.string(), error.what()));
    } catch (...) {
      // A warning that cannot be given is no reason to end a run.
    }
  }
}

void AlgorithmCache::report(const std::string& text) {
  if (warn_) warn_(text);
  warn_ = nullptr;
}

fs::path default_cache_file(std::string_view environment, const std::function<const char*(const char*)>& variable) {
  const auto folder = [&](const char* name) {
    const char* const text = variable(name);
    const fs::path path = text == nullptr ? "" : text;
    return path.is_absolute() ? path : fs::path();
  };
  fs::path cache = folder("XDG_CACHE_HOME");
  if (cache.empty()) {
    cache = folder("HOME");
    if (cache.empty()) return {};
    cache /= ".cache";
  }
  return cache / "lomu" / fmt::format("products-{:016x}.txt", hash_of(environment));
}

}  // namespace lomu::cuda
