// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::gc {

/// `netctl trace gc`.
Command gc_command();

} // namespace netctl::trace::gc
