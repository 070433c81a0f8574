// A folder with everything a training run needs, small enough that the real program trains it in a tenth of a second: a
// random model of 150,000 weights, a byte-level chat tokenizer, and records of two words to be said in reverse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/engine/data/scratch.h"
#include "tests/engine/train/process.h"

namespace lomu {

/// How a command is started.
struct Launch {
  int ranks = 0;                                 ///< under mpirun; 0: by itself
  int emulated_gpus = 0;                         ///< more than 0: the program that takes emulated GPUs for real ones
  std::string input = {};                        ///< standard input
  std::optional<std::uint64_t> file_limit = {};  ///< see ProcessOptions
};

class TinyRun {
 public:
  /// model/ is a copy of tests/data/models/NAME with a tokenizer; train.jsonl has 60 records, test.jsonl 12, and
  /// job.yaml trains on them: 6 steps of 4 micro-batches of 128 tokens, f32, one thread, into out/.
  explicit TinyRun(std::string_view model = "llama-tied");

  [[nodiscard]] std::filesystem::path path(std::string_view name) const { return scratch_.folder() / name; }
  [[nodiscard]] std::string read(std::string_view name) const { return Scratch::read(path(name)); }
  void write(const std::string& name, const std::string& text) const { (void)scratch_.write(name, text); }
  /// Names in a folder, sorted; empty when it is not there.
  [[nodiscard]] std::vector<std::string> list(std::string_view folder) const;

  /// lomu ARGUMENTS, started in the folder.
  [[nodiscard]] Outcome lomu(const std::vector<std::string>& arguments, const Launch& launch = {}) const;
  [[nodiscard]] std::unique_ptr<Process> start(const std::vector<std::string>& arguments,
                                               const Launch& launch = {}) const;
  /// lomu train job.yaml output.dir=OUT OVERRIDES
  [[nodiscard]] Outcome train(const std::string& out, const std::vector<std::string>& overrides = {},
                              const Launch& launch = {}) const;
  /// The weights that a run has left, byte for byte; empty when there are none.
  [[nodiscard]] std::string adapter(const std::string& out) const {
    return read(out + "/adapter/adapter_model.safetensors");
  }
  /// Overwrites bytes of a file.
  void patch(std::string_view name, std::size_t offset, std::string_view bytes) const;
  /// Sets elements `first` to `last` (not included) of an F32 tensor in a safetensors file.
  void put(std::string_view name, const std::string& tensor, float value, std::size_t first = 0,
           std::size_t last = 1) const;

 private:
  Scratch scratch_;
};

/// Arguments of `lomu train` as TinyRun::train gives them.
std::vector<std::string> train_arguments(const std::string& out, const std::vector<std::string>& overrides);

/// Records of a user who says two words and an assistant who answers with them in reverse. Different seeds, different
/// records.
std::string reversal_records(std::size_t count, std::uint32_t seed);

/// What the CPU path can compute here: f32, and bf16 where the processor has it.
std::vector<std::string> dtypes_of_this_machine();

}  // namespace lomu
