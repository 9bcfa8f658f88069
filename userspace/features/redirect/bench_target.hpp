// SPDX-License-Identifier: GPL-2.0-only
//
// Whether redirection is worth it for a server that is there already.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.hpp"
#include "features/redirect/bench.hpp"
#include "features/redirect/controller.hpp"

namespace netctl::redirect {

struct TargetOptions {
    std::string target; ///< HOST:PORT or [ADDRESS]:PORT
    /// A request, which the server answers with as many bytes each time. Empty: a line of `size`
    /// bytes, and the server is one that echoes.
    std::string request;
    std::uint64_t size = 64;
    unsigned rounds = 15;
    unsigned connections = 4; ///< at once, in a second measurement; 1: none
    /// What `enable` would be told: the cgroup that the server is in, and so on.
    EnableOptions enable;
};

/// `\r`, `\n`, `\t`, `\0`, `\xHH` and `\\` in a text, for bytes that cannot be typed.
Result<std::string> unescape(const std::string& text);

/// Makes connections to the server from a cgroup of its own, in turn with and without redirection, which
/// is for these connections only. An error if the server does not answer as expected.
Result<BenchReport> run_target_bench(const TargetOptions& options);

} // namespace netctl::redirect
