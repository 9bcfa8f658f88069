// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

#include "core/result.hpp"

namespace netctl::datapath {

/// Whether it can be the name of a set.
Result<> check_set_name(const std::string& name);

} // namespace netctl::datapath
