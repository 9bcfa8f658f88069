// SPDX-License-Identifier: GPL-2.0-only
//
// What has to be done so that the host is as a configuration says, and how each of these steps is done and undone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "host/config.hpp"

namespace netctl::host {

/// One object that is not as it should be: a set, a point, the policy or redirection. Of the pairs one is filled in,
/// by the object; nothing in `from` or `to`: it is not there then, or it is to go.
struct Step {
    std::string title{};              ///< `set bad`, `xdp eth0`
    std::string action{};             ///< add, change, remove
    std::vector<std::string> lines{}; ///< what differs: `+ src 192.0.2.1 drop`
    std::optional<SetConfig> set_from{}, set_to{};
    std::optional<FilterConfig> filter_from{}, filter_to{};
    std::optional<PolicyConfig> policy_from{}, policy_to{};
    std::optional<RedirectConfig> redirect_from{}, redirect_to{};
    bool only_adds = false; ///< of a set: `set_to` has what comes, and nothing goes

    Step reversed() const;
};

struct Plan {
    std::vector<Step> steps;        ///< in the order in which they are done
    std::vector<std::string> notes; ///< what is left out: interfaces that are not there
    std::size_t objects = 0;        ///< that the configuration names
};

/// What a missing interface is.
enum class MissingInterface : bool { error, note };

/// Compares. `netns`: that of filters which name none. Interfaces are looked up, nothing is changed. Errors: what
/// cannot be changed without a gap, and what is named and not there.
Result<Plan> make_plan(const HostConfig& wanted, const HostConfig& present,
                       const std::string& netns, MissingInterface missing);

/// Called when all of a step is loaded and filled, right before it is put in force; an error keeps it from that.
using Ready = std::function<Result<>()>;

/// Does a step, through the feature's own commit: the object is as before or as it should be. `dared`: also a policy
/// that would cut off the ssh session that asks; filters are not asked. `ready` is for filters that are to be in force.
Result<std::vector<std::string>> carry_out(const Step& step, const RootOptions& root, bool dared,
                                           const Ready& ready);

/// Rules as their canonical texts, by which they are compared.
std::vector<std::string> rule_texts(const std::vector<Rule>& rules);

/// What a set of steps began with, as a configuration that leads back there.
HostConfig way_back(const std::vector<Step>& steps);
/// What they lead to, as a configuration of its own.
HostConfig way_on(const std::vector<Step>& steps);
/// Tells one state that a step begins with from others: sixteen hexadecimal digits. How long elements of sets last is
/// not in it.
Result<std::string> fingerprint(const Step& step);

} // namespace netctl::host
