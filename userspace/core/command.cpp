// SPDX-License-Identifier: GPL-2.0-only
#include "core/command.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include <boost/program_options.hpp>
#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "core/command_docs.hpp"
#include "core/log.hpp"
#include "core/suggest.hpp"

namespace netctl {

namespace po = boost::program_options;

const std::vector<Option>& global_options() {
    static const std::vector<Option> options{
        {"root",
         "DIR",
         "bpffs directory that holds the pins (default: $NETCTL_ROOT, or "
         "/sys/fs/bpf/netctl)",
         {}},
        {"lock-timeout",
         "SECONDS",
         "how long to wait for other commands that work on the same root (default: 30)",
         {}},
        {"netns", "NAME|PATH", "work on the network of this namespace", {}},
        {"json", "", "print JSON", {}},
        {"verbose", "", "tell on standard error what is done (-v); -vv: in detail", {}},
        {"quiet", "", "print results and errors only (-q)", {}},
        {"help", "", "show help for the command so far (-h)", {}},
        {"version", "", "show the version", {}},
    };
    return options;
}

std::string Arguments::get(const std::string& option, const std::string& fallback) const {
    const auto found = options_.find(option);
    return found == options_.end() ? fallback : found->second;
}

Result<std::uint64_t> Arguments::number(const std::string& option, std::uint64_t fallback,
                                        std::uint64_t low, std::uint64_t high) const {
    const auto found = options_.find(option);
    if (found == options_.end())
        return fallback;
    std::uint64_t value = 0;
    const std::string& text = found->second;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc{} || end != text.data() + text.size() || value < low || value > high)
        return Error::usage(
            fmt::format("--{} takes a number from {} to {}, not '{}'", option, low, high, text));
    return value;
}

std::string Arguments::operator[](const std::string& positional) const {
    const auto found = positionals_.find(positional);
    return found == positionals_.end() ? std::string() : found->second;
}

/// Finds the command that the words name, and checks the rest of them against it.
class CommandParser {
  public:
    explicit CommandParser(const Command& root) : command_(&root), path_(root.name) {}

    Result<> parse(const std::vector<std::string>& words) {
        const std::vector<std::string> rest = NETCTL_TRY(descend(words));
        NETCTL_TRY(read_options(rest));
        if (arguments_.has("help") || arguments_.has("version"))
            return {};
        if (!command_->run)
            return Error::usage(fmt::format("'{}' needs a command after it", path_),
                                fmt::format("one of: {}", fmt::join(child_names(), ", ")));
        return place_words();
    }

    ParsedCommand take() && { return {command_, std::move(path_), std::move(arguments_)}; }

  private:
    std::vector<std::string> child_names() const {
        std::vector<std::string> names;
        for (const Command& child : command_->children)
            names.push_back(child.name);
        return names;
    }

