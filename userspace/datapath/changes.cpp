// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/changes.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "bpf/standalone.hpp"
#include "classifier/changes.hpp"
#include "core/log.hpp"
#include "core/transaction.hpp"
#include "datapath/counter_slots.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/rule_action.hpp"

namespace netctl::datapath {

namespace {

/// Whether the points differ in what is a constant of the program.
bool same_settings(nc_point a, nc_point b) {
    for (nc_point* point : {&a, &b}) {
        point->generation = 0;
        point->next_rule_id = 0;
        point->rules = 0;
        point->changes = 0;
    }
    return std::memcmp(&a, &b, sizeof a) == 0;
}

/// Whether the program has to be made with the rule: its limit adds to a set, which the program has to ask.
bool needs_program(const Rule& rule) {
    return rule.limit && rule.limit->over;
}

bool has_device(const Rule& rule) {
    return std::any_of(rule.actions.begin(), rule.actions.end(),
                       [](const Action& action) { return !action.device.empty(); });
}

/// What the program can do beside matching.
struct Abilities {
    std::uint32_t fields = 0;  ///< bits NC_FIELD_…: it parses them
    std::uint32_t actions = 0; ///< bits NC_ACTION_…
};

Result<Abilities> abilities(const std::vector<const Rule*>& compiled) {
    Abilities out;
    const ResolveDevice any = [](const std::string&) -> Result<std::uint32_t> { return 0U; };
    InstalledRule installed;
    for (const Rule* rule : compiled) {
        out.fields |= wanted_fields(*rule);
        if (rule->log || rule->limit || rule->actions.size() > 1 ||
            rule->actions.front().kind == ActionKind::redirect ||
            rule->actions.front().kind == ActionKind::reject ||
            rule->actions.front().kind == ActionKind::syncookie) {
            installed.rule = *rule;
            out.actions |= NETCTL_TRY(encode_action(installed, any)).flags;
        }
    }
    return out;
}

/// The rules that the program was made with, in their order then.
std::vector<const Rule*> compiled_rules(const PointState& state) {
    std::vector<const Rule*> compiled(state.compiled);
    for (const auto* rules : {&state.gone, &state.rules})
        for (const InstalledRule& installed : *rules)
            if (installed.action < compiled.size())
                compiled[installed.action] = &installed.rule;
    return compiled;
}

/// Indexes of `actions` behind the compiled rules' that the rules in force do not use.
class FreeActions {
  public:
    explicit FreeActions(const PointState& in_force) : next_(in_force.compiled) {
        for (const InstalledRule& installed : in_force.rules)
            if (installed.action >= in_force.compiled)
                used_.insert(installed.action);
    }
    std::uint32_t take() {
        while (used_.contains(next_))
            next_++;
        return next_++;
    }

  private:
    std::uint32_t next_;
    std::set<std::uint32_t> used_;
};

/// What is to be written before the block is put in force.
struct Plan {
    std::unique_ptr<nc_changes> block;
    std::vector<InstalledRule> fresh; ///< have no action yet
    std::vector<nc_action> actions;   ///< theirs
};

/// Nothing if it takes a new program; slots that rules have been given by then are good for that, too.
Result<std::unique_ptr<Plan>> make_plan(const PointState& before, PointState& state) {
    const std::vector<const Rule*> compiled = compiled_rules(before);
    // What another tool did to the maps is no reason to fall over.
    if (std::find(compiled.begin(), compiled.end(), nullptr) != compiled.end())
        return std::unique_ptr<Plan>();
    std::vector<classifier::ListedRule> list;
    list.reserve(state.rules.size());
    for (const InstalledRule& installed : state.rules) {
        if (has_device(installed.rule)) // it may be another one by now
            return std::unique_ptr<Plan>();
        list.push_back({&installed.rule, installed.action < before.compiled
                                             ? installed.action
                                             : classifier::not_compiled});
    }
    auto changes = classifier::compile_changes(compiled, list);
    if (!changes) {
        if (changes.error().kind != ErrorKind::usage)
            return std::move(changes).error();
        debug("a new program: " + changes.error().what);
        return std::unique_ptr<Plan>();
    }

    assign_slots(state.rules, &before.rules);
    auto out = std::make_unique<Plan>();
    out->block = std::move(changes->block);
    nc_changes& block = *out->block;
    const Abilities able = NETCTL_TRY(abilities(compiled));
    FreeActions indexes(before);
    std::vector<InstalledRule> listed;
    for (std::size_t bit = 0; bit < changes->rules.size(); bit++) {
        if (!(block.listed >> bit & 1))
            continue;
        InstalledRule& installed = state.rules[changes->rules[bit]];
        const Rule& rule = installed.rule;
        if (installed.action == not_installed) {
            if (wanted_fields(rule) & ~able.fields || needs_program(rule))
                return std::unique_ptr<Plan>();
            const nc_action action = NETCTL_TRY(encode_action(installed, {}));
            if (action.flags & ~able.actions)
                return std::unique_ptr<Plan>();
            installed.action = indexes.take();
            out->fresh.push_back(installed);
            out->actions.push_back(action);
        }
        block.action[bit] = installed.action;
        listed.push_back(installed);
    }
    const std::vector<nc_rule_text> texts = encode_rules(listed);
    if (texts.size() > NC_CHANGE_TEXTS)
        return std::unique_ptr<Plan>();
    std::copy(texts.begin(), texts.end(), block.texts);
    block.records = static_cast<__u32>(texts.size());
    block.generation = state.point.generation;
    block.next_rule_id = state.point.next_rule_id;
    return out;
}

} // namespace

Result<bool> commit_changes(const LivePoint& live, PointState& state, Hook hook,
                            std::vector<std::string>& notes,
                            const std::function<Result<>()>& ready) {
    const PointState& before = live.state;
    if (before.compiled < least_compiled || !same_settings(before.point, state.point) ||
        !check_readable(before.rules) || !check_readable(before.gone))
        return false;
    const auto plan = NETCTL_TRY(make_plan(before, state));
    if (!plan)
        return false;
    const FindMap find = [&](const std::string& name) { return live.program.map(name); };
    const bpf::RawMap counters = NETCTL_TRY(find("counters"));
    NETCTL_TRY(prepare_counters(counters, state.rules, &before.rules,
                                {"counter_chunk", sizeof(nc_counter)}));
    NETCTL_TRY(prepare_state(find, hook, plan->fresh));
    const bpf::RawMap actions = NETCTL_TRY(find("actions"));
    for (std::size_t i = 0; i < plan->fresh.size(); i++)
        NETCTL_TRY(actions.update(&plan->fresh[i].action, &plan->actions[i]));

    const std::uint32_t zero = 0;
    const bpf::RawMap block = NETCTL_TRY(bpf::create_standalone("change_block", 1));
    NETCTL_TRY(block.update(&zero, plan->block.get()));
    const bpf::RawMap slot = NETCTL_TRY(find("changes"));
    const int fd = block.fd();
    NETCTL_TRY(ready());
    // The commit. Returns when no CPU looks at the block before it any more, whose actions and
    // counters the next commit may use.
    Transaction transaction(notes);
    NETCTL_TRY(slot.update(&zero, &fd));
    return std::move(transaction).commit([&](Aftermath& after) {
        state.point.rules = plan->block->rules;
        state.point.changes = static_cast<__u32>(std::popcount(plan->block->all));
        after.tidy("the state of limits", forget_limits(live.program, state, hook));
        return true;
    });
}

} // namespace netctl::datapath
