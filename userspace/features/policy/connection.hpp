// SPDX-License-Identifier: GPL-2.0-only
//
// A connection as policies see it, and the reference matcher (invariant I7): walks the rules in
// order. Written for being obviously right; the kernel's lookup is compared with it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "classifier/reference.hpp"
#include "core/address.hpp"
#include "core/rule.hpp"

namespace netctl::policy {

/// What tells an executable file from all others.
struct ExeId {
    std::uint32_t device = 0; ///< major << 20 | minor, as the kernel has it
    std::uint64_t inode = 0;
    auto operator<=>(const ExeId&) const = default;
};

/// Finds the file of a rule's `exe`; nothing if there is none.
using ResolveExe = std::function<std::optional<ExeId>(const std::string& path)>;

struct Connection {
    Address dst; ///< normalised: `normalise()`
    std::uint8_t proto = 0;
    std::uint16_t dport = 0; ///< counts if the protocol has ports
    std::uint16_t sport = 0; ///< 0: not bound yet
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::string cgroup = "/"; ///< path below the mount of cgroup v2
    ExeId exe;
};

/// What the hooks do to an address before any rule is asked: a mapped address is IPv4, and the
/// unspecified address is this host.
Address normalise(const Address& address);

bool has_ports(std::uint8_t proto);

/// As rules have it, or the number.
std::string protocol_name(std::uint8_t proto);

/// Whether a cgroup is the one at `above`, or below it.
bool is_below(const std::string& path, const std::string& above);

/// The matches of a rule that do not hold, in its order; none: the rule matches.
std::vector<Match> unmet(const Rule& rule, const Connection& connection, const ResolveExe& resolve,
                         const classifier::SetOracle& sets);

/// Position of the first rule that matches.
std::optional<std::size_t> first_match(std::span<const Rule> rules, const Connection& connection,
                                       const ResolveExe& resolve,
                                       const classifier::SetOracle& sets);

} // namespace netctl::policy
