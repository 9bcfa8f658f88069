// SPDX-License-Identifier: GPL-2.0-only
//
// The policy that is in force, found from its links.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "features/policy/connection.hpp"
#include "netctl/abi/policy_tables.h"

namespace netctl::policy {

/// Hooks in the order of nc_policy_hook; program and pin are called like this.
inline constexpr std::array<const char*, NC_HOOKS> hook_names{
    "connect4", "connect6", "sendmsg4", "sendmsg6", "lsm_connect", "lsm_sendmsg"};

bpf::PinDir policy_dir(const datapath::Root& root);

Error not_enabled();

/// A policy that is in force.
struct Live {
    bpf::Program program;
    nc_policy_head head{};
    std::vector<datapath::InstalledRule> rules;
    std::set<ExeId> exes;           ///< files that the rules' paths led to
    std::optional<Error> trouble{}; ///< why the rules cannot be read, if they cannot

    datapath::FindMap maps() const {
        return [this](const std::string& name) { return program.map(name); };
    }
    datapath::PointState state() const {
        datapath::PointState state;
        state.rules = rules;
        state.point.generation = head.generation;
        state.point.next_rule_id = head.next_rule_id;
        return state;
    }
};

/// The map in a slot of an outer map, if there is one.
Result<std::optional<bpf::RawMap>> inner_map(const bpf::RawMap& outer, std::uint32_t slot);

/// The program of one of the attachments; nothing if there is none that can be opened.
std::optional<bpf::Program> find_program(const bpf::PinDir& dir);

/// Nothing if no policy is in force: none is enabled, or an enable was killed before it was done. Rules that
/// cannot be read are no error.
Result<std::optional<Live>> open_live(const datapath::Root& root);

/// Why the policy does not judge as it says, though it is in force: its cgroup is gone, or another one has its name now.
/// On that one, some of its hooks may be, judging by its rules: those that an `enable` has put there before it was killed.
Result<std::optional<std::string>> ground_lost(const datapath::Root& root,
                                               const nc_policy_head& head);

/// What is to be done then.
std::string to_attach_anew(const nc_policy_head& head);

/// The file that a rule's `exe` leads to.
std::optional<ExeId> find_exe(const std::string& path);

} // namespace netctl::policy
