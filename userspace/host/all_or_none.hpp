// SPDX-License-Identifier: GPL-2.0-only
//
// The steps of a plan, all of them or none: what may fail by itself comes before anything is in force.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "host/plan.hpp"

namespace netctl::host {

struct Outcome {
    std::vector<std::string> notes;
    std::optional<Error> error;    ///< of the step that failed; those before it are undone
    std::vector<std::string> left; ///< of these, what could not be undone, and why
};

enum class HowFar {
    whole,
    loading, ///< only what is not in force yet, and that is taken away again
};

/// New sets are made and filled, and the programs of all filters loaded, beside what is in force. Then come, one right
/// behind the other, new elements of sets, the policy, all filters, redirection, elements that go, and what is taken
/// away: so no rule sees less of a set than before or after. `dared`: what is refused only because it would cut off the
/// ssh session that asks is done; of filters that is for the caller to find out.
Outcome carry_out_all(const std::vector<Step>& steps, const RootOptions& root, bool dared,
                      HowFar how_far);

} // namespace netctl::host
