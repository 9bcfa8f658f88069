// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace {

/// `netctl trace http`.
Command http_command();

} // namespace netctl::trace
