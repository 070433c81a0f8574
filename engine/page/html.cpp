#include "engine/page/html.h"

#include <fmt/format.h>

namespace lomu {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } .claim { font-size: 1.1em; margin-top: .3em; opacity: .85; }
svg { width: 100%; max-width: 44em; display: block; margin: 1em 0; }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; } svg .title { font-weight: 600; font-size: 14px; }
svg .grid { stroke: currentColor; opacity: .15; }
table { border-collapse: collapse; margin: 1em 0; } th, td { padding: .2em .8em; text-align: right; }
th { border-bottom: 1px solid; font-weight: 600; } td:first-child, th:first-child { text-align: left; }
pre { overflow: auto; padding: 1em; border: 1px solid; border-radius: .4em; font-size: 13px; opacity: .9; }
.texts { table-layout: fixed; width: 100%; }
.texts td, .texts th { text-align: left; vertical-align: top; }
.texts td { white-space: pre-wrap; overflow-wrap: anywhere; border-bottom: 1px solid; font: 13px/1.4 monospace; }
.verdict li { margin: .3em 0; } .best { font-weight: 700; } footer { opacity: .7; font-size: .9em; }
)";

std::string head_row(const std::vector<std::string>& head) {
  std::string html = "<tr>";
  for (const std::string& cell : head) html += fmt::format("<th>{}</th>", escaped(cell));
  return html + "</tr>\n";
}

/// Escaped, with pictures for the control characters that HTML does not allow.
std::string visible(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0x7f) {
      out += "\xe2\x90\xa1";  // U+2421
    } else if (byte < 0x20 && c != '\n' && c != '\t') {
      out += "\xe2\x90";  // U+2400 + c
      out += static_cast<char>(0x80 + byte);
    } else {
      out += c;
    }
  }
  return escaped(out);
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string page_beginning(std::string_view title) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\">"
      "<title>{0}</title><style>{1}</style>\n<h1>{0}</h1>",
      escaped(title), kStyle);
}

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table>" + head_row(head);
  for (const auto& row : rows) {
    html += "<tr>";
    for (const std::string& cell : row) {
      const bool best = cell.starts_with('*');
      html += fmt::format("<td{}>{}</td>", best ? " class=\"best\"" : "", escaped(best ? cell.substr(1) : cell));
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

std::string text_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table class=\"texts\">" + head_row(head);
  for (const auto& row : rows) {
    html += "<tr>";
    for (const std::string& cell : row) html += fmt::format("<td>{}</td>", visible(cell));
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

}  // namespace lomu
