// SPDX-License-Identifier: GPL-2.0-only
//
// Whether the host still does what it is there for: asked behind an apply that would go back otherwise.
#pragma once

#include <chrono>
#include <string>

#include "core/result.hpp"

namespace netctl::host {

struct Probe {
    enum class Kind { tcp, http, command };
    Kind kind{};
    std::string text;             ///< as it was given
    std::string host, port, path; ///< tcp: host and port; http: all
    std::string command;          ///< for sh
};

/// `tcp HOST:PORT`, `http http://HOST[:PORT][/PATH]`, `command COMMAND`. An IPv6 address stands in brackets.
Result<Probe> parse_probe(const std::string& text);

/// Asks again and again, from the current network namespace, until it passes: TCP connects; HTTP answers with a status of
/// 200 to 399; the command ends with 0. The error, when the time is up, is that of the last try.
Result<> probe_until(const Probe& probe, std::chrono::steady_clock::time_point end);

} // namespace netctl::host
