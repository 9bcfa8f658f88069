// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/commit.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "bpf/standalone.hpp"
#include "core/abi_version.hpp"
#include "core/transaction.hpp"
#include "datapath/counter_slots.hpp"
#include "datapath/edit.hpp"
#include "datapath/hidden_notes.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/set_uses.hpp"
#include "datapath/sets.hpp"
#include "features/policy/compile.hpp"
#include "sys/cgroup.hpp"

namespace netctl::policy {

using datapath::FindMap;
using datapath::InstalledRule;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;

namespace {

/// A cgroup's path as the kernel's names make it: without the place where cgroups are mounted.
std::string below_mount(const std::string& path) {
    const auto mount = sys::cgroup_mount();
    if (!mount || !path.starts_with(*mount) ||
        (path.size() > mount->size() && path[mount->size()] != '/'))
        return path;
    return path.size() == mount->size() ? "/" : path.substr(mount->size());
}

} // namespace

Result<> check_names(PointState& state, const std::vector<InstalledRule>* before,
                     bool allow_missing, std::vector<std::string>& notes) {
    std::set<std::uint32_t> known;
    if (before)
        for (const InstalledRule& installed : *before)
            known.insert(installed.rule.id);
    for (InstalledRule& installed : state.rules)
        for (Match& match : installed.rule.matches) {
            const bool exe = match.key == Key::exe;
            if (!exe && match.key != Key::cgroup)
                continue;
            if (!exe)
                match.path = below_mount(match.path);
            if (exe ? find_exe(match.path).has_value()
                    : static_cast<bool>(sys::find_cgroup(match.path)))
                continue;
            const std::string what = fmt::format("rule {}: there is no {} {}", installed.rule.id,
                                                 exe ? "executable file" : "cgroup", match.path);
            // What was there when the rule was made may be away for a while.
            if (!allow_missing && !known.contains(installed.rule.id))
                return Error::failed(fmt::format("{}, which `{}` names",
                                                 what.substr(what.find(": ") + 2),
                                                 to_string(installed.rule)),
                                     exe ? "--allow-missing takes the rule all the same; it is "
                                           "looked for again with each change of the rules"
                                         : "--allow-missing takes the rule all the same, for a "
                                           "cgroup to come");
            notes.push_back(what);
        }
    return {};
}

void note_covered(const PointState& state, const std::vector<InstalledRule>* before,
                  std::vector<std::string>& notes) {
    const std::vector<std::string> hidden = datapath::hidden_notes(
        before != nullptr ? datapath::ids_of(*before) : std::vector<std::uint32_t>(), state.rules);
    notes.insert(notes.end(), hidden.begin(), hidden.end());
}

nc_policy_action encode_action(const InstalledRule& installed) {
    const Rule& rule = installed.rule;
    nc_policy_action action{};
    action.rule_id = rule.id;
    action.slot = installed.slot;
    const ActionKind kind = rule.actions.back().kind;
    action.verdict = kind == ActionKind::deny    ? NC_POLICY_DENY
                     : kind == ActionKind::audit ? NC_POLICY_AUDIT
                                                 : NC_POLICY_ALLOW;
    if (rule.log)
        action.flags |= NC_POLICY_LOG;
    if (rule.limit) {
        action.flags |= NC_POLICY_LIMIT;
        action.limit_interval_ns =
            std::max<std::uint64_t>(rule.limit->period_ns / rule.limit->count, 1);
        action.limit_burst_ns = action.limit_interval_ns * (rule.limit->burst - 1);
    }
    return action;
}

namespace {

/// Removes the entries of a map whose key begins with an epoch other than `epoch`.
Result<> keep_epoch(const bpf::RawMap& map, std::uint32_t epoch) {
    const bpf::MapKeys keys = NETCTL_TRY(map.keys());
    for (const std::uint8_t* key : keys) {
        std::uint32_t of = 0;
        std::memcpy(&of, key, sizeof of);
        if (of != epoch)
            NETCTL_TRY(map.erase(key));
    }
    return {};
}

template <class K, class V>
Result<> write_entries(const bpf::RawMap& map, std::vector<std::pair<K, V>>& entries,
                       std::uint32_t epoch) {
    std::vector<K> keys;
    std::vector<V> values;
    for (auto& [key, value] : entries) {
        key.epoch = epoch;
        keys.push_back(key);
        values.push_back(value);
    }
    if (keys.empty())
        return {};
    return map.update_batch(keys.data(), values.data(), static_cast<std::uint32_t>(keys.size()),
                            sizeof(K), sizeof(V));
}

/// Gives each use of a set a slot in the outer maps. Slots in use now are left to what they hold.
Result<> place_sets(const Root& root, const FindMap& maps, Tables& tables, const Live* live) {
    std::set<std::uint8_t> taken;
    if (live)
        for (std::uint32_t i = 0; i < live->head.n_set_uses; i++)
            taken.insert(live->head.set_use[i].slot);
    std::uint8_t candidate = 0;
    for (std::size_t i = 0; i < tables.set_uses.size(); i++) {
        const datapath::Set set = NETCTL_TRY(datapath::open_used_set(root, tables.set_uses[i]));
        while (taken.contains(candidate))
            candidate++;
        nc_policy_set_use& use = tables.head.set_use[i];
        use.type = static_cast<__u8>(set.type());
        use.slot = candidate++;
        use.number = set.number();
        NETCTL_TRY(datapath::place_set(maps, set, use.slot));
    }
    return {};
}

Result<> prepare_limits(const bpf::RawMap& limits, const PointState& state) {
    constexpr std::uint64_t if_missing = 1; // BPF_NOEXIST: a limit that runs keeps its state
    for (const InstalledRule& installed : state.rules) {
        if (!installed.rule.limit)
            continue;
        const nc_limit_key key{installed.rule.id, {}, 0, 0, 0};
        const nc_limit_state fresh{};
        const auto status = limits.update(&key, &fresh, if_missing);
        if (!status && status.error().code != EEXIST)
            return Error(status.error());
    }
    return {};
}

/// Puts the tables into segments and these into the outer maps. The first one is returned, to be
/// put in force.
Result<bpf::RawMap> make_segments(const FindMap& maps, Tables& tables) {
    nc_policy_head& head = tables.head;
    std::vector<std::uint64_t> all(NC_HEAD_WORDS);
    all.insert(all.end(), tables.words.begin(), tables.words.end());
    head.near = all.size() <= NC_SEGMENT_WORDS;
    head.segment_base = head.generation % 2 * NC_MAX_SEGMENTS;
    std::memcpy(all.data(), &head, sizeof head);
    const std::size_t count = (all.size() + NC_SEGMENT_WORDS - 1) / NC_SEGMENT_WORDS;
    all.resize(count * NC_SEGMENT_WORDS);
    bpf::RawMap first;
    std::vector<bpf::RawMap> segments;
    const std::uint32_t zero = 0;
    for (std::size_t i = 0; i < count; i++) {
        segments.push_back(NETCTL_TRY(bpf::create_standalone("policy_segment", 1)));
        NETCTL_TRY(segments.back().update(&zero, all.data() + i * NC_SEGMENT_WORDS));
    }
    if (!head.near) {
        const bpf::RawMap outer = NETCTL_TRY(maps("segments"));
        for (std::uint32_t i = 0; i < count; i++) {
            const std::uint32_t slot = head.segment_base + i;
            const int fd = segments[i].fd();
            NETCTL_TRY(outer.update_batch(&slot, &fd, 1, sizeof slot, sizeof fd));
        }
    }
    return std::move(segments.front());
}

/// Frees the segments of a generation that is no longer in force.
Result<> drop_segments(const FindMap& maps, const nc_policy_head& head) {
    if (head.near)
        return {};
    const bpf::RawMap outer = NETCTL_TRY(maps("segments"));
    for (std::uint32_t i = 0; i < NC_MAX_SEGMENTS; i++) {
        const std::uint32_t slot = head.segment_base + i;
        if (!NETCTL_TRY(outer.erase(&slot)))
            break;
    }
    return {};
}

} // namespace

Result<Published> publish(const LockedRoot& root, const FindMap& maps, PointState& state,
                          nc_policy_head head, const Live* live, std::vector<std::string>& notes) {
    NETCTL_TRY(datapath::check_readable(state.rules));
    const std::vector<InstalledRule>* before = live ? &live->rules : nullptr;
    datapath::assign_slots(state.rules, before);
    std::vector<Rule> rules;
    std::vector<nc_policy_action> actions;
    for (const InstalledRule& installed : state.rules) {
        rules.push_back(installed.rule);
        actions.push_back(encode_action(installed));
    }
    Tables tables = NETCTL_TRY(compile(rules, actions, find_exe));

    const std::vector<nc_rule_text> records = datapath::encode_rules(state.rules);
    nc_policy_head& fresh = tables.head;
    fresh.abi_version = abi_version();
    fresh.mode = head.mode;
    fresh.default_verdict = head.default_verdict;
    fresh.layers = head.layers;
    fresh.generation = head.generation + 1;
    fresh.scope_id = head.scope_id;
    fresh.scope_level = head.scope_level;
    fresh.epoch = static_cast<std::uint32_t>(fresh.generation);
    fresh.records = static_cast<std::uint32_t>(records.size());
    fresh.next_rule_id = state.point.next_rule_id;
    fresh.log_rate = head.log_rate;
    const std::uint64_t rate = head.log_rate;
    fresh.log_interval = rate == 0 ? 0 : std::max<std::uint64_t>(1'000'000'000 / rate, 1);
    fresh.log_burst = rate == 0 ? 0 : fresh.log_interval * (rate - 1);
    fresh.texts_slot = static_cast<std::uint32_t>(fresh.generation % 2);
    std::memcpy(fresh.scope, head.scope, sizeof fresh.scope);

    const bpf::RawMap cgroups = NETCTL_TRY(maps("cgroups"));
    const auto tidy = [&](std::uint32_t epoch) -> Result<> { return keep_epoch(cgroups, epoch); };
    NETCTL_TRY(tidy(head.epoch)); // a commit that was killed may have left some of this epoch
    NETCTL_TRY(write_entries(cgroups, tables.cgroups, fresh.epoch));
    const bpf::RawMap counters = NETCTL_TRY(maps("counters"));
    NETCTL_TRY(datapath::prepare_counters(counters, state.rules, before,
                                          {"policy_counters", sizeof(nc_policy_counter)}));
    const bpf::RawMap limits = NETCTL_TRY(maps("limits"));
    NETCTL_TRY(prepare_limits(limits, state));
    NETCTL_TRY(place_sets(root, maps, tables, live));

    const bpf::RawMap texts = NETCTL_TRY(
        bpf::create_standalone("policy_texts", std::max<std::uint32_t>(fresh.records, 1)));
    NETCTL_TRY(texts.write_array(records.data(), sizeof(nc_rule_text), fresh.records));
    const bpf::RawMap texts_outer = NETCTL_TRY(maps("texts"));
    const int texts_fd = texts.fd();
    NETCTL_TRY(texts_outer.update_batch(&fresh.texts_slot, &texts_fd, 1, sizeof(std::uint32_t),
                                        sizeof texts_fd));
    const bpf::RawMap first = NETCTL_TRY(make_segments(maps, tables));
    const bpf::RawMap slot = NETCTL_TRY(maps("root"));
    const std::uint32_t zero = 0;
    const int fd = first.fd();
    Transaction transaction(notes);
    NETCTL_TRY(slot.update(&zero, &fd));
    return std::move(transaction).commit([&](Aftermath& after) {
        after.tidy("the cgroups of the former rules", tidy(fresh.epoch));
        if (live) {
            after.tidy("the former tables", drop_segments(maps, live->head));
            after.tidy("the state of limits",
                       datapath::forget_limits(live->program, state, Hook::policy));
        }
        after.tidy("the pin of the rules", policy_dir(root).replace("rules", texts));
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        Published published;
        published.head = fresh;
        published.memory = (NC_HEAD_WORDS + tables.words.size()) * sizeof(std::uint64_t);
        return published;
    });
}

} // namespace netctl::policy
