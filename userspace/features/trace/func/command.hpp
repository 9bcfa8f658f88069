// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::func {

/// `netctl trace func`.
Command func_command();

} // namespace netctl::trace::func
