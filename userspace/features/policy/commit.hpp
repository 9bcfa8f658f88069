// SPDX-License-Identifier: GPL-2.0-only
//
// Putting rules and settings in force.
#pragma once

#include <string>
#include <vector>

#include "features/policy/state.hpp"

namespace netctl::policy {

/// What rules name and the host does not have: an error that names the first, or notes. Cgroups get their name
/// below the mount.
Result<> check_names(datapath::PointState& state,
                     const std::vector<datapath::InstalledRule>* before, bool allow_missing,
                     std::vector<std::string>& notes);

/// New rules that can never match.
void note_covered(const datapath::PointState& state,
                  const std::vector<datapath::InstalledRule>* before,
                  std::vector<std::string>& notes);

/// What the programs do for a rule. Who it is about is filled in by `compile`.
nc_policy_action encode_action(const datapath::InstalledRule& installed);

struct Published {
    nc_policy_head head{};
    std::size_t memory = 0;
};

/**
 * Puts the rules of `state`, with the settings of `head`, in force: everything is written where
 * nobody looks yet, then the root's slot gets the first segment (invariant I2). That write returns when
 * no program looks at the old tables any more.
 */
Result<Published> publish(const datapath::LockedRoot& root, const datapath::FindMap& maps,
                          datapath::PointState& state, nc_policy_head head, const Live* live,
                          std::vector<std::string>& notes);

} // namespace netctl::policy
