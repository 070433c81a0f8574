// Typed errors. Every failure a user can cause says what happened, where, and what to do about it.
// Throw these; only main() turns them into text on stderr and an exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace lomu {

/// Exit codes of the program: 0 done, 1 a check or a run failed, 2 it was used wrongly, 3 numbers stopped being finite.
enum class Exit : int { kDone = 0, kFailed = 1, kUsage = 2, kDiverged = 3 };

/// Base of every error Lomu throws on purpose.
/// what():  one sentence. where(): "file:line", a YAML path, a tensor name; may be empty. hint(): what to do; may be
/// empty.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string what, std::string where = {}, std::string hint = {}, Exit exit = Exit::kFailed)
      : std::runtime_error(std::move(what)), where_(std::move(where)), hint_(std::move(hint)), exit_(exit) {}

  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }
  [[nodiscard]] Exit exit() const noexcept { return exit_; }

 private:
  std::string where_;
  std::string hint_;
  Exit exit_;
};

/// A wrong command line or configuration: nothing was loaded, nothing was written.
class UsageError : public Error {
 public:
  explicit UsageError(std::string what, std::string where = {}, std::string hint = {})
      : Error(std::move(what), std::move(where), std::move(hint), Exit::kUsage) {}
};

/// A file is missing, cannot be read, or cannot be written. `where` is its path.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A file could be read but its content is wrong. `where` is path, or path:line, or path and tensor name.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// A model, tokenizer or option asks for something Lomu does not implement. Names the feature.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};

/// A storage has no more memory. what() holds the ledger's table.
class MemoryError : public Error {
 public:
  using Error::Error;
};

/// NaN, infinity, or a matrix that has no factorisation. `where` names the step and tensor.
class NumericError : public Error {
 public:
  explicit NumericError(std::string what, std::string where = {}, std::string hint = {})
      : Error(std::move(what), std::move(where), std::move(hint), Exit::kDiverged) {}
};

/// A collective failed, timed out, or another rank ended.
class CommError : public Error {
 public:
  using Error::Error;
};

}  // namespace lomu
