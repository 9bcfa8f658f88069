// SPDX-License-Identifier: GPL-2.0-only
//
// Whether redirection is worth it on this host: measured with connections of our own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "netctl/abi/redirect.h"

namespace netctl::redirect {

struct BenchOptions {
    std::uint64_t size = 64; ///< of a message in bytes
    bool stream = false;     ///< one way, instead of requests and responses
    unsigned rounds = 15;    ///< each of TCP, redirected, TCP again
};

struct BenchReport {
    struct Line {
        std::string placement; ///< "one CPU", "two CPUs"
        std::string unit;      ///< "µs" a round trip, "MB/s"
        double tcp = 0;        ///< medians
        double redirected = 0;
        double unix_socket = 0; ///< 0: not measured
        double ratio = 0;       ///< median of the rounds' redirected / TCP
        double control_low = 0; ///< quartiles of the rounds' TCP / TCP
        double control_high = 0;
        double share = 0; ///< of the messages in the redirected runs that were redirected
    };
    std::vector<Line> lines;
    std::string verdict; ///< in words
    std::vector<std::string> notes;
};

/// Figures of alternating rounds: TCP, redirected, TCP again.
struct Rounds {
    std::vector<double> tcp, redirected, again;
    /// Medians, and the ratios of each round. `before` and `after` are the datapath's counters.
    BenchReport::Line line(const nc_rd_stats& before, const nc_rd_stats& after) const;
};

/// The verdict. With `higher_is_better` figures are throughput, else time.
std::string judge(const std::vector<BenchReport::Line>& lines, bool higher_is_better);

/// Alternates TCP, redirected, TCP in each round, in a process and a cgroup of its own.
Result<BenchReport> run_bench(const BenchOptions& options);

} // namespace netctl::redirect
