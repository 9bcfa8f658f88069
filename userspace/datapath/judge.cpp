// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/judge.hpp"

namespace netctl::datapath {

Result<LiveSets> LiveSets::open(const Root& root, const std::vector<InstalledRule>& rules) {
    LiveSets live;
    for (const InstalledRule& installed : rules)
        for (const std::string& set : sets_of(installed.rule))
            if (!live.sets_.contains(set))
                live.sets_.emplace(set, NETCTL_TRY(Set::open(root, set)));
    return live;
}

classifier::SetOracle LiveSets::oracle() {
    return {[this](const std::string& set, const Address& address) {
                return has(set, Prefix{address, static_cast<std::uint8_t>(address.bits())});
            },
            [this](const std::string& set, std::uint16_t port) { return has(set, port); }};
}

bool LiveSets::has(const std::string& name, const SetElement& element) {
    const auto set = sets_.find(name);
    if (set == sets_.end())
        return false;
    auto answer = set->second.contains(element);
    if (!answer.has_value() && !failure_)
        failure_ = answer.error();
    return answer.has_value() && *answer;
}

nc_verdict verdict_of(const Rule& rule) {
    switch (rule.actions.back().kind) {
    case ActionKind::drop: return NC_VERDICT_DROP;
    case ActionKind::reject: return NC_VERDICT_REJECT;
    case ActionKind::tx: return NC_VERDICT_TX;
    case ActionKind::redirect: return NC_VERDICT_REDIRECT;
    case ActionKind::syncookie: return NC_VERDICT_SYNCOOKIE;
    case ActionKind::next: return NC_VERDICT_NEXT;
    default: return NC_VERDICT_PASS;
    }
}

Result<Judged> judge(const PointState& state, const nc_packet& packet,
                     const classifier::SetOracle& oracle) {
    NETCTL_TRY(check_readable(
        state.rules)); // one that cannot be read has no keys, and would match everything
    Judged judged{nullptr, NC_NO_RULE, static_cast<nc_verdict>(state.point.default_verdict),
                  NC_REASON_DEFAULT};
    for (std::uint32_t i = 0; i < state.rules.size(); i++)
        if (classifier::matches(state.rules[i].rule, packet, oracle)) {
            judged = {&state.rules[i].rule, i, verdict_of(state.rules[i].rule), NC_REASON_RULE};
            break;
        }
    return judged;
}

Result<Judged> judge(const PointState& state, const nc_packet& packet, LiveSets& sets) {
    const Judged judged = NETCTL_TRY(judge(state, packet, sets.oracle()));
    NETCTL_TRY(sets.status());
    return judged;
}

} // namespace netctl::datapath
