// The folder a run writes into: what may be there before, and where each thing goes.
//
//   config.yaml              the resolved configuration
//   metrics.jsonl            one object a step
//   adapter/                 the trained adapter, a PEFT folder
//   checkpoints/step-N/      see checkpoint.h
//   summary.json             what the run came to
#pragma once

#include <filesystem>
#include <string_view>

namespace lomu {

class RunFolder {
 public:
  enum class Start { kNew, kOverwrite, kResume };

  /// Makes `folder` ready. kNew: it must be absent or empty. kOverwrite: an earlier run in it is removed; a folder that
  /// holds anything else is refused. kResume: it must hold a run. Writes and removes a small file to see that it can.
  /// Throws UsageError and FileError; nothing of an earlier run is touched unless kOverwrite succeeds in every check.
  RunFolder(std::filesystem::path folder, Start start);

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path config() const { return folder_ / "config.yaml"; }
  [[nodiscard]] std::filesystem::path metrics() const { return folder_ / "metrics.jsonl"; }
  [[nodiscard]] std::filesystem::path adapter() const { return folder_ / "adapter"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }
  [[nodiscard]] std::filesystem::path summary() const { return folder_ / "summary.json"; }

 private:
  void remove_earlier_run() const;

  std::filesystem::path folder_;
};

}  // namespace lomu
