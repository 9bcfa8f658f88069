// SPDX-License-Identifier: GPL-2.0-only
//
// Whether redirection is worth it on this host: measured with connections of our own.
#pragma once

#include <cstdint>

#include "core/result.hpp"
#include "features/redirect/bench_report.hpp"

namespace netctl::redirect {

struct BenchOptions {
    std::uint64_t size = 64; ///< of a message in bytes
    bool stream = false;     ///< one way, instead of requests and responses
    unsigned rounds = 15;    ///< each of TCP, redirected, TCP again
    /// A line more with that many at once, unless 1 or `stream`: they may lose where one gains, as both sides
    /// wait more often.
    unsigned connections = 4;
};

/// Alternates TCP, redirected, TCP in each round, in a process and a cgroup of its own.
Result<BenchReport> run_bench(const BenchOptions& options);

} // namespace netctl::redirect
