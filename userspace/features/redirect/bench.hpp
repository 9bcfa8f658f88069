// SPDX-License-Identifier: GPL-2.0-only
//
// Whether redirection is worth it on this host: measured with connections of our own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.hpp"

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
        double unix_socket = 0;
        double ratio = 0;       ///< median of the rounds' redirected / TCP
        double control_low = 0; ///< quartiles of the rounds' TCP / TCP
        double control_high = 0;
        double share = 0; ///< of the messages in the redirected runs that were redirected
    };
    std::vector<Line> lines;
    std::string verdict; ///< in words
};

/// Alternates TCP, redirected, TCP in each round, in a process and a cgroup of its own.
Result<BenchReport> run_bench(const BenchOptions& options);

} // namespace netctl::redirect
