// SPDX-License-Identifier: GPL-2.0-only
#include "core/command_docs.hpp"

#include <algorithm>
#include <sstream>

#include <fmt/format.h>

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

void completion_cases(const Command& command, const std::string& path, std::string& text) {
    std::vector<std::string> words;
    for (const Command& child : command.children)
        words.push_back(child.name);
    for (const Positional& positional : command.positionals)
        words.insert(words.end(), positional.choices.begin(), positional.choices.end());
    for (const Option& option : command.options)
        words.push_back("--" + option.name);
    text += fmt::format("        '{}') words='{}' ;;\n", path, fmt::join(words, " "));
    for (const Command& child : command.children)
        completion_cases(child, path.empty() ? child.name : path + " " + child.name, text);
}

void choice_cases(const Command& command, std::map<std::string, std::string>& cases) {
    for (const Option& option : command.options)
        if (!option.choices.empty())
            cases["--" + option.name] = fmt::format("{}", fmt::join(option.choices, " "));
    for (const Command& child : command.children)
        choice_cases(child, cases);
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
    std::string cases, choices;
    completion_cases(root, "", cases);
    std::map<std::string, std::string> by_option;
    choice_cases(root, by_option);
    for (const auto& [option, words] : by_option)
        choices += fmt::format("        {}) words='{}' ;;\n", option, words);
    std::vector<std::string> globals;
    for (const Option& option : global_options())
        globals.push_back("--" + option.name);

    return fmt::format(R"(# bash completion for netctl, made from its command table
_netctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local path='' words='' word candidate
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $word == -* ]] && continue
        candidate="${{path:+$path }}$word"
        case $candidate in
        {}) path=$candidate ;;
        esac
    done
    case $path in
{}    esac
    case $previous in
{}    esac
    if [[ $current == -* ]]; then
        words+=' {}'
    elif [[ $words != *' '* && -z $words ]]; then
        words=$(cd /sys/class/net 2>/dev/null && echo *)
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _netctl netctl
)",
                       [&] {
                           std::vector<std::string> paths;
                           const std::function<void(const Command&, const std::string&)> walk =
                               [&](const Command& command, const std::string& path) {
                                   if (!path.empty())
                                       paths.push_back("'" + path + "'");
                                   for (const Command& child : command.children)
                                       walk(child,
                                            path.empty() ? child.name : path + " " + child.name);
                               };
                           walk(root, "");
                           return fmt::format("{}", fmt::join(paths, "|"));
                       }(),
                       cases, choices, fmt::join(globals, " "));
}

} // namespace netctl
