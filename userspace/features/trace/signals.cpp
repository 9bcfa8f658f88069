// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/signals.hpp"

namespace netctl::trace {

namespace {

volatile std::sig_atomic_t interrupt_came = 0;
volatile std::sig_atomic_t resize_came = 0;

constexpr int caught[] = {SIGINT, SIGTERM, SIGPIPE, SIGWINCH};

void on_signal(int number) {
    if (number == SIGWINCH)
        resize_came = 1;
    else
        interrupt_came = 1;
}

} // namespace

Signals::Signals() {
    interrupt_came = 0;
    struct sigaction* old = old_;
    for (const int number : caught) {
        struct sigaction action {};
        action.sa_handler = number == SIGPIPE ? SIG_IGN : on_signal;
        sigaction(number, &action, old++);
    }
}

Signals::~Signals() {
    const struct sigaction* old = old_;
    for (const int number : caught)
        sigaction(number, old++, nullptr);
}

bool Signals::interrupted() {
    return interrupt_came != 0;
}

bool Signals::take_resized() {
    const bool came = resize_came != 0;
    resize_came = 0;
    return came;
}

} // namespace netctl::trace
