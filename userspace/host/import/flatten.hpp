// SPDX-License-Identifier: GPL-2.0-only
//
// Chains that jump, return and come one behind the other, as the one list in which the first rule that matches decides.
#pragma once

#include <string>
#include <vector>

#include "host/import/foreign.hpp"

namespace netctl::host {

/// Whose rules are wanted, and for what.
struct Where {
    Hook hook{};
    bool egress = false;
    std::string interface; ///< tests of interfaces are decided for this one
    ForeignHook chains() const { return egress ? ForeignHook::output : ForeignHook::input; }
};

struct Flattened {
    std::vector<Rule> rules;
    std::vector<std::string> remarks; ///< of each rule: where it comes from
    nc_verdict fallback = NC_VERDICT_PASS;
};

/// Rules of all chains of a place that see packets. What cannot be taken is added to `not_taken`. Errors: the chains
/// go round in circles, or become too many rules.
Result<Flattened> flatten(const Foreign& foreign, const Where& where,
                          std::vector<NotTaken>& not_taken);

} // namespace netctl::host
