// The folder a run writes into: what may be there before, and where each thing goes.
//
//   config.yaml              the resolved configuration
//   metrics.jsonl            one object a step
//   events/                  the same for TensorBoard, where it is asked for (event_file.h)
//   adapter/                 the trained adapter, a PEFT folder; or
//   model/                   the trained model, a Hugging Face folder (trained_model.h)
//   checkpoints/step-N/      see checkpoint.h
//   summary.json             what the run came to
#pragma once

#include <filesystem>
#include <string_view>

namespace lomu {

class RunFolder {
 public:
  enum class Start { kNew, kOverwrite, kResume };

  /// Sees that `folder` can take the run. kNew: it must be absent or empty. kOverwrite: it may hold an earlier run and
  /// nothing else. kResume: it must hold a run. Makes the folder when it is missing, and writes and removes a small
  /// file to see that it can. Throws UsageError and FileError. Nothing that was there is touched.
  RunFolder(std::filesystem::path folder, Start start);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  /// Removes the folder if it was made for a run that did not begin.
  ~RunFolder();

  /// The run begins: everything else that could stop it has been checked. With kOverwrite the earlier run goes; what a
  /// killed run has left half-written goes in any case. Throws FileError.
  void begin();

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path config() const { return folder_ / "config.yaml"; }
  [[nodiscard]] std::filesystem::path metrics() const { return folder_ / "metrics.jsonl"; }
  [[nodiscard]] std::filesystem::path events() const { return folder_ / "events"; }
  [[nodiscard]] std::filesystem::path adapter() const { return folder_ / "adapter"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }
  [[nodiscard]] std::filesystem::path summary() const { return folder_ / "summary.json"; }

 private:
  void discard() const;

  std::filesystem::path folder_;
  Start start_;
  bool made_ = false;  ///< and not begun
};

}  // namespace lomu
