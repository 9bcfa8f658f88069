// SPDX-License-Identifier: GPL-2.0-only
#include "core/command_docs.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/rule_keys.hpp"

namespace netctl {

namespace {

std::string option_text(const Option& option) {
    return option.argument.empty() ? fmt::format("--{}", option.name)
                                   : fmt::format("--{} {}", option.name, option.argument);
}

std::string positional_text(const Positional& positional) {
    std::string name = positional.name;
    if (!positional.choices.empty())
        name = fmt::format("{}", fmt::join(positional.choices, "|"));
    switch (positional.count) {
    case Positional::Count::one: return name;
    case Positional::Count::optional: return fmt::format("[{}]", name);
    case Positional::Count::rest: return fmt::format("{}...", name);
    }
    return name;
}

std::string option_list(const std::vector<Option>& options) {
    std::size_t width = 0;
    for (const Option& option : options)
        width = std::max(width, option_text(option).size());
    std::string text;
    for (const Option& option : options)
        text += fmt::format("  {:<{}}  {}\n", option_text(option), width, option.help);
    return text;
}

/// roff takes a leading dot or quote for a request, and a backslash for an escape.
std::string roff(const std::string& text) {
    std::string escaped;
    for (const char c : text) {
        if (c == '\\')
            escaped += "\\e";
        else if (c == '-')
            escaped += "\\-";
        else
            escaped += c;
    }
    if (!escaped.empty() && (escaped[0] == '.' || escaped[0] == '\''))
        escaped.insert(0, "\\&");
    return escaped;
}

void for_each_leaf(const Command& command, const std::string& path,
                   const std::function<void(const Command&, const std::string&)>& visit) {
    if (command.run)
        visit(command, path);
    for (const Command& child : command.children)
        for_each_leaf(child, path + " " + child.name, visit);
}

/// The hook whose rules a command reads.
std::optional<Hook> hook_of(const std::string& path) {
    for (const Hook hook : {Hook::xdp, Hook::tc, Hook::policy, Hook::redirect})
        if (path.starts_with(std::string(to_string(hook)) + " rule "))
            return hook;
    return path.starts_with("redirect to ") ? std::optional(Hook::to) : std::nullopt;
}

/// What completes a positional: a function of the script behind `_netctl_`, or `-`.
std::string completer(const Positional& positional, const std::string& path) {
    if (!positional.choices.empty())
        return "-"; // they stand among the words
    if (positional.name == "IFACE")
        return "interfaces";
    if (positional.name == "FILE")
        return "files";
    if ((positional.name == "NAME" || positional.name == "OTHER") && path.starts_with("set ") &&
        path != "set create")
        return "sets";
    if ((positional.name == "RULE" || positional.name == "PACKET") && hook_of(path))
        return "rules_" + std::to_string(static_cast<unsigned>(*hook_of(path)));
    return "-";
}

void completion_cases(const Command& command, const std::string& path, std::string& text) {
    std::vector<std::string> words, kinds;
    for (const Command& child : command.children)
        words.push_back(child.name);
    for (const Positional& positional : command.positionals) {
        words.insert(words.end(), positional.choices.begin(), positional.choices.end());
        kinds.push_back(completer(positional, path));
        if (positional.count == Positional::Count::rest)
            kinds.push_back("...");
    }
    for (const Option& option : command.options)
        words.push_back("--" + option.name);
    text += fmt::format("        '{}') words='{}' kinds='{}' ;;\n", path, fmt::join(words, " "),
                        fmt::join(kinds, " "));
    for (const Command& child : command.children)
        completion_cases(child, path.empty() ? child.name : path + " " + child.name, text);
}

/// By option, what completes its argument: `words='…'`, or `kinds=…`.
using OptionCases = std::map<std::string, std::string>;

void option_case(const Option& option, OptionCases& cases) {
    const std::string name = "--" + option.name;
    if (option.argument.empty())
        return;
    if (!option.choices.empty())
        cases[name] = fmt::format("words='{}'", fmt::join(option.choices, " "));
    else if (option.argument == "FILE" || option.argument == "DIR")
        cases[name] = "kinds=files";
    else if (option.name == "netns")
        cases[name] = "kinds=namespaces";
    else if (option.name == "cgroup")
        cases[name] = "kinds=cgroups";
    else if (option.argument == "IFACE")
        cases[name] = "kinds=interfaces";
    else
        cases.emplace(name, "words=");
}

void option_cases(const Command& command, OptionCases& cases) {
    for (const Option& option : command.options)
        option_case(option, cases);
    for (const Command& child : command.children)
        option_cases(child, cases);
}

void command_paths(const Command& command, const std::string& path,
                   std::vector<std::string>& paths) {
    if (!path.empty())
        paths.push_back("'" + path + "'");
    for (const Command& child : command.children)
        command_paths(child, path.empty() ? child.name : path + " " + child.name, paths);
}

} // namespace

std::string synopsis(const Command& command, const std::string& path) {
    std::string text = path;
    if (!command.children.empty()) {
        std::vector<std::string> names;
        for (const Command& child : command.children)
            names.push_back(child.name);
        return fmt::format("{} {} ...", text, fmt::join(names, "|"));
    }
    for (const Positional& positional : command.positionals)
        text += " " + positional_text(positional);
    for (const Option& option : command.options)
        text += fmt::format(" [{}]", option_text(option));
    return text;
}

std::string help_text(const Command& command, const std::string& path) {
    std::string text = fmt::format("{}\n\nusage: {}\n", command.summary, synopsis(command, path));
    if (!command.description.empty())
        text += "\n" + command.description + "\n";
    if (!command.table.empty())
        text += "\n" + command.table;
    if (!command.children.empty()) {
        std::size_t width = 0;
        for (const Command& child : command.children)
            width = std::max(width, child.name.size());
        text += "\ncommands:\n";
        for (const Command& child : command.children)
            text += fmt::format("  {:<{}}  {}\n", child.name, width, child.summary);
    }
    if (!command.options.empty())
        text += "\noptions:\n" + option_list(command.options);
    text += "\nglobal options:\n" + option_list(global_options());
    return text;
}

namespace {

/// A table for tbl(1): a line for each of `all`, a column for each hook.
template <class Info>
std::string hook_table(std::span<const Info> all,
                       const std::function<std::string(const Info&)>& name) {
    std::string text = ".TS\nl";
    std::string titles;
    for (const Hook hook : all_hooks) {
        text += " c";
        titles += fmt::format("\t{}", to_string(hook));
    }
    text += ".\n" + titles + "\n_\n";
    for (const Info& one : all) {
        text += "\\fB" + roff(name(one)) + "\\fP";
        for (const Hook hook : all_hooks)
            text += one.in(hook) ? "\tx" : "\t";
        text += "\n";
    }
    return text + ".TE\n";
}

std::string explained(const std::string& name, std::string_view takes, std::string_view help) {
    return fmt::format(".TP\n.B {}{}{}\n{}.\n", roff(name), takes.empty() ? "" : " ",
                       roff(std::string(takes)), roff(std::string(help)));
}

} // namespace

std::string rules_page(const std::string& source) {
    std::string keys =
        hook_table<KeyInfo>(rule_keys(), [](const KeyInfo& key) { return std::string(key.name); });
    for (const KeyInfo& key : rule_keys())
        keys += fmt::format(".TP\n.B {}\n{}: {}.\n", roff(std::string(key.name)),
                            roff(std::string(key.help)), roff(std::string(key.value)));
    std::string actions = hook_table<ActionInfo>(
        rule_actions(), [](const ActionInfo& action) { return action.spelling(); });
    for (const ActionInfo& action : rule_actions())
        actions += explained(action.spelling(), argument(action, Hook::tc), action.help);
    std::string modifiers;
    for (const ModifierInfo& modifier : rule_modifiers())
        modifiers += explained(std::string(modifier.name), modifier.argument, modifier.help);
    std::string text, line;
    for (std::istringstream lines(source); std::getline(lines, line);) {
        if (line == ".\\\" KEYS")
            text += keys;
        else if (line == ".\\\" ACTIONS")
            text += actions;
        else if (line == ".\\\" MODIFIERS")
            text += modifiers;
        else
            text += line + "\n";
    }
    return text;
}

std::string man_page(const std::string& source, const Command& command, const std::string& path) {
    std::string commands, synopses;
    for_each_leaf(command, path, [&](const Command& leaf, const std::string& leaf_path) {
        synopses += fmt::format(".B {}\n.br\n", roff(synopsis(leaf, leaf_path)));
        commands +=
            fmt::format(".TP\n.B {}\n{}.\n", roff(synopsis(leaf, leaf_path)), roff(leaf.summary));
        if (!leaf.description.empty())
            commands += roff(leaf.description) + "\n";
        for (const Option& option : leaf.options)
            commands += fmt::format(".RS\n.TP\n.B {}\n{}.\n.RE\n", roff(option_text(option)),
                                    roff(option.help));
    });
    std::string objects;
    for (const Command& child : command.children)
        objects += fmt::format(".TP\n.B {}\n{}.\n", roff(synopsis(child, path + " " + child.name)),
                               roff(child.summary));
    std::string text, line;
    for (std::istringstream lines(source); std::getline(lines, line);) {
        if (line == ".\\\" SYNOPSIS")
            text += synopses;
        else if (line == ".\\\" COMMANDS")
            text += commands;
        else if (line == ".\\\" OBJECTS")
            text += objects;
        else
            text += line + "\n";
    }
    return text;
}

std::string bash_completion(const Command& root) {
    std::string cases, arguments, rules;
    completion_cases(root, "", cases);
    OptionCases by_option;
    option_cases(root, by_option);
    std::vector<std::string> globals, with_argument, paths;
    for (const Option& option : global_options()) {
        globals.push_back("--" + option.name);
        option_case(option, by_option);
    }
    for (const auto& [option, what] : by_option) {
        arguments += fmt::format("        {}) {} ;;\n", option, what);
        with_argument.push_back(option);
    }
    for (const Hook hook : all_hooks)
        rules += fmt::format("_netctl_rules_{}() {{ _netctl_rule_words '{}'; }}\n",
                             static_cast<unsigned>(hook), fmt::join(rule_words(hook), " "));
    command_paths(root, "", paths);

    constexpr std::string_view script =
        R"bash(# bash completion for netctl, made from its command table
_netctl_interfaces() { (cd /sys/class/net 2>/dev/null && echo *); }
_netctl_namespaces() { ls /run/netns 2>/dev/null; }
_netctl_sets() { netctl "${root[@]}" -q set list 2>/dev/null | sed '1d; s/ .*//'; }
_netctl_files() { compgen -f -- "$current"; }
_netctl_cgroups() { compgen -d -- "$current"; }
_netctl_rule_words() {
    case $previous in
    src | dst | sport | dport) _netctl_sets | sed 's/^/@/'; [[ $current == @* ]] || echo "$1" ;;
    redirect | mirror) _netctl_interfaces ;;
    *) echo "$1" ;;
    esac
}
@RULES@_netctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local path='' words='' kinds='' at=0 skipped='' root=() word candidate kind last=''
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $skipped ]]; then
            [[ $skipped != --root ]] || root=(--root "$word")
            skipped=''
            continue
        fi
        case $word in
        @WITH_ARGUMENT@) skipped=$word; continue ;;
        -*) continue ;;
        esac
        candidate="${path:+$path }$word"
        case $candidate in
        @PATHS@) path=$candidate at=0 ;;
        *) at=$((at + 1)) ;;
        esac
    done
    case $path in
@CASES@    esac
    if [[ $skipped ]]; then
        words='' kinds='' at=0
        case $skipped in
@ARGUMENTS@        esac
    elif [[ $current == -* ]]; then
        words+=' @GLOBALS@' kinds=''
    fi
    for kind in $kinds; do
        if [[ $kind == ... ]]; then
            at=0
            kind=$last
        fi
        last=$kind
        if ((at == 0)); then
            [[ $kind == - ]] || words+=" $("_netctl_$kind")"
            break
        fi
        at=$((at - 1))
    done
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _netctl netctl
)bash";
    std::string text(script);
    const auto fill = [&text](std::string_view mark, const std::string& with) {
        text.replace(text.find(mark), mark.size(), with);
    };
    fill("@RULES@", rules);
    fill("@WITH_ARGUMENT@", fmt::format("{}", fmt::join(with_argument, " | ")));
    fill("@PATHS@", fmt::format("{}", fmt::join(paths, " | ")));
    fill("@CASES@", cases);
    fill("@ARGUMENTS@", arguments);
    fill("@GLOBALS@", fmt::format("{}", fmt::join(globals, " ")));
    return text;
}

} // namespace netctl
