// SPDX-License-Identifier: GPL-2.0-only
//
// What a benchmark found, and what that means in words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/output.hpp"
#include "core/result.hpp"
#include "netctl/abi/redirect.h"
#include "sys/cgroup.hpp"

namespace netctl::redirect {

struct BenchReport {
    struct Line {
        std::string placement;    ///< "one CPU", "two CPUs", the server's name
        unsigned connections = 1; ///< at once
        std::string unit;         ///< "µs" an exchange, "MB/s"
        double tcp = 0;           ///< medians; this one of both runs of each round
        double redirected = 0;
        double unix_socket = 0; ///< 0: not measured
        double ratio = 0;       ///< redirected / tcp
        double control_low = 0; ///< quartiles of the rounds' TCP / TCP
        double control_high = 0;
        double share = 0; ///< of the messages in the redirected runs that were redirected
    };
    std::vector<Line> lines; ///< which differ in placement or in connections
    std::string verdict;     ///< in words
    std::vector<std::string> notes;
};

/// The value that the part `at` of all is below.
double median(std::vector<double> values, double at = 0.5);

/// Figures of alternating rounds: TCP, redirected, TCP again.
struct Rounds {
    std::vector<double> tcp, redirected, again;
    /// Medians, their ratio, and how TCP scatters. `before` and `after` are the datapath's counters.
    BenchReport::Line line(const nc_rd_stats& before, const nc_rd_stats& after) const;
};

/// `one CPU`, `two CPUs, 4 connections at once`.
std::string case_name(const BenchReport::Line& line);

Json to_json(const BenchReport::Line& line);

/// The verdict. With `higher_is_better` figures are throughput, else time.
std::string judge(const std::vector<BenchReport::Line>& lines, bool higher_is_better);

/// Runs `work` as run_in_cgroup() does, and returns its report.
Result<BenchReport>
report_from_cgroup(const std::function<Result<BenchReport>(const sys::Cgroup&)>& work,
                   unsigned timeout_ms, const std::string& parent = {});

} // namespace netctl::redirect