    /// Walks down the table along the words that are no options; returns what is left.
    Result<std::vector<std::string>> descend(const std::vector<std::string>& words) {
        std::vector<std::string> rest;
        bool value_follows = false;
        std::size_t i = 0;
        for (; i < words.size() && !command_->children.empty(); i++) {
            const std::string& word = words[i];
            if (value_follows || (word.size() > 1 && word[0] == '-')) {
                const bool takes_value = !value_follows && takes_argument(word);
                value_follows = takes_value;
                rest.push_back(word);
                continue;
            }
            const auto child =
                std::find_if(command_->children.begin(), command_->children.end(),
                             [&](const Command& candidate) { return candidate.name == word; });
            if (child == command_->children.end())
                return Error::usage(fmt::format("'{}' has no command '{}'{}", path_, word,
                                                did_you_mean(word, child_names())),
                                    fmt::format("one of: {}", fmt::join(child_names(), ", ")));
            command_ = &*child;
            path_ += " " + word;
        }
        rest.insert(rest.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
        return rest;
    }

    /// Whether `word` is a global option whose value is the next word.
    static bool takes_argument(const std::string& word) {
        return std::any_of(global_options().begin(), global_options().end(),
                           [&](const Option& option) {
                               return !option.argument.empty() && word == "--" + option.name;
                           });
    }

    std::vector<Option> options() const {
        std::vector<Option> all = command_->options;
        all.insert(all.end(), global_options().begin(), global_options().end());
        return all;
    }

    /// `-vv`, `-v -v`: the value of the option is then `v`.
    void count_verbose(std::vector<std::string>& words) {
        unsigned count = 0;
        const auto end = std::find(words.begin(), words.end(), "--");
        words.erase(std::remove_if(words.begin(), end,
                                   [&](const std::string& word) {
                                       const unsigned more =
                                           word == "-vv" ? 2 : word == "-v" || word == "--verbose";
                                       count += more;
                                       return more != 0;
                                   }),
                    end);
        if (count > 0)
            arguments_.options_["verbose"] = count > 1 ? "v" : "";
    }

    Result<> read_options(std::vector<std::string> words) {
        count_verbose(words);
        po::options_description description;
        for (const Option& option : options()) {
            const std::string alias = option.name == "verbose" ? "verbose,v"
                                      : option.name == "quiet" ? "quiet,q"
                                      : option.name == "help"  ? "help,h"
                                      : option.letter != 0     ? option.name + "," + option.letter
                                                               : option.name;
            if (option.argument.empty())
                description.add_options()(alias.c_str(), "");
            else
                description.add_options()(alias.c_str(), po::value<std::string>(), "");
        }
        description.add_options()("netctl-words", po::value<std::vector<std::string>>(), "");
        po::positional_options_description positional;
        positional.add("netctl-words", -1);

        namespace style = po::command_line_style;
        const int exact_words = style::allow_long | style::long_allow_adjacent |
                                style::long_allow_next | style::allow_short |
                                style::allow_dash_for_short | style::short_allow_next;
        try {
            const auto parsed = po::command_line_parser(words)
                                    .options(description)
                                    .positional(positional)
                                    .style(exact_words)
                                    .run();
            for (const po::option& option : parsed.options) {
                if (option.position_key >= 0) {
                    words_.insert(words_.end(), option.value.begin(), option.value.end());
                    continue;
                }
                if (arguments_.options_.contains(option.string_key))
                    return Error::usage(fmt::format("--{} is given twice", option.string_key));
                arguments_.options_[option.string_key] =
                    option.value.empty() ? std::string() : option.value.front();
            }
        } catch (const po::unknown_option& error) {
            return unknown_option(error.get_option_name());
        } catch (const po::error& error) {
            return Error::usage(fmt::format("{}: {}", path_, error.what()),
                                fmt::format("see '{} --help'", path_));
        }
        for (const Option& option : options()) {
            const auto given = arguments_.options_.find(option.name);
            if (given != arguments_.options_.end() && !option.choices.empty() &&
                std::find(option.choices.begin(), option.choices.end(), given->second) ==
                    option.choices.end())
                return Error::usage(fmt::format("--{} takes {}, not '{}'{}", option.name,
                                                fmt::join(option.choices, " or "), given->second,
                                                did_you_mean(given->second, option.choices)));
        }
        return {};
    }

    Error unknown_option(const std::string& name) const {
        std::vector<std::string> names;
        for (const Option& option : options())
            names.push_back("--" + option.name);
        return Error::usage(
            fmt::format("'{}' has no option '{}'{}", path_, name, did_you_mean(name, names)),
            fmt::format("see '{} --help'", path_));
    }

    /// Gives the words to the command's positionals.
    Result<> place_words() {
        auto word = words_.begin();
        for (const Positional& positional : command_->positionals) {
            if (positional.count == Positional::Count::rest) {
                arguments_.rest_.assign(word, words_.end());
                word = words_.end();
                continue;
            }
            if (word == words_.end()) {
                if (positional.count == Positional::Count::optional)
                    continue;
                return Error::usage(fmt::format("{} is missing", positional.name),
                                    "usage: " + synopsis(*command_, path_));
            }
            if (!positional.choices.empty() &&
                std::find(positional.choices.begin(), positional.choices.end(), *word) ==
                    positional.choices.end())
                return Error::usage(fmt::format("expected {}, not '{}'{}",
                                                fmt::join(positional.choices, " or "), *word,
                                                did_you_mean(*word, positional.choices)),
                                    "usage: " + synopsis(*command_, path_));
            arguments_.positionals_[positional.name] = *word++;
        }
        if (word != words_.end())
            return Error::usage(fmt::format("'{}' is one word too many", *word),
                                "usage: " + synopsis(*command_, path_));
        return {};
    }

    const Command* command_;
    std::string path_;
    std::vector<std::string> words_;
    Arguments arguments_;
};

namespace {

int exit_status(ErrorKind kind) {
    switch (kind) {
    case ErrorKind::failed: return 1;
    case ErrorKind::usage: return 2;
    case ErrorKind::unsupported: return 3;
    case ErrorKind::unknown: return 4;
    }
    return 1;
}

} // namespace

Result<ParsedCommand> parse_command(const Command& root, const std::vector<std::string>& words) {
    CommandParser parser(root);
    NETCTL_TRY(parser.parse(words));
    return std::move(parser).take();
}

namespace {

/// A named namespace has one spelling, since points are called after it: what stands behind
/// /run/netns/ is its name.
std::string netns_spelling(const std::string& given) {
    for (const std::string_view prefix : {"/run/netns/", "/var/run/netns/"}) {
        std::string name = given.substr(std::min(prefix.size(), given.size()));
        if (given.starts_with(prefix) && !name.empty() && name.find('/') == std::string::npos)
            return name;
    }
    return given;
}

} // namespace

namespace {

Verbosity verbosity_of(const Arguments& arguments) {
    if (std::getenv("NETCTL_DEBUG") != nullptr || arguments.get("verbose") == "v")
        return Verbosity::libraries;
    return arguments.has("verbose") ? Verbosity::steps : Verbosity::none;
}

} // namespace

int run_command(const Command& root, const std::vector<std::string>& words) {
    const auto parsed = parse_command(root, words);
    if (!parsed) {
        print_error(parsed.error());
        return exit_status(parsed.error().kind);
    }
    const auto& [command, path, arguments] = *parsed;
    if (arguments.has("help")) {
        print_text(Text::trusted(help_text(*command, path)));
        return 0;
    }
    if (arguments.has("version")) {
        print_text(Text::format("{} {} (ABI {})\n", root.name, NETCTL_VERSION, abi_version()));
        return 0;
    }
    const auto lock_timeout = arguments.number("lock-timeout", 30, 0, 86400);
    if (!lock_timeout) {
        print_error(lock_timeout.error());
        return exit_status(lock_timeout.error().kind);
    }
    set_verbosity(verbosity_of(arguments));
    set_quiet(arguments.has("quiet"));
    Output out(arguments.has("json"), arguments.has("quiet"));
    const char* root_from_environment = std::getenv("NETCTL_ROOT");
    Context context{
        {arguments.get("root", root_from_environment ? root_from_environment : default_root),
         std::chrono::seconds(*lock_timeout)},
        netns_spelling(arguments.get("netns")),
        out};
    const auto status = command->run(arguments, context);
    if (!status) {
        print_error(status.error());
        const ErrorKind kind = status.error().kind;
        return exit_status(kind == ErrorKind::failed && was_told_of_newer_abi() ? ErrorKind::unknown
                                                                                : kind);
    }
    return was_told_of_newer_abi() ? exit_status(ErrorKind::unknown) : *status;
}

} // namespace netctl
