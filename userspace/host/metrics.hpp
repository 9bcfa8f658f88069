// SPDX-License-Identifier: GPL-2.0-only
//
// The metrics of everything that netctl holds under a root. Nothing is kept between two readings: all counters
// are the kernel's, and so none goes back while what it counts lives.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/root_options.hpp"

namespace netctl::host {

struct Metrics {
    std::string text; ///< Prometheus' text format 0.0.4
    std::size_t samples = 0;
    /// What could not be read, with the error; the metrics of all else are there.
    std::vector<std::string> unread;
};

/// Reads them. What cannot be read is told by netctl_part_up, and never by a counter that is 0 for it. Rules have
/// metrics of their own if a point, or the policy, has at most `max_rules` of them; if it has more, those with a
/// comment, up to that number.
/// Writers wait only while points, policy and redirection are read, not for sets, nor for whoever takes the text.
Metrics read_metrics(const RootOptions& root, std::size_t max_rules);

} // namespace netctl::host
