// SPDX-License-Identifier: GPL-2.0-only
#include "core/log.hpp"

#include <cstdio>

namespace netctl {

namespace {
bool verbose_flag = false;
bool quiet_flag = false;
} // namespace

void set_verbose(bool verbose) {
    verbose_flag = verbose;
}

bool verbose() {
    return verbose_flag;
}

void debug(const std::string& text) {
    if (verbose_flag)
        std::fprintf(stderr, "debug: %s\n", text.c_str());
}

void tell(const std::string& text) {
    if (!quiet_flag)
        std::fprintf(stderr, "netctl: %s\n", text.c_str());
}

void set_quiet(bool quiet) {
    quiet_flag = quiet;
}

} // namespace netctl
