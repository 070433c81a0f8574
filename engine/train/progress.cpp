#include "engine/train/progress.h"

#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "engine/config/terminal.h"

namespace lomu {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};  // faster than anybody reads
constexpr std::chrono::seconds kPlainInterval{5};  // a log file stays short and still shows life

}  // namespace

Progress::Progress(std::int64_t first_step, std::int64_t total_steps)
    : first_step_(first_step), total_steps_(total_steps), terminal_(is_terminal(stderr)) {}

Progress::~Progress() {
  pause();
}

void Progress::show(const StepMetrics& m) {
  const auto now = Clock::now();
  const bool last = m.step == total_steps_;
  const bool first = m.step == first_step_;
  const auto interval =
      terminal_ ? std::chrono::duration_cast<Clock::duration>(kRedraw) : Clock::duration(kPlainInterval);
  if (!last && !first && !m.validation_loss && now - last_shown_ < interval) return;
  last_shown_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left =
      elapsed / static_cast<double>(m.step - first_step_ + 1) * static_cast<double>(total_steps_ - m.step);
  std::string line = fmt::format("step {:>{}}/{}  loss {:.4f}  {:>7.0f} tokens/s  lr {:.2e}  ETA {}", m.step,
                                 fmt::formatted_size("{}", total_steps_), total_steps_, m.loss, m.tokens_per_second,
                                 m.lr, human_duration(left));
  if (m.validation_loss) line += fmt::format("  validation {:.4f}", *m.validation_loss);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", line);
    return;
  }
  fmt::print(stderr, "\r\x1b[2K{}", line);
  std::fflush(stderr);
  open_line_ = true;
  if (m.validation_loss) pause();  // keep it: the redrawn line would wipe it
}

void Progress::pause() {
  if (!open_line_) return;
  std::fputc('\n', stderr);
  open_line_ = false;
}

}  // namespace lomu
