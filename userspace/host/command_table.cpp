// SPDX-License-Identifier: GPL-2.0-only
#include "host/command_table.hpp"

#include "datapath/point.hpp"
#include "features/features.hpp"
#include "host/host.hpp"
#include "sys/netns.hpp"

namespace netctl {

namespace {

/// A namespace that is named has to be there, whatever a command does with it. One that is gone may be
/// named as long as points of it are left, to look at them and to take them away.
Result<> check_netns(const Context& context) {
    if (context.netns.empty())
        return {};
    auto status = sys::check_netns(context.netns);
    if (!status) {
        const auto left = datapath::has_points_of(context.root, context.netns);
        if (left.has_value() && *left)
            return {};
    }
    return status;
}

void check_netns_first(Command& command) {
    if (command.run)
        command.run = [run = std::move(command.run)](const Arguments& arguments,
                                                     Context& context) -> Result<int> {
            NETCTL_TRY(check_netns(context));
            return run(arguments, context);
        };
    for (Command& child : command.children)
        check_netns_first(child);
}

} // namespace

Command command_table() {
    Command root{"netctl", "one command for a Linux host's eBPF datapath"};
    root.children = feature_commands();
    for (const auto& command : {host::status_command, host::detach_command, host::doctor_command})
        root.children.push_back(command());
    check_netns_first(root);
    return root;
}

} // namespace netctl
