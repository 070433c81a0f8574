// The program around its commands: `--help`, `--version`, wrong arguments, and what becomes of an exception. A command
// is added with one line in main.cpp: `program.add(run_train);`.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/commands/report.h"
#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

class Program {
 public:
  Program();
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// Adds the command whose options are of the type that `body` takes; `declare(CLI::App&, Options&)` names them.
  template <class Options>
  void add(Exit (*body)(const Options&)) {
    auto options = std::make_shared<Options>();
    on_chosen(declare(app(), *options), [options, body] { return body(*options); });
  }

  /// Runs the command that `arguments` (without the program's name) ask for, and returns the exit code of the process.
  /// Every exception ends here: it is told on standard error.
  int run(std::span<const char* const> arguments);

 private:
  CLI::App& app();
  void on_chosen(CLI::App& command, std::function<Exit()> body);
  Exit dispatch(std::span<const char* const> arguments);
  [[noreturn]] void refuse(const std::string& what, std::span<const char* const> arguments) const;

  std::unique_ptr<CLI::App> app_;
  std::function<Exit()> chosen_;
};

}  // namespace lomu
