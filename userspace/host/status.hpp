// SPDX-License-Identifier: GPL-2.0-only
//
// Every hook that netctl holds under a root, and how it is: on one screen.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"
#include "features/policy/controller.hpp"
#include "features/redirect/controller.hpp"
#include "features/set/controller.hpp"
#include "features/tc/controller.hpp"
#include "features/xdp/controller.hpp"
#include "host/apply.hpp"

namespace netctl::host {

/// One place in the kernel where a feature has a say.
struct HookStatus {
    std::string feature; ///< xdp, tc, policy, redirect, names
    std::string place;   ///< `eth0`, `eth0 ingress`, or the cgroup
    std::string netns;   ///< empty: the one netctl runs in, or of no account
    std::string state;   ///< one word: attached, renamed, vanished, enabled, …
    std::size_t rules = 0;
    std::uint64_t judged = 0;  ///< packets or connections
    std::uint64_t refused = 0; ///< of these dropped or denied; of redirect: left on TCP
    /// It is where it should be, and all of it can be read; whatever it has counted.
    bool in_force = true;
    /// Why it does not do what its rules say, each in words. None: it is healthy.
    std::vector<std::string> troubles{};
    /// What a user should know although all is well.
    std::vector<std::string> remarks{};
};

struct HostStatus {
    std::vector<HookStatus> hooks;
    std::vector<set::SetStatus> sets;
    /// Features that could not be asked at all, with the error.
    std::vector<std::string> unread;
    /// What goes back unless it is confirmed.
    std::optional<Pending> pending;

    /// Nothing: no hook that could be read is not well, and some could not.
    std::optional<bool> healthy() const;
};

/// What the status of a feature says of its hook. Nothing: it is not in use.
HookStatus hook_of(const xdp::Status& point);
HookStatus hook_of(const tc::Status& point);
std::optional<HookStatus> hook_of(const policy::Status& status);
std::optional<HookStatus> hook_of(const redirect::Status& status);
HookStatus hook_of(const std::string& set, const set::NameStatus& names);

/// Reads all points, the policy, redirection and the sets. Features that cannot be read are told in `unread`, the
/// others all the same. An error: the root cannot be read.
Result<HostStatus> read_status(const RootOptions& root);

/// What detach_all() took down: `xdp eth0` and the like.
struct Detached {
    std::vector<std::string> done;
    std::vector<std::string> failed; ///< with the reason
};

/// Takes every program of netctl off: redirection first, whose connections leave in order, then the filters, and
/// the policy last. Sets stay. Goes on behind what fails.
Detached detach_all(const RootOptions& root);

} // namespace netctl::host
