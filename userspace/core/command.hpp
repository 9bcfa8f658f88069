// SPDX-License-Identifier: GPL-2.0-only
//
// The command table: one description of each command, from which parsing, --help, the man pages'
// command sections and bash completion are all made.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/output.hpp"
#include "core/result.hpp"
#include "core/root_options.hpp"

namespace netctl {

struct Option {
    std::string name;                 ///< long name without dashes
    std::string argument;             ///< what it takes, in capitals or `a|b|c`; empty: a flag
    std::string help;                 ///< one sentence without full stop
    std::vector<std::string> choices; ///< if not empty, the only values allowed
    char letter = 0;                  ///< a short form: 'i' for -i; 0: none
};

struct Positional {
    enum class Count { one, optional, rest };
    std::string name; ///< as shown in the synopsis: IFACE, RULE
    Count count = Count::one;
    std::vector<std::string> choices{}; ///< if not empty, the only words allowed (ingress, egress)
};

/// What the user gave, checked against the table.
class Arguments {
  public:
    bool has(const std::string& option) const { return options_.contains(option); }
    /// The option's value, or `fallback` if it was not given.
    std::string get(const std::string& option, const std::string& fallback = {}) const;
    /// The option's value as a number in [low, high]; `fallback` if not given. The error names the
    /// option and the range.
    Result<std::uint64_t> number(const std::string& option, std::uint64_t fallback,
                                 std::uint64_t low, std::uint64_t high) const;
    /// Whether an optional positional was given.
    bool given(const std::string& positional) const { return positionals_.contains(positional); }
    /// A positional's word; empty if optional and not given.
    std::string operator[](const std::string& positional) const;
    /// The words of the `rest` positional.
    const std::vector<std::string>& rest() const { return rest_; }
    /// The same with an option that takes no value, whether it was given or not.
    Arguments with(const std::string& option) const {
        Arguments more = *this;
        more.options_.emplace(option, "");
        return more;
    }

  private:
    friend class CommandParser;
    std::map<std::string, std::string> options_;
    std::map<std::string, std::string> positionals_;
    std::vector<std::string> rest_;
};

/// What every command gets besides its own arguments: the global options.
struct Context {
    RootOptions root;  ///< --root and --lock-timeout
    std::string netns; ///< --netns: name or path; empty: the one we run in
    Output& out;
};

/// A handler returns the exit status, or an error whose kind tells it.
using Handler = std::function<Result<int>(const Arguments&, Context&)>;

struct Command {
    std::string name;
    std::string summary;       ///< one line
    std::string description{}; ///< paragraphs, may be empty
    std::vector<Positional> positionals{};
    std::vector<Option> options{};
    Handler run{};                   ///< empty for a command with children
    std::vector<Command> children{}; ///< verbs
    std::string table{};             ///< lines that --help shows as they are
};

/// Options that every command takes.
const std::vector<Option>& global_options();

struct ParsedCommand {
    const Command* command = nullptr;
    std::string path; ///< "netctl xdp attach"
    Arguments arguments;
};

/// Checks `words` (argv without the program) against the table. `--help` and `--version` leave the
/// rest unchecked.
Result<ParsedCommand> parse_command(const Command& root, const std::vector<std::string>& words);

/// Parses `words` (argv without the program) against `root` and runs what they name. Errors and
/// help are written through `out`'s streams. Returns the exit status.
int run_command(const Command& root, const std::vector<std::string>& words);

} // namespace netctl
