// SPDX-License-Identifier: GPL-2.0-only
//
// Rules of redirection, as the language has them (Hook::redirect, Hook::to) and as the kernel has them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "netctl/abi/redirect.h"

namespace netctl::redirect {

/// The kernel's entries for a rule of Hook::redirect: one for each combination of the elements of its
/// lists, in order, all with the rule's id. Paths become the numbers that they have now; fails if there is no such
/// cgroup or file.
Result<std::vector<nc_rd_rule>> rule_entries(const Rule& rule);
/// The same for a rule of Hook::to.
Result<std::vector<nc_rd_to>> to_entries(const Rule& rule);

/// The targets of a rule of Hook::to, in their order, with counters of zero.
std::vector<nc_rd_to_target> target_entries(const Rule& rule);

/// A rule that netctl did not write. A path that is not to be found is told by the kernel's numbers.
Rule rule_of(const nc_rd_rule& entry);
Rule rule_of(const nc_rd_to& entry);

/// An address as the kernel's structs hold it; `family` is 4 or 6.
Address to_address(std::uint32_t family, const std::uint32_t* words);

} // namespace netctl::redirect
