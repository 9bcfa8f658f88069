// SPDX-License-Identifier: GPL-2.0-only
//
// Messages for whoever debugs: off unless -v was given. Results and errors do not go here.
#pragma once

#include <string>

namespace netctl {

void set_verbose(bool verbose);
bool verbose();
/// One line to standard error if verbose.
void debug(const std::string& text);

} // namespace netctl
