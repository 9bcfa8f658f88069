// SPDX-License-Identifier: GPL-2.0-only
#include "host/exposition.hpp"

#include <cassert>
#include <iterator>

#include <fmt/format.h>

#include "core/text.hpp"

namespace netctl::host {

namespace {

/// As the format has it: backslash, quote and line feed are escaped. Of what is shown, the first two are left.
void append_label_value(std::string& out, std::string_view value) {
    for (const char c : shown(value)) {
        if (c == '\\' || c == '"')
            out += '\\';
        out += c;
    }
}

} // namespace

Exposition::Exposition() : lines_(metric_table().size()) {
    for (const MetricInfo& info : metric_table())
        names_.push_back(label_names(info));
}

void Exposition::begin_line(Metric metric, const LabelValues& labels) {
    const auto& names = names_[static_cast<std::size_t>(metric)];
    assert(labels.size() == names.size());
    std::string& out = lines_of(metric);
    out += info_of(metric).name;
    for (std::size_t i = 0; i < names.size(); i++) {
        out += i == 0 ? '{' : ',';
        out += names[i];
        out += "=\"";
        append_label_value(out, labels[i]);
        out += '"';
    }
    out += names.empty() ? " " : "} ";
    samples_++;
}

void Exposition::add(Metric metric, const LabelValues& labels, std::uint64_t value) {
    begin_line(metric, labels);
    fmt::format_to(std::back_inserter(lines_of(metric)), "{}\n", value);
}

void Exposition::add_seconds(Metric metric, const LabelValues& labels, double value) {
    begin_line(metric, labels);
    fmt::format_to(std::back_inserter(lines_of(metric)), "{:.6f}\n", value);
}

std::string Exposition::take_text() {
    std::string text;
    std::size_t size = 0;
    for (std::size_t i = 0; i < lines_.size(); i++)
        size += lines_[i].empty() ? 0 : lines_[i].size() + metric_table()[i].help.size() + 128;
    text.reserve(size);
    for (std::size_t i = 0; i < lines_.size(); i++) {
        if (lines_[i].empty())
            continue;
        const MetricInfo& info = metric_table()[i];
        fmt::format_to(std::back_inserter(text), "# HELP {} {}\n# TYPE {} {}\n", info.name,
                       info.help, info.name, info.type);
        text += lines_[i];
        lines_[i] = {};
    }
    return text;
}

} // namespace netctl::host
