// SPDX-License-Identifier: GPL-2.0-only
//
// The rules of redirection as text: which connections it is for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"

namespace netctl::redirect {

/// One rule. Paths are as the user gave them; the kernel's numbers for them are found when the
/// rule is committed.
struct Rule {
    std::uint32_t id = 0;
    bool allow = true;
    std::uint16_t dport_low = 0; ///< inclusive range, host byte order
    std::uint16_t dport_high = 65535;
    std::optional<Prefix> dst;
    std::string cgroup; ///< empty: any
    std::string exe;    ///< empty: any
    bool operator==(const Rule&) const = default;
};

/// `[dport PORT|LOW-HIGH] [dst ADDRESS[/LENGTH]] [cgroup PATH] [exe PATH] [allow|deny]`, in any
/// order but for the action, which comes last and is `allow` if it is left out.
Result<Rule> parse_rule(const std::vector<std::string>& words);

/// The canonical text, without the id; it parses to an equal rule.
std::string to_string(const Rule& rule);

} // namespace netctl::redirect
