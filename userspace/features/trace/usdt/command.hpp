// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::usdt {

/// `netctl trace usdt`.
Command usdt_command();

} // namespace netctl::trace::usdt
