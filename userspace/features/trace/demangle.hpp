// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

namespace netctl::trace {

/// The name that a programmer gave a symbol of C++ (and of Rust, in the older of its two ways); any other as it is.
std::string demangled(const std::string& symbol);

} // namespace netctl::trace
