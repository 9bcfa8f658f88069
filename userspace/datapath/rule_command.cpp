// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/rule_command.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "classifier/classbench.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "datapath/edit.hpp"
#include "datapath/hidden_notes.hpp"
#include "sys/text_file.hpp"

namespace netctl::datapath {

namespace {

Result<std::uint32_t> parse_id(const std::string& text) {
    std::uint32_t id = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (status != std::errc{} || end != text.data() + text.size() || id == 0)
        return Error::usage(fmt::format("'{}' is no rule id", text),
                            "a rule's id is the number in the first column of `rule list`");
    return id;
}

Json report_json(const CommitReport& report) {
    return {{"generation", report.generation},
            {"engine", report.engine},
            {"rules_apart", report.rules_apart},
            {"reason", report.reason.empty() ? Json() : Json(report.reason)},
            {"table_bytes", report.memory}};
}

Result<Rule> rule_from(const Arguments& arguments, Hook hook, std::vector<std::string>& notes) {
    if (arguments.rest().empty())
        return Error::usage("the rule is missing", hook == Hook::policy
                                                       ? "for example: dst 192.0.2.0/24 deny"
                                                       : "for example: src 192.0.2.0/24 drop");
    return parse_rule(rule_text(arguments.rest()), hook, &notes);
}

/// Commits an edit that brings rules, and notes those that it hides. A policy's editor does so itself.
Result<CommitReport> commit_rules(RuleEditor& editor, Hook hook, RuleEditor::Scope scope,
                                  const RuleEditor::Edit& edit) {
    std::vector<std::string> hidden;
    CommitReport report = NETCTL_TRY(editor.commit(
        [&](PointState& state) -> Result<> {
            const std::vector<std::uint32_t> before = ids_of(state.rules);
            NETCTL_TRY(edit(state));
            NETCTL_TRY(check_readable(state.rules));
            if (is_of_packets(hook))
                hidden = hidden_notes(before, state.rules);
            return {};
        },
        scope));
    report.notes.insert(report.notes.end(), hidden.begin(), hidden.end());
    return report;
}

Result<int> add(const Arguments& arguments, const Context& context, Hook hook,
                const OpenEditor& open, bool at_front) {
    std::vector<std::string> notes;
    const Rule rule = NETCTL_TRY(rule_from(arguments, hook, notes));
    std::optional<std::uint32_t> before;
    if (arguments.has("before"))
        before = NETCTL_TRY(parse_id(arguments.get("before")));
    const auto editor = open(arguments, context);
    std::uint32_t id = 0;
    const CommitReport report = NETCTL_TRY(
        commit_rules(*editor, hook, RuleEditor::Scope::some, [&](PointState& state) -> Result<> {
            auto place = before;
            if (at_front && !place && !state.rules.empty())
                place = state.rules.front().rule.id;
            id = NETCTL_TRY(add_rule(state, rule, place));
            return {};
        }));
    notes.insert(notes.end(), report.notes.begin(), report.notes.end());
    context.out.notes(notes);
    Json json = report_json(report);
    json["rule_id"] = id;
    json["rule_text"] = to_string(rule);
    context.out.document(json, Text::format("{}: {}\n", id, to_string(rule)));
    return 0;
}

Result<int> remove(const Arguments& arguments, const Context& context, const OpenEditor& open) {
    std::vector<std::uint32_t> ids;
    for (const std::string& word : arguments.rest())
        ids.push_back(NETCTL_TRY(parse_id(word)));
    if (ids.empty())
        return Error::usage("the id of the rule is missing", "`rule list` shows the ids");
    const auto editor = open(arguments, context);
    const CommitReport report = NETCTL_TRY(editor->commit(
        [&](PointState& state) { return delete_rules(state, ids); }, RuleEditor::Scope::some));
    context.out.notes(report.notes);
    context.out.document(report_json(report), Text());
    return 0;
}

/// Status 0 if each rule may match, 1 if not, 4 if that could not be told.
Result<int> check(const std::vector<RuleStatus>& statuses, const Context& context) {
    std::vector<const Rule*> rules;
    for (const RuleStatus& status : statuses)
        if (status.why.empty()) // one that cannot be read hides nobody knows what
            rules.push_back(&status.rule);
    const std::size_t unreadable = statuses.size() - rules.size();
    const classifier::HiddenRules found = classifier::hidden_rules(rules, steps_of_checks);
    Json json = Json::array();
    Text text;
    for (const classifier::Hidden& hidden : found.hidden) {
        Json by = Json::array();
        for (const std::size_t earlier : hidden.by)
            by.push_back(rules[earlier]->id);
        const Rule& rule = *rules[hidden.rule];
        json.push_back(
            {{"rule_id", rule.id}, {"rule_text", to_string(rule)}, {"hidden_by", std::move(by)}});
        text += Text::format("{}\n  {}\n", hidden_text(hidden, rules), to_string(rule));
    }
    context.out.document(json, text);
    if (unreadable > 0) {
        const Text what =
            Text::format("{} of the rules cannot be read: what they hide is not known", unreadable);
        if (found.hidden.empty())
            return Error::unknown(what);
        context.out.note(what);
    }
    if (found.unknown > 0) {
        const Text what =
            Text::format("of {} rules it is not known whether they can match: to compare "
                         "them with those before them would take too long",
                         found.unknown);
        if (found.hidden.empty())
            return Error::unknown(what);
        context.out.note(what);
    }
    return found.hidden.empty() ? 0 : 1;
}

Result<int> list(const Arguments& arguments, const Context& context, Hook hook,
                 const OpenEditor& open) {
    const auto editor = open(arguments, context);
    auto read = editor->rules();
    if (arguments.has("check")) {
        if (!read)
            return std::move(read).error().could_not_tell();
        return check(*read, context);
    }
    const std::vector<RuleStatus> rules = NETCTL_TRY(std::move(read));
    Json json = Json::array();
    for (const RuleStatus& status : rules)
        json.push_back(rule_json(status, hook));
    context.out.document(json, rules.empty() ? "" : rule_table(rules, "", hook));
    return 0;
}

/// The rules of a ClassBench filter set, as the language has them: what it refuses, since no packet can match
/// it, is counted and left out.
Result<std::vector<Rule>> parse_classbench(std::string_view text, const std::string& source,
                                           Hook hook, std::size_t& skipped) {
    std::vector<Rule> rules;
    for (Rule& rule : NETCTL_TRY(classifier::parse_classbench(text, source, ActionKind::drop))) {
        if (parse_rule(to_string(rule), hook))
            rules.push_back(std::move(rule));
        else
            skipped++;
    }
    return rules;
}

Result<int> replace(const Arguments& arguments, const Context& context, Hook hook,
                    const OpenEditor& open, bool with_nothing) {
    std::vector<Rule> rules;
    std::size_t skipped = 0;
    if (!with_nothing) {
        const std::string path = arguments["FILE"];
        const std::string text = NETCTL_TRY(sys::read_text(path));
        const std::string source = sys::text_name(path);
        rules = NETCTL_TRY(arguments.get("format") == "classbench"
                               ? parse_classbench(text, source, hook, skipped)
                               : parse_rules(text, hook, source));
        if (rules.empty() && !arguments.has("allow-empty"))
            return Error::usage(
                Text::format("{} has no rules to replace those in force by", source),
                "--allow-empty deletes all rules, as `rule flush` does; an input that "
                "failed looks the same");
    }
    const auto editor = open(arguments, context);
    const std::size_t count = rules.size();
    if (skipped > 0)
        context.out.note(fmt::format("{} rule{} of {} can never match, and {} left out", skipped,
                                     skipped == 1 ? "" : "s", sys::text_name(arguments["FILE"]),
                                     skipped == 1 ? "is" : "are"));
    const CommitReport report =
        NETCTL_TRY(commit_rules(*editor, hook, RuleEditor::Scope::all, [&](PointState& state) {
            return replace_rules(state, std::move(rules));
        }));
    context.out.notes(report.notes);
    Json json = report_json(report);
    json["rule_count"] = count;
    context.out.document(json, with_nothing ? "" : Text::format("{} rules in force\n", count));
    return 0;
}

/// What the two numbers of a rule's counter are.
struct CounterNames {
    const char* first;
    const char* second;
};

CounterNames counter_names(Hook hook) {
    if (hook == Hook::policy)
        return {"cgroup", "lsm"};
    return {"packets", "bytes"};
}

std::uint64_t over(const RuleStatus& status, Hook hook) {
    return status.counter.over_packets + (hook == Hook::policy ? status.counter.over_bytes : 0);
}

/// Whether the rule drops what comes too fast.
bool polices(const Rule& rule) {
    return rule.limit ||
           std::any_of(rule.actions.begin(), rule.actions.end(),
                       [](const Action& action) { return action.kind == ActionKind::rate; });
}

} // namespace

std::string text_of(const RuleStatus& status) {
    if (status.why.empty())
        return to_string(status.rule);
    std::string text = "unreadable: ";
    for (const char c : status.unreadable) {
        const auto byte = static_cast<unsigned char>(c);
        text += byte >= ' ' && byte < 0x7f && c != '\\' ? std::string(1, c)
                                                        : fmt::format("\\x{:02x}", byte);
    }
    return text;
}

Json engine_json(const nc_point& point) {
    return {{"name", point.engine == NC_ENGINE_LINEAR ? "linear" : "crossing"},
            {"rules_apart", point.rules_apart},
            {"changes", point.changes},
            {"table_bytes", point.table_bytes}};
}

Text engine_text(const nc_point& point) {
    Text text = Text::format("{} KiB of tables", (point.table_bytes + 1023) / 1024);
    if (point.engine == NC_ENGINE_LINEAR)
        text = "asked rule by rule, as tables would be too large";
    if (point.rules_apart > 0)
        text += Text::format(", {} of {} rules apart", point.rules_apart, point.rules);
    if (point.changes > 0)
        text += Text::format(", {} change{} since", point.changes, point.changes == 1 ? "" : "s");
    return text;
}

Json rule_json(const RuleStatus& status, Hook hook) {
    Json json{{"rule_id", status.rule.id}, {"rule_text", text_of(status)}};
    json["unreadable"] = status.why.empty() ? Json() : Json(status.why);
    const CounterNames names = counter_names(hook);
    json[names.first] = status.counter.packets;
    json[names.second] = status.counter.bytes;
    json[std::string("over_") + names.first] = status.counter.over_packets;
    json[std::string("over_") + names.second] = status.counter.over_bytes;
    return json;
}

Text rule_table(const std::vector<RuleStatus>& rules, const Text& indent, Hook hook) {
    const bool any_limit = std::any_of(
        rules.begin(), rules.end(), [](const RuleStatus& status) { return polices(status.rule); });
    const CounterNames names = counter_names(hook);
    std::vector<TextTable::Column> columns{{"id", true}, {names.first, true}, {names.second, true}};
    if (any_limit)
        columns.push_back({"over limit", true});
    columns.push_back({"rule"});
    TextTable table(columns);
    for (const RuleStatus& status : rules) {
        std::vector<Text> row{std::to_string(status.rule.id),
                              std::to_string(status.counter.packets),
                              std::to_string(status.counter.bytes)};
        if (any_limit)
            row.push_back(polices(status.rule) ? std::to_string(over(status, hook)) : "");
        row.push_back(text_of(status));
        table.row(std::move(row));
    }
    return table.render(indent);
}

Command rule_command(Hook hook, const std::vector<Positional>& place, const OpenEditor& open,
                     const std::vector<Option>& more, const std::vector<Option>& change) {
    const bool packets = hook != Hook::policy;
    const auto options = [&](std::vector<Option> own) {
        own.insert(own.end(), more.begin(), more.end());
        own.insert(own.end(), change.begin(), change.end());
        return own;
    };
    std::vector<Option> replace_options{{"allow-empty", "", "replace also by nothing", {}}};
    if (packets)
        replace_options.push_back({"format",
                                   "netctl|classbench",
                                   "language of the file (default: netctl)",
                                   {"netctl", "classbench"}});
    const auto with = [&](std::vector<Positional> more) {
        std::vector<Positional> all = place;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    using Count = Positional::Count;
    Command command{"rule", packets ? "the rules of an interface: first match wins, in order"
                                    : "the rules of the policy: first match wins, in order"};
    command.children = {
        {.name = "add",
         .summary = "add a rule at the end and print its id",
         .positionals = with({{"RULE", Count::rest}}),
         .options = options({}),
         .run = [=](const Arguments& arguments,
                    Context& context) { return add(arguments, context, hook, open, false); },
         .table = rule_help(hook)},
        {.name = "insert",
         .summary = "insert a rule at the front, or before another one, and print its id",
         .positionals = with({{"RULE", Count::rest}}),
         .options = options({{"before", "ID", "put it before the rule with this id", {}}}),
         .run = [=](const Arguments& arguments,
                    Context& context) { return add(arguments, context, hook, open, true); },
         .table = rule_help(hook)},
        {.name = "delete",
         .summary = "delete rules by their ids, all at once or none",
         .positionals = with({{"ID", Count::rest}}),
         .options = change,
         .run = [=](const Arguments& arguments,
                    Context& context) { return remove(arguments, context, open); }},
        {.name = "list",
         .summary = "list the rules with their ids and counters",
         .positionals = place,
         .options =
             {{"check",
               "",
               "list the rules that can never match, since those before them cover them; exit "
               "status 0 there are none, 1 there are, 4 could not tell",
               {}}},
         .run = [=](const Arguments& arguments,
                    Context& context) { return list(arguments, context, hook, open); }},
        {.name = "flush",
         .summary = "delete all rules, so that the default verdict applies to everything",
         .positionals = place,
         .options = change,
         .run = [=](const Arguments& arguments,
                    Context& context) { return replace(arguments, context, hook, open, true); }},
        {.name = "replace",
         .summary = "replace all rules by those of a file or of standard input, atomically",
         .description = std::string("The file has one rule a line; '#' starts a comment. A rule "
                                    "that was in force before keeps its id and its counters.") +
                        (packets ? " ClassBench filter sets have no actions: each of their rules "
                                   "drops."
                                 : ""),
         .positionals = with({{"FILE", Count::optional}}),
         .options = options(replace_options),
         .run = [=](const Arguments& arguments,
                    Context& context) { return replace(arguments, context, hook, open, false); }},
    };
    return command;
}

} // namespace netctl::datapath
