// SPDX-License-Identifier: GPL-2.0-only
#include "core/log.hpp"

#include <cstdio>

namespace netctl {

namespace {
Verbosity chosen = Verbosity::none;
bool quiet_flag = false;
const char* chosen_name = "netctl";
} // namespace

void set_message_prefix(const char* name) {
    chosen_name = name;
}

const char* message_prefix() {
    return chosen_name;
}

void set_verbosity(Verbosity verbosity) {
    chosen = verbosity;
}

Verbosity verbosity() {
    return chosen;
}

void debug(const Text& text) {
    if (chosen != Verbosity::none)
        std::fprintf(stderr, "debug: %s\n", text.string().c_str());
}

void tell(const Text& text) {
    if (!quiet_flag)
        std::fprintf(stderr, "%s: %s\n", chosen_name, text.string().c_str());
}

void set_quiet(bool quiet) {
    quiet_flag = quiet;
}

void warn(const Text& text) {
    std::fprintf(stderr, "%s: %s\n", chosen_name, text.string().c_str());
}

} // namespace netctl
