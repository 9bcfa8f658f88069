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

/// Inclusive, host byte order.
struct PortRange {
    std::uint16_t low = 0;
    std::uint16_t high = 65535;
    bool operator==(const PortRange&) const = default;
};

/// One rule. Paths are as the user gave them; the kernel's numbers for them are found when the
/// rule is committed.
struct Rule {
    std::uint32_t id = 0;
    bool allow = true;
    PortRange dport;
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

/// What connects to `dst` connects to the target instead.
struct ToRule {
    std::uint32_t id = 0;
    Prefix dst;
    PortRange dport;
    std::uint8_t protocol = 0; ///< 6, 17, or 0: both
    Address target;            ///< of the same family as dst
    std::uint16_t target_port = 0;
    std::string cgroup; ///< of who connects; empty: any
    bool operator==(const ToRule&) const = default;
};

/// `dst ADDRESS[/LENGTH] [dport PORT|LOW-HIGH] [proto tcp|udp] target ADDRESS:PORT [cgroup PATH]`,
/// in any order.
Result<ToRule> parse_to(const std::vector<std::string>& words);

/// The canonical text, without the id; it parses to an equal rule.
std::string to_string(const ToRule& rule);

/// An address as the kernel's structs hold it; `family` is 4 or 6.
Address to_address(std::uint32_t family, const std::uint32_t* words);

} // namespace netctl::redirect
