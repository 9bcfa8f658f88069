// SPDX-License-Identifier: GPL-2.0-only
//
// The `rule` commands, the same for every packet filter: a feature says how its points are named
// and opened.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/command.hpp"
#include "datapath/point.hpp"

namespace netctl::datapath {

/// What a commit tells the user.
struct CommitReport {
    std::uint64_t generation = 0;
    std::string engine;             ///< form of the classifier
    std::size_t rules_apart = 0;    ///< rules that cost a little more each
    std::string reason;             ///< for these, or for the linear form
    std::size_t memory = 0;         ///< bytes of its tables
    std::vector<std::string> notes; ///< what the user should know although all went well
};

struct RuleStatus {
    Rule rule;
    nc_counter counter{}; ///< of a policy: connections by layer, in place of packets and bytes
    /// The stored text if it is no rule to this version, and why; `rule` has its id only then.
    std::string unreadable{}, why{};
};

/// A point's rules, as a feature's controller gives access to them.
class RuleEditor {
  public:
    using Edit = std::function<Result<>(PointState&)>;
    /// What an edit is about: all rules, so that it need not know those that are in force; or some.
    enum class Scope : bool { some, all };

    virtual ~RuleEditor() = default;
    virtual Result<std::vector<RuleStatus>> rules() = 0;
    /// Reads the state under the writers' lock, lets `edit` change it, and puts the outcome in
    /// force. An error of `edit` or of the commit leaves everything as it was.
    virtual Result<CommitReport> commit(const Edit& edit, Scope scope) = 0;
};

using OpenEditor = std::function<std::unique_ptr<RuleEditor>(const Arguments&, const Context&)>;

/// The command `rule` with its verbs; `place` are the positionals that name a point, `more` are
/// further options of the verbs that bring rules, `change` of all that change them.
Command rule_command(Hook hook, const std::vector<Positional>& place, const OpenEditor& open,
                     const std::vector<Option>& more = {}, const std::vector<Option>& change = {});

/// How a point's rules are looked up, and what that takes, as `status` shows it.
Json engine_json(const nc_point& point);
Text engine_text(const nc_point& point);

/// The rule as text. What is no rule may be anything, as somebody else has written it: `unreadable: ` and that, with
/// \xNN for what is not printable ASCII.
std::string text_of(const RuleStatus& status);
/// A rule with its counters, as `status` and `rule list` show it.
Json rule_json(const RuleStatus& status, Hook hook = Hook::xdp);
/// The same as a table.
Text rule_table(const std::vector<RuleStatus>& rules, const Text& indent = {},
                Hook hook = Hook::xdp);

} // namespace netctl::datapath
