#include "engine/commands/verify_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

namespace lomu {
namespace {

constexpr double kLargest = 1e300;

double finite(double error) {
  return std::isfinite(error) ? std::min(error, kLargest) : kLargest;
}

/// How near a check came to its limit: above 1 it fell short.
double share_of_limit(const Check& check) {
  if (check.tolerance > 0) return finite(check.error) / check.tolerance;
  return check.error == 0 ? 0 : std::numeric_limits<double>::infinity();
}

std::string numbers(const Check& check) {
  if (check.tolerance == 0) return check.error == 0 ? "exact" : "differs";
  return fmt::format("{:.1e} (limit {:.1e})", finite(check.error), check.tolerance);
}

std::string with_note(const Check& check) {
  return check.note.empty() ? "" : fmt::format("  {}", check.note);
}

/// What stands at the front of a check's line.
const std::string& title(const Check& check) {
  return check.set.empty() ? check.case_name : check.set;
}

/// A quantity, with its case where the line does not say which it is of.
std::string place(const Check& check) {
  return check.set.empty() ? check.quantity : fmt::format("{}, {}", check.case_name, check.quantity);
}

std::string case_text(std::span<const Check> checks, std::size_t width, const Style& style) {
  const Check& worst = *std::max_element(checks.begin(), checks.end(), [](const Check& a, const Check& b) {
    return a.pass == b.pass ? share_of_limit(a) < share_of_limit(b) : a.pass;
  });
  const auto failed = static_cast<std::size_t>(
      std::count_if(checks.begin(), checks.end(), [](const Check& check) { return !check.pass; }));
  const std::string verdict = failed == 0 ? style.green("pass") : style.red("FAIL");
  const std::string count = checks.size() == 1 ? "" : fmt::format("  worst of {}", checks.size());
  std::string text = fmt::format("{}  {:<{}}  {:<24}  {}{}{}\n", verdict, title(worst), width, numbers(worst),
                                 place(worst), style.dim(count), failed > 1 ? "" : with_note(worst));
  if (failed <= 1) return text;
  for (const Check& check : checks) {
    if (check.pass) continue;
    text += fmt::format("        {}  {}{}\n", numbers(check), place(check), with_note(check));
  }
  return text;
}

}  // namespace

std::string verify_text(std::span<const Check> checks, const Style& style) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, display_width(title(check)));
  std::string text;
  std::size_t cases = 0;
  std::size_t passed = 0;
  for (auto rest = checks; !rest.empty(); ++cases) {
    const auto end =
        std::find_if(rest.begin(), rest.end(), [&](const Check& check) { return title(check) != title(rest.front()); });
    const auto one = rest.first(static_cast<std::size_t>(end - rest.begin()));
    text += case_text(one, width, style);
    if (std::all_of(one.begin(), one.end(), [](const Check& check) { return check.pass; })) ++passed;
    rest = rest.subspan(one.size());
  }
  const std::string summary =
      passed == cases ? fmt::format("all {} pass", cases) : fmt::format("{} of {} fall short", cases - passed, cases);
  return text + (passed == cases ? style.green(summary) : style.red(summary)) + "\n";
}

std::string verify_json(std::span<const Check> checks) {
  std::string text = "[";
  for (std::size_t i = 0; i < checks.size(); ++i) {
    nlohmann::ordered_json object;
    object["case"] = checks[i].case_name;
    object["quantity"] = checks[i].quantity;
    object["error"] = finite(checks[i].error);
    object["tolerance"] = finite(checks[i].tolerance);
    object["pass"] = checks[i].pass;
    text += (i == 0 ? "\n" : ",\n") + object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  return text + "\n]\n";
}

}  // namespace lomu
