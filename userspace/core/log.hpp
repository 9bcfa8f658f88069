// SPDX-License-Identifier: GPL-2.0-only
//
// Messages while something is under way: for whoever wants to know what is done, with -v, and for whoever
// waits. Results and errors do not go here.
#pragma once

#include "core/text.hpp"

namespace netctl {

enum class Verbosity {
    none,
    steps,     ///< -v: what netctl does, in a few lines
    libraries, ///< -vv, or $NETCTL_DEBUG: what the libraries have to say, in some hundred lines
};

/// What messages begin with; `netctl`, if nothing else is said.
void set_message_prefix(const char* name);
const char* message_prefix();

void set_verbosity(Verbosity verbosity);
Verbosity verbosity();
/// One line to standard error from Verbosity::steps on.
void debug(const Text& text);
/// One line to standard error at once, unless quiet: for what a person who waits has to know now.
void tell(const Text& text);
void set_quiet(bool quiet);
/// One line to standard error, always: for what no result or error can carry.
void warn(const Text& text);

} // namespace netctl
