// SPDX-License-Identifier: GPL-2.0-only
//
// Messages while something is under way: for whoever debugs, with -v, and for whoever waits. Results and
// errors do not go here.
#pragma once

#include <string>

namespace netctl {

void set_verbose(bool verbose);
bool verbose();
/// One line to standard error if verbose.
void debug(const std::string& text);
/// One line to standard error at once, unless quiet: for what a person who waits has to know now.
void tell(const std::string& text);
void set_quiet(bool quiet);

} // namespace netctl
