// SPDX-License-Identifier: GPL-2.0-only
//
// Prometheus' text format 0.0.4. Written here and not with prometheus-cpp: its families of structures take twice
// the memory of all that is read for them, and its libraries half a millisecond of each start of netctl.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "host/metrics_table.hpp"

namespace netctl::host {

/// Values of labels, in the order of the table.
using LabelValues = std::vector<std::string_view>;

/// Samples, in any order, and the text that they make: each family in one piece. Labels are named by the table;
/// strangers' text in their values is shown (core/text.hpp). Whoever adds the same labels to a metric twice makes
/// a page that is refused as a whole.
class Exposition {
  public:
    Exposition();

    /// `labels` has as many as the table says.
    void add(Metric metric, const LabelValues& labels, std::uint64_t value);
    void add_seconds(Metric metric, const LabelValues& labels, double value);

    std::size_t samples() const { return samples_; }
    /// The metrics that have samples, with their HELP and TYPE lines. Nothing is left of them here.
    std::string take_text();

  private:
    void begin_line(Metric metric, const LabelValues& labels);
    std::string& lines_of(Metric metric) { return lines_[static_cast<std::size_t>(metric)]; }

    std::vector<std::string> lines_;                   ///< of each metric
    std::vector<std::vector<std::string_view>> names_; ///< of its labels
    std::size_t samples_ = 0;
};

} // namespace netctl::host
