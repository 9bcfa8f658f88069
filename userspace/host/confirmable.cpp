// SPDX-License-Identifier: GPL-2.0-only
//
// The option --confirm of single commands (invariant I14): the host keeps the way back, the features know nothing of it.
#include <algorithm>
#include <sstream>

#include <fmt/format.h>

#include "host/apply.hpp"
#include "host/host.hpp"

namespace netctl::host {

namespace {

Command* find_command(Command& root, const std::string& words) {
    Command* at = &root;
    std::string word;
    for (std::istringstream stream(words); stream >> word;) {
        const auto found = std::ranges::find(at->children, word, &Command::name);
        if (found == at->children.end())
            return nullptr;
        at = &*found;
    }
    return at;
}

/// Which sets a command names, whose elements it may change.
std::set<std::string> sets_named(const Command& command, const Arguments& arguments) {
    std::set<std::string> names;
    for (const Positional& positional : command.positionals)
        if (const std::string word = arguments[positional.name]; !word.empty())
            names.insert(word);
    return names;
}

Result<int> run_on_trial(const Command& command, const Handler& run, const Arguments& arguments,
                         Context& context) {
    const std::uint64_t seconds = NETCTL_TRY(confirm_seconds("confirm", arguments.get("confirm")));
    // What is not ours does not come back, and a process that we start would wait for us.
    if (command.name == "attach" && arguments.has("replace"))
        return Error::usage("--replace and --confirm do not go together",
                            "the program that it takes away would not come back");
    if (arguments.has("run"))
        return Error::usage("--run and --confirm do not go together",
                            "the joiner is started by `netctl redirect run`, too");
    const bool can_be_dared = std::ranges::any_of(
        command.options, [](const Option& option) { return option.name == "yes"; });
    int status = 0;
    const auto change = [&]() -> Result<bool> {
        status = NETCTL_TRY(run(can_be_dared ? arguments.with("yes") : arguments, context));
        return status == 0;
    };
    const auto done =
        NETCTL_TRY(on_trial(context.root, seconds, sets_named(command, arguments), change));
    if (!done) {
        context.out.note("nothing was changed, so there is nothing to confirm");
        return status;
    }
    context.out.notes(done->notes);
    context.out.note(Text::format("`netctl confirm {}` within {} s, or it becomes as it was",
                                  done->id, seconds));
    return status;
}

} // namespace

const std::vector<std::string>& confirmable_commands() {
    static const std::vector<std::string> all = [] {
        std::vector<std::string> commands{"detach"};
        const auto add = [&](const char* feature, std::initializer_list<const char*> verbs) {
            for (const char* verb : verbs)
                commands.push_back(fmt::format("{} {}", feature, verb));
        };
        for (const char* hook : {"xdp", "tc"})
            add(hook, {"attach", "detach", "set", "rule add", "rule insert", "rule delete",
                       "rule replace", "rule flush"});
        add("policy", {"enable", "disable", "rule add", "rule insert", "rule delete",
                       "rule replace", "rule flush"});
        add("redirect", {"enable", "disable", "rule add", "rule insert", "rule delete",
                         "rule flush", "to add", "to delete"});
        add("set", {"create", "destroy", "add", "delete", "import", "swap"});
        return commands;
    }();
    return all;
}

void add_confirm(Command& root) {
    for (const std::string& words : confirmable_commands()) {
        Command* command = find_command(root, words);
        if (command == nullptr)
            continue;
        command->options.push_back(
            {"confirm", "TIME", "go back after this time, unless `netctl confirm` comes", {}});
        command->run = [command = *command](const Arguments& arguments, Context& context) {
            return arguments.has("confirm") ? run_on_trial(command, command.run, arguments, context)
                                            : command.run(arguments, context);
        };
    }
}

} // namespace netctl::host
