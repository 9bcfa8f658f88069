// SPDX-License-Identifier: GPL-2.0-only
//
// Whether this host can still do what it has to. Each try is a fresh connection of at most three seconds.
#pragma once

#include <string>

#include "core/result.hpp"

namespace netctl::fleet {

/// Connects, and closes.
Result<> probe_tcp(const std::string& host, const std::string& port);
/// GET, with a status of 200 to 399 as answer; redirects are not followed, and no proxy is asked.
Result<> probe_http(const std::string& url);

} // namespace netctl::fleet
