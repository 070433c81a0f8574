#include "engine/commands/program.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <vector>

#include "engine/config/nearest.h"
#include "engine/config/terminal.h"

namespace lomu {
namespace {

constexpr const char* kSummary =
    "Finetunes language models with LoRA: `mpirun` and one YAML file.\n"
    "Exit codes: 0 done, 1 a check or a run failed, 2 wrong use.";

/// Options as `--seed N [0]`, without the lists of limits and of options that exclude each other: messages tell those.
class HelpFormat : public CLI::Formatter {
 public:
  HelpFormat() { column_width(34); }

  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return {};
    const std::string type = option->get_type_name();
    std::string text = " " + type.substr(0, type.find(':'));
    if (!option->get_default_str().empty()) text += fmt::format(" [{}]", option->get_default_str());
    if (option->get_expected_max() == CLI::detail::expected_max_vector_size) text += " ...";
    return option->get_required() ? text + " (required)" : text;
  }
};

const CLI::App* parsed_command(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? nullptr : commands.front();
}

/// "--max-tokens=3" -> "--max-tokens".
std::string option_name(std::string_view argument) {
  return std::string(argument.substr(0, argument.find('=')));
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// The first --option among `arguments` that `command` does not have; empty if there is none.
std::string unknown_option(const CLI::App& command, std::span<const char* const> arguments) {
  for (const std::string_view argument : arguments) {
    if (argument == "--") break;
    if (!argument.starts_with("--")) continue;
    const std::string name = option_name(argument);
    if (command.get_option_no_throw(name) == nullptr) return name;
  }
  return {};
}

std::string help_hint(const CLI::App* command) {
  return command == nullptr ? "lomu --help lists the commands"
                            : fmt::format("lomu {} --help lists its options", command->get_name());
}

std::string closest(std::string_view wrong, const std::vector<std::string>& names, const std::string& otherwise) {
  const auto close = nearest(wrong, names);
  return close ? fmt::format("did you mean `{}`?", *close) : otherwise;
}

}  // namespace

Program::Program() : app_(std::make_unique<CLI::App>(kSummary, "lomu")) {
  app_->formatter(std::make_shared<HelpFormat>());
  app_->set_version_flag("--version", "lomu " LOMU_VERSION, "Print the version and stop");
  app_->set_help_flag("-h,--help", "Print this and stop");
  app_->require_subcommand(0, 1);
  app_->footer("lomu COMMAND --help tells the options of a command.");
}

Program::~Program() = default;

CLI::App& Program::app() {
  return *app_;
}

void Program::on_chosen(CLI::App& command, std::function<Exit()> body) {
  command.callback([this, body = std::move(body)] { chosen_ = body; });
}

void Program::refuse(const std::string& what, std::span<const char* const> arguments) const {
  const CLI::App* command = parsed_command(*app_);
  const std::string option = unknown_option(command == nullptr ? *app_ : *command, arguments);
  if (!option.empty()) {
    throw UsageError(fmt::format("unknown option {}", option), "command line",
                     closest(option, option_names(command == nullptr ? *app_ : *command), help_hint(command)));
  }
  if (command == nullptr && !arguments.empty()) {
    std::vector<std::string> names;
    for (const CLI::App* known : app_->get_subcommands({})) names.push_back(known->get_name());
    throw UsageError(fmt::format("unknown command `{}`", arguments.front()), "command line",
                     closest(arguments.front(), names, help_hint(nullptr)));
  }
  throw UsageError(what, "command line", help_hint(command));
}

Exit Program::dispatch(std::span<const char* const> arguments) {
  std::vector<const char*> argv = {"lomu"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  try {
    app_->parse(static_cast<int>(argv.size()), argv.data());
  } catch (const CLI::CallForVersion& version) {
    write_out(fmt::format("{}\n", version.what()));
    return Exit::kDone;
  } catch (const CLI::Success&) {
    const CLI::App* command = parsed_command(*app_);
    std::string help = command == nullptr ? app_->help() : command->help("lomu");
    if (!help.ends_with('\n')) help += '\n';
    write_out(help);
    return Exit::kDone;
  } catch (const CLI::ParseError& error) {
    refuse(error.what(), arguments);
  }
  if (!chosen_) throw UsageError("no command was given", "command line", help_hint(nullptr));
  return chosen_();
}

int Program::run(std::span<const char* const> arguments) {
  // A reader that goes away (`lomu schema | head`) must end a write, not the process: ranks of a job talk through
  // sockets.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return static_cast<int>(dispatch(arguments));
  } catch (...) {
    return report(std::current_exception(), launch_rank());
  }
}

}  // namespace lomu
