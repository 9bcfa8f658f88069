// SPDX-License-Identifier: GPL-2.0-only
//
// Not to lock oneself out: what a whole plan does to the ssh session that asks for it.
#pragma once

#include "host/plan.hpp"

namespace netctl::host {

/// What is in force behind some steps: what they are not about is as before.
HostConfig after_steps(HostConfig present, const std::vector<Step>& steps);

/// An error if a filter of `after`, with the sets as they are then, refuses packets of the session that this process comes
/// from, and the same filter of `before` does not. The policy asks for itself.
Result<> check_ssh(const HostConfig& before, const HostConfig& after);

} // namespace netctl::host
