// SPDX-License-Identifier: GPL-2.0-only
#include "sys/stop.hpp"

#include <csignal>
#include <initializer_list>

namespace netctl::sys {

namespace {
volatile std::sig_atomic_t requested = 0;
} // namespace

void catch_stop_signals() {
    struct sigaction action {};
    action.sa_handler = [](int) { requested = 1; };
    // Without SA_RESTART: a wait in the kernel must return for the flag to be seen.
    for (const int signal : {SIGINT, SIGTERM, SIGHUP})
        sigaction(signal, &action, nullptr);
}

bool stop_requested() {
    return requested != 0;
}

} // namespace netctl::sys
