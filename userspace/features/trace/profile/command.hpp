// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::profile {

/// `netctl trace profile`.
Command profile_command();

} // namespace netctl::trace::profile
