// SPDX-License-Identifier: GPL-2.0-only
//
// Making the host be as a configuration says: step by step, each atomic by itself, all of them or none. What it was
// is in a journal until all is done, or confirmed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "host/journal.hpp"
#include "host/plan.hpp"

namespace netctl::host {

struct ApplyOptions {
    std::string netns;           ///< of filters which name none
    bool dared = false;          ///< also what cuts off the ssh session that asks
    std::uint64_t confirm_s = 0; ///< goes back unless it is confirmed in this time; 0: stays
    /// Object -> fingerprint of how it was when this was planned: as it is now, and nothing else is to change.
    std::optional<std::map<std::string, std::string>> planned{};
    bool rehearse = false; ///< only loads what it would put in force, and takes it away again
    bool missing_is_fine = false; ///< interfaces that are not there are told of and left out
};

struct Applied {
    std::vector<Step> steps; ///< that were done; none: it was so already
    std::size_t objects = 0; ///< that the configuration names
    std::vector<std::string> notes;
    std::string id; ///< to be confirmed; empty if it need not be
};

/// Does all of the plan or, on an error, nothing: what was done is undone. One netctl at a time.
Result<Applied> apply(const HostConfig& wanted, const RootOptions& root,
                      const ApplyOptions& options);
/// What apply() would do.
Result<Plan> plan(const HostConfig& wanted, const RootOptions& root, const std::string& netns);

/// Runs what changes something of the host by one commit of a feature, so that it goes back unless that is confirmed.
/// `change`: whether it did it, or its error. `sets`: whose elements it may change; of all others only their being there
/// comes back. Nothing: nothing is changed, so nothing waits.
Result<std::optional<Applied>> on_trial(const RootOptions& root, std::uint64_t seconds,
                                        const std::set<std::string>& sets,
                                        const std::function<Result<bool>()>& change);

/// What an earlier apply has to be done about: nothing if none waits to be confirmed.
struct Pending {
    std::string id;
    std::uint64_t seconds_left = 0;
    std::uint64_t changes = 0;
};
/// Of a root that somebody reads.
Result<std::optional<Pending>> pending(const datapath::Root& root);
Result<std::optional<Pending>> pending(const RootOptions& root);

/// Lets what an apply has done stay. `id` empty: whichever waits.
Result<> confirm(const RootOptions& root, const std::string& id);
/// Waits to be confirmed from now on for so long.
Result<> extend(const RootOptions& root, const std::string& id, std::uint64_t seconds);
/// Goes back now. Returns notes.
Result<std::vector<std::string>> roll_back(const RootOptions& root, const std::string& id);
/// Leaves all as it is, whatever an apply was about.
Result<> forget(const RootOptions& root);

/// Undoes an apply that was killed, or was not confirmed in time. Returns what it did, for the user; nothing is
/// the rule.
Result<std::vector<std::string>> finish_pending(const RootOptions& root);

} // namespace netctl::host
