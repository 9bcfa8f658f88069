// SPDX-License-Identifier: GPL-2.0-only
//
// The targets of the rules of `to`, each with its counters and, where the rule has them asked, with its health: they are
// beside the rules, and stay as they are when other rules change.
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "features/redirect/datapath.hpp"

namespace netctl::redirect {

using ToList = Datapath::BankOf<nc_rd_to>;

/// Before `list` is in force: has the targets of its rules there; those that are there stay as they are. An error if a
/// rule has several, or asks them, and redirection was enabled by an older netctl, which could not.
Result<> add_targets(const Datapath& datapath, const ToList& list);
/// When it is: takes away the targets of all other rules.
Result<> remove_other_targets(const Datapath& datapath, const ToList& list);
/// The targets of a rule in their order, with their counters; none of one that another tool wrote without.
Result<std::vector<nc_rd_to_target>> targets_of(const Datapath& datapath, const nc_rd_to& rule);
/// The health of each of these, in the same order; none of a rule that does not have them asked.
Result<std::vector<nc_rd_to_health>> health_of(const Datapath& datapath, const nc_rd_to& rule);
/// What came when all targets of a rule were down; zero of a rule that does not have them asked.
Result<nc_rd_to_failed> failed_of(const Datapath& datapath, const nc_rd_to& rule);

/// Of the targets of all rules in `list`: how many are asked, and how many of them are down.
struct AskedTargets {
    std::size_t asked = 0, down = 0;
};
Result<AskedTargets> count_asked(const Datapath& datapath, const ToList& list);

/// What a rule of our own says; an error if its text is another tool's.
Result<Rule> rule_in(const ToList& list, std::size_t place);

/// `up`, `down`, or `unknown` before the first answer.
std::string state_name(const nc_rd_to_health& health);
/// Why it did not answer when it was asked last; empty if it did.
std::string why_not(const nc_rd_to_health& health);

} // namespace netctl::redirect
