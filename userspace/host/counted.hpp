// SPDX-License-Identifier: GPL-2.0-only
//
// What all hooks count, one row for each thing that is counted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"

namespace netctl::host {

struct Counted {
    std::string feature; ///< xdp, tc, policy, redirect, set
    std::string place;   ///< `eth0`, `eth0 ingress`, a cgroup, or a set's name
    std::string netns;   ///< empty: the one netctl runs in, or of no account
    std::optional<std::uint32_t> rule_id;
    /// The rule's text, or: all; by no rule; redirected, on TCP (of redirect); elements (of a set).
    std::string what;
    /// Packets; of the policy connections, of redirect messages, of sets elements, whose number goes down, too.
    std::uint64_t count = 0;
    std::optional<std::uint64_t> bytes{};
    /// Of these dropped or denied; of a rule, what was over its limit, which `count` does not have.
    std::optional<std::uint64_t> refused{};
};

struct AllCounted {
    std::vector<Counted> rows;
    /// What could not be read, with the error.
    std::vector<std::string> unread;
};

/// Reads all as one state: no change by another netctl comes between. An error: the root cannot be read.
Result<AllCounted> read_counted(const RootOptions& root);

} // namespace netctl::host
