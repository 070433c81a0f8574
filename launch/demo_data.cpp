// lomu-demo-data: writes the quickstart's training, validation and test files. See engine/data/demo_task.h for the
// task.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "engine/data/demo_task.h"
#include "kernels/error.h"

int main(int argc, char** argv) {
  CLI::App app("Makes the quickstart's data: sentences about orders, each with its record as JSON.");
  std::string folder;
  std::uint64_t seed = 1;
  lomu::DemoSizes sizes;
  const CLI::Range lines(std::size_t{1}, std::size_t{1'000'000});
  app.add_option("--out", folder, "folder for train.jsonl, validation.jsonl and test.jsonl")->required();
  app.add_option("--seed", seed, "another seed makes other sentences")->capture_default_str();
  app.add_option("--train", sizes.train, "lines to train on")->check(lines)->capture_default_str();
  app.add_option("--validation", sizes.validation, "lines for the validation loss")
      ->check(lines)
      ->capture_default_str();
  app.add_option("--test", sizes.test, "lines for the score before and after")->check(lines)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? static_cast<int>(lomu::Exit::kDone) : static_cast<int>(lomu::Exit::kUsage);
  }
  try {
    lomu::write_demo_data(folder, seed, sizes);
    fmt::print("{}: {} training, {} validation and {} test lines\n", folder, sizes.train, sizes.validation, sizes.test);
    return static_cast<int>(lomu::Exit::kDone);
  } catch (const lomu::Error& error) {
    fmt::print(stderr, "error: {}\n  where: {}\n  hint: {}\n", error.what(), error.where(), error.hint());
    return static_cast<int>(error.exit());
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(lomu::Exit::kFailed);
  }
}
