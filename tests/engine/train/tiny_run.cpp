#include "tests/engine/train/tiny_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/ops.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJob =
    "model: {path: model}\n"
    "adapter: {rank: 4}\n"
    "data: {train: train.jsonl, cache_dir: cache}\n"
    "training: {steps: 6, micro_batch_tokens: 128, micro_batches: 4}\n"
    "runtime: {dtype: f32, threads: 1}\n"
    "output: {dir: out}\n";

}  // namespace

std::string reversal_records(std::size_t count, std::uint32_t seed) {
  constexpr std::array<const char*, 8> kWords = {"red", "blue", "tin", "oak", "cup", "jar", "box", "pen"};
  std::minstd_rand random(seed + 1);  // the same on every machine, unlike the distributions of <random>
  const auto word = [&] { return kWords[(random() >> 8) % kWords.size()]; };
  std::string lines;
  for (std::size_t i = 0; i < count; ++i) {
    const char* first = word();
    const char* second = word();
    lines += fmt::format(
        R"({{"messages":[{{"role":"user","content":"{0} {1}"}},{{"role":"assistant","content":"{1} {0}"}}]}})"
        "\n",
        first, second);
  }
  return lines;
}

std::vector<std::string> dtypes_of_this_machine() {
  if (cpu_has_fast_bf16()) return {"f32", "bf16"};
  return {"f32"};
}

TinyRun::TinyRun(std::string_view model) {
  const fs::path data = LOMU_TEST_DATA;
  fs::create_directory(path("model"));
  for (const fs::path& source : {data / "models" / model, data / "chat-tokenizer"}) {
    for (const auto& entry : fs::directory_iterator(source)) {
      const std::string name = entry.path().filename();
      if (entry.is_regular_file() && !name.starts_with("expected.")) fs::copy_file(entry.path(), path("model") / name);
    }
  }
  write("train.jsonl", reversal_records(60, 1));
  write("test.jsonl", reversal_records(12, 2));
  write("job.yaml", kJob);
}

std::vector<std::string> TinyRun::list(std::string_view folder) const {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path(folder), error)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<Process> TinyRun::start(const std::vector<std::string>& arguments, const Launch& launch) const {
  ProcessOptions options;
  options.folder = scratch_.folder();
  options.input = launch.input;
  options.file_limit = launch.file_limit;
  std::vector<std::string> command;
  if (launch.ranks > 0) {
    // Root is the usual user of a container. What MPI itself leaks at its end is not ours.
    options.environment = {
        {"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}, {"ASAN_OPTIONS", "detect_leaks=0"}};
    command = {LOMU_MPIRUN, "-np", std::to_string(launch.ranks), "--oversubscribe"};
  }
  if (launch.emulated_gpus > 0) {
    options.environment.emplace_back("LOMU_EMULATED_GPUS", std::to_string(launch.emulated_gpus));
  }
  command.emplace_back(launch.emulated_gpus > 0 ? LOMU_EMULATED_GPU_PROGRAM : LOMU_PROGRAM);
  command.insert(command.end(), arguments.begin(), arguments.end());
  return std::make_unique<Process>(command, options);
}

Outcome TinyRun::lomu(const std::vector<std::string>& arguments, const Launch& launch) const {
  return start(arguments, launch)->wait();
}

std::vector<std::string> train_arguments(const std::string& out, const std::vector<std::string>& overrides) {
  std::vector<std::string> arguments = {"train", "job.yaml", "output.dir=" + out};
  arguments.insert(arguments.end(), overrides.begin(), overrides.end());
  return arguments;
}

Outcome TinyRun::train(const std::string& out, const std::vector<std::string>& overrides, const Launch& launch) const {
  return lomu(train_arguments(out, overrides), launch);
}

void TinyRun::patch(std::string_view name, std::size_t offset, std::string_view bytes) const {
  std::fstream file(path(name), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void TinyRun::put(std::string_view name, const std::string& tensor, float value, std::size_t first,
                  std::size_t last) const {
  const std::string file = read(name);
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  const auto begin =
      nlohmann::json::parse(file.substr(8, header)).at(tensor).at("data_offsets").at(0).get<std::size_t>();
  std::string bytes((last - first) * sizeof value, '\0');
  for (std::size_t i = 0; i < last - first; ++i) std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  patch(name, 8 + header + begin + first * sizeof value, bytes);
}

}  // namespace lomu
