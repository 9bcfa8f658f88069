// SPDX-License-Identifier: GPL-2.0-only
//
// The targets of the rules of `to`, each with its counters: they are beside the rules, and stay as they are when
// other rules change.
#pragma once

#include <vector>

#include "core/result.hpp"
#include "features/redirect/datapath.hpp"

namespace netctl::redirect {

using ToList = Datapath::BankOf<nc_rd_to>;

/// Before `list` is in force: has the targets of its rules there; those that are there keep their counters. An error if a
/// rule has several and redirection was enabled by an older netctl, which knew of one.
Result<> add_targets(const Datapath& datapath, const ToList& list);
/// When it is: takes away the targets of all other rules.
Result<> remove_other_targets(const Datapath& datapath, const ToList& list);
/// The targets of a rule in their order, with their counters; none of one that another tool wrote without.
Result<std::vector<nc_rd_to_target>> targets_of(const Datapath& datapath, const nc_rd_to& rule);

} // namespace netctl::redirect
