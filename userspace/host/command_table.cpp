// SPDX-License-Identifier: GPL-2.0-only
#include "host/command_table.hpp"

#include "datapath/point.hpp"
#include "features/features.hpp"
#include "host/apply.hpp"
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

/// An apply that was killed, or was not confirmed in time, is taken back by whatever is called next.
void finish_apply(const Context& context) {
    const auto finished = host::finish_pending(context.root);
    if (finished)
        context.out.notes(*finished);
    else
        context.out.note(Text::format("an apply is to be taken back, and that does not work: {}",
                                      finished.error().what));
}

void prepare_first(Command& command) {
    if (command.run)
        command.run = [run = std::move(command.run)](const Arguments& arguments,
                                                     Context& context) -> Result<int> {
            NETCTL_TRY(check_netns(context));
            finish_apply(context);
            return run(arguments, context);
        };
    for (Command& child : command.children)
        prepare_first(child);
}

} // namespace

Command command_table() {
    Command root{"netctl", "one command for a Linux host's eBPF datapath"};
    root.children = feature_commands();
    for (const auto& command : {host::status_command, host::top_command, host::detach_command,
                                host::doctor_command, host::metrics_command, host::import_command})
        root.children.push_back(command());
    for (Command& command : host::apply_commands())
        root.children.push_back(std::move(command));
    host::add_confirm(root);
    prepare_first(root);
    return root;
}

} // namespace netctl
