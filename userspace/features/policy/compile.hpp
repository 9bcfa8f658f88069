// SPDX-License-Identifier: GPL-2.0-only
//
// Rules -> tables for the kernel's lookup (bpf/include/netctl/lib/policy/classify.h, which tells
// the structure). Knows nothing of libbpf.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "classifier/engine.hpp"
#include "core/rule.hpp"
#include "features/policy/connection.hpp"
#include "netctl/abi/policy_tables.h"

namespace netctl::policy {

struct Tables {
    /// Offsets, tries and rows of sets are filled in; the rest is the caller's.
    nc_policy_head head{};
    /// Everything behind the head, from word NC_HEAD_WORDS on.
    std::vector<std::uint64_t> words;
    /// Entries of the map of the same name; the keys' epoch is the caller's.
    std::vector<std::pair<nc_policy_cgroup, nc_policy_node>> cgroups;
    std::vector<classifier::SetUse> set_uses; ///< parallel to head.set_use
    std::vector<std::string> missing_exes;    ///< paths that name no file; they match nothing
};

/// First match wins. Fails with ErrorKind::usage where the rules go beyond what the tables hold.
Result<Tables> compile(std::span<const Rule> rules, std::span<const nc_policy_action> actions,
                       const ResolveExe& resolve);

} // namespace netctl::policy
