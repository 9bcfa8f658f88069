// SPDX-License-Identifier: GPL-2.0-only
#include "core/command.hpp"
#include "features/trace/func/command.hpp"
#include "features/trace/gc/command.hpp"
#include "features/trace/http/command.hpp"
#include "features/trace/profile/command.hpp"
#include "features/trace/tcp/command.hpp"
#include "features/trace/tls/command.hpp"
#include "features/trace/usdt/command.hpp"

namespace netctl::trace {

const Command& command() {
    static const Command command{
        .name = "trace",
        .summary = "watch what goes over the host's connections",
        .children = {http_command(), tcp::tcp_command(), func::func_command(), usdt::usdt_command(),
                     profile::profile_command(), tls::tls_command(), gc::gc_command()}};
    return command;
}

} // namespace netctl::trace
