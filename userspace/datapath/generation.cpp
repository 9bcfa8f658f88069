// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/generation.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>

#include <fmt/format.h>

#include "bpf/standalone.hpp"
#include "datapath/changes.hpp"
#include "datapath/sets.hpp"
#include "netctl/abi/changes.h"
#include "netctl/abi/classify.h"

namespace netctl::datapath {

namespace {

/// Maps that outlive a commit: the next program is given the same ones.
std::vector<std::string> persistent_maps(Hook hook) {
    std::vector<std::string> maps{"stats", "counters", "limits", "limit_src", "events"};
    if (hook == Hook::tc)
        maps.emplace_back("rates");
    return maps;
}

/// Pins beside `link`, by map name.
constexpr std::array pinned_maps{"point", "rules",    "actions", "changes",
                                 "stats", "counters", "events"};

template <class T> std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span(&value, 1));
}

std::uint32_t all_wanted(const std::vector<InstalledRule>& rules) {
    std::uint32_t wanted = 0;
    for (const InstalledRule& installed : rules)
        wanted |= wanted_fields(installed.rule);
    return wanted;
}

nc_verdict verdict_of(ActionKind kind) {
    switch (kind) {
    case ActionKind::drop: return NC_VERDICT_DROP;
    case ActionKind::tx: return NC_VERDICT_TX;
    case ActionKind::redirect: return NC_VERDICT_REDIRECT;
    case ActionKind::next: return NC_VERDICT_NEXT;
    default: return NC_VERDICT_PASS;
    }
}

bool has_rate(const Rule& rule) {
    return std::any_of(rule.actions.begin(), rule.actions.end(),
                       [](const Action& action) { return action.kind == ActionKind::rate; });
}

/// Numbers the devices that rules name, each once. What was in force before stays in force when its
/// device is gone: the program finds nothing under `no_device` and drops what is to go there.
class Devices {
  public:
    Devices(const ResolveDevice& resolve, const std::vector<InstalledRule>* before)
        : resolve_(resolve) {
        if (before)
            for (const InstalledRule& installed : *before)
                installed_.insert(installed.rule.id);
    }

    Result<std::uint32_t> resolve(const Rule& rule, const std::string& device) {
        auto known = numbers_.find(device);
        if (known == numbers_.end()) {
            auto number = resolve_(device);
            if (!number && !installed_.contains(rule.id))
                return std::move(number).error().within(to_string(rule));
            if (!number)
                notes_.push_back(fmt::format(
                    "{} is gone: what rule {} sends there is lost until a change of rules finds it "
                    "again",
                    device, rule.id));
            known = numbers_.emplace(device, number ? *number : no_device).first;
        }
        if (known->second == no_device && !installed_.contains(rule.id))
            return Error::failed(fmt::format("{}: {} is gone", to_string(rule), device));
        return known->second;
    }
    const std::vector<std::string>& notes() const { return notes_; }

  private:
    static constexpr std::uint32_t no_device = 0xffffffff;

    const ResolveDevice& resolve_;
    std::set<std::uint32_t> installed_;
    std::map<std::string, std::uint32_t> numbers_;
    std::vector<std::string> notes_;
};

struct OpenedSets {
    std::vector<nc_set_use> uses;
    std::vector<Set> sets;
};

Result<OpenedSets> open_sets(const Root& root, const std::vector<classifier::SetUse>& set_uses) {
    OpenedSets opened;
    for (const classifier::SetUse& use : set_uses) {
        Set set = NETCTL_TRY(open_used_set(root, use));
        nc_set_use entry{};
        entry.field = static_cast<__u8>(use.key);
        entry.type = static_cast<__u8>(set.type());
        entry.base = set.base_index();
        opened.uses.push_back(entry);
        opened.sets.push_back(std::move(set));
    }
    return opened;
}

Result<> fill_set(const FindMap& find, const std::string& outer_name, const bpf::RawMap& inner,
                  std::uint32_t index) {
    const bpf::RawMap outer = NETCTL_TRY(find(outer_name));
    const int fd = inner.fd();
    return outer.update(&index, &fd);
}

Result<> fill_sets(const bpf::Object& object, const OpenedSets& opened) {
    const FindMap find = [&](const std::string& name) { return object.map(name); };
    for (std::uint32_t i = 0; i < opened.sets.size(); i++)
        NETCTL_TRY(place_set(find, opened.sets[i], i));
    return {};
}

Result<> set_constants(const bpf::Object& object, const GenerationRequest& request,
                       const std::vector<nc_set_use>& uses, const std::vector<nc_action>& actions) {
    std::uint32_t used = 0;
    for (const nc_action& action : actions)
        used |= action.flags;
    const PointState& state = *request.state;
    const std::array<std::pair<const char*, std::uint32_t>, 7> numbers{{
        {"actions_used", used},
        {"wanted", all_wanted(state.rules)},
        {"default_verdict", state.point.default_verdict},
        {"unparsed_verdict", state.point.unparsed_verdict},
        {"simulate", request.simulate ? 1U : 0U},
        {"may_change", state.rules.size() >= least_compiled ? 1U : 0U},
        {"n_set_uses", static_cast<std::uint32_t>(uses.size())},
    }};
    for (const auto& [name, value] : numbers)
        NETCTL_TRY(object.set_constant(name, {&value, 1}));
    if (!uses.empty())
        NETCTL_TRY(object.set_rodata("set_use", std::as_bytes(std::span(uses))));

    // Up to a second's worth of events may come at once.
    const std::uint64_t rate = state.point.log_rate;
    const std::uint64_t interval = rate == 0 ? 0 : std::max<std::uint64_t>(1'000'000'000 / rate, 1);
    const std::uint64_t burst = rate == 0 ? 0 : interval * (rate - 1);
    const std::uint64_t generation = state.point.generation;
    NETCTL_TRY(object.set_rodata("log_interval", bytes_of(interval)));
    NETCTL_TRY(object.set_rodata("log_burst", bytes_of(burst)));
    NETCTL_TRY(object.set_rodata("generation", bytes_of(generation)));
    return {};
}

} // namespace

std::uint32_t wanted_fields(const Rule& rule) {
    std::uint32_t wanted = 0;
    for (const Match& match : rule.matches)
        wanted |= 1U << static_cast<unsigned>(match.key);
    if (rule.limit && rule.limit->per_source)
        wanted |= 1U << NC_FIELD_SRC;
    return wanted;
}

Result<nc_action> encode_action(const InstalledRule& installed, const ResolveDevice& resolve) {
    const Rule& rule = installed.rule;
    nc_action encoded{};
    encoded.rule_id = rule.id;
    encoded.slot = installed.slot;
    // A rule whose actions are all non-final leaves the packet to whoever comes next.
    encoded.verdict = NC_VERDICT_NEXT;
    for (const Action& action : rule.actions) {
        switch (action.kind) {
        case ActionKind::mark:
            encoded.flags |= NC_ACTION_MARK;
            encoded.mark = static_cast<__u32>(action.number);
            encoded.mark_mask = action.mask;
            break;
        case ActionKind::priority:
            encoded.flags |= NC_ACTION_PRIORITY;
            encoded.priority = static_cast<__u32>(action.number);
            break;
        case ActionKind::dscp:
            encoded.flags |= NC_ACTION_DSCP;
            encoded.dscp = static_cast<__u32>(action.number);
            break;
        case ActionKind::mirror:
            encoded.flags |= NC_ACTION_MIRROR;
            encoded.mirror = NETCTL_TRY(resolve(action.device));
            break;
        case ActionKind::rate:
            encoded.flags |= NC_ACTION_RATE;
            encoded.rate_bytes = std::max<std::uint64_t>(action.number / 8, 1);
            encoded.rate_burst = action.burst;
            break;
        case ActionKind::redirect:
            encoded.target = NETCTL_TRY(resolve(action.device));
            if (action.to_ingress)
                encoded.flags |= NC_ACTION_TO_INGRESS;
            [[fallthrough]];
        default: encoded.verdict = verdict_of(action.kind);
        }
    }
    if (rule.log)
        encoded.flags |= NC_ACTION_LOG;
    if (rule.limit) {
        encoded.flags |= NC_ACTION_LIMIT;
        if (rule.limit->per_source)
            encoded.flags |= NC_ACTION_LIMIT_PER_SOURCE;
        encoded.limit_interval_ns =
            std::max<std::uint64_t>(rule.limit->period_ns / rule.limit->count, 1);
        encoded.limit_burst_ns = encoded.limit_interval_ns * (rule.limit->burst - 1);
    }
    return encoded;
}

Result<> prepare_state(const FindMap& find, Hook hook, std::span<const InstalledRule> rules) {
    constexpr std::uint64_t if_missing = 1; // BPF_NOEXIST: what runs keeps its state
    const auto make = [](const bpf::RawMap& map, const void* key, const void* value) -> Result<> {
        const auto status = map.update(key, value, if_missing);
        if (!status && status.error().code != EEXIST)
            return Error(status.error());
        return {};
    };
    const bpf::RawMap limits = NETCTL_TRY(find("limits"));
    const bpf::RawMap rates = hook == Hook::tc ? NETCTL_TRY(find("rates")) : bpf::RawMap();
    for (const InstalledRule& installed : rules) {
        const Rule& rule = installed.rule;
        const nc_limit_key key{rule.id, {}};
        const nc_limit_state fresh_limit{};
        const nc_rate_state fresh_rate{};
        if (rule.limit && !rule.limit->per_source)
            NETCTL_TRY(make(limits, &key, &fresh_limit));
        if (hook == Hook::tc && has_rate(rule))
            NETCTL_TRY(make(rates, &rule.id, &fresh_rate));
    }
    return {};
}

Result<Set> open_used_set(const Root& root, const classifier::SetUse& use) {
    Set set = NETCTL_TRY(Set::open(root, use.set));
    const bool on_port = use.key == Key::sport || use.key == Key::dport;
    if (on_port != (set.type() == SetType::port))
        return Error::usage(fmt::format("set '{}' holds {}, and a rule asks it about {}", use.set,
                                        set.type() == SetType::port ? "ports" : "addresses",
                                        to_string(use.key)),
                            on_port ? "sport and dport take sets of type port"
                                    : "src and dst take sets of type host or cidr");
    return set;
}

Result<> place_set(const FindMap& find, const Set& set, std::uint32_t index) {
    if (set.type() == SetType::port)
        return fill_set(find, "set_port", set.ports(), index);
    const std::string form = set.type() == SetType::host ? "set_host" : "set_cidr";
    NETCTL_TRY(fill_set(find, form + "4", set.addresses(Family::ipv4), index));
    return fill_set(find, form + "6", set.addresses(Family::ipv6), index);
}

void assign_slots(std::vector<InstalledRule>& rules, const std::vector<InstalledRule>* previous) {
    std::vector<bool> used;
    const auto mark = [&](const InstalledRule& installed) {
        if (installed.slot >= NC_COUNTER_CHUNK * NC_COUNTER_CHUNKS)
            return; // none yet
        if (used.size() <= installed.slot)
            used.resize(std::size_t{installed.slot} + 1);
        used[installed.slot] = true;
    };
    std::for_each(rules.begin(), rules.end(), mark);
    if (previous)
        std::for_each(previous->begin(), previous->end(), mark);
    std::uint32_t candidate = 0;
    for (InstalledRule& installed : rules) {
        if (installed.slot != not_installed)
            continue;
        while (candidate < used.size() && used[candidate])
            candidate++;
        installed.slot = candidate++;
    }
}

namespace {

/// Makes those chunks of counters that are not there, all in one write: each one waits for a grace period.
/// Returns their numbers, sorted.
Result<std::vector<std::uint32_t>> add_chunks(const bpf::RawMap& counters,
                                              const std::set<std::uint32_t>& wanted,
                                              const CounterKind& kind) {
    std::vector<std::uint32_t> missing;
    for (const std::uint32_t number : wanted) {
        std::uint32_t id = 0;
        if (number >= NC_COUNTER_CHUNKS)
            return Error::failed("there are no more counters for rules");
        if (!NETCTL_TRY(counters.lookup(&number, &id)))
            missing.push_back(number);
    }
    const std::vector<bpf::RawMap> chunks =
        NETCTL_TRY(bpf::create_standalone(kind.chunk, NC_COUNTER_CHUNK, missing.size()));
    std::vector<int> fds;
    for (const bpf::RawMap& chunk : chunks)
        fds.push_back(chunk.fd());
    NETCTL_TRY(counters.update_batch(missing.data(), fds.data(),
                                     static_cast<std::uint32_t>(fds.size()), sizeof missing[0],
                                     sizeof fds[0]));
    return missing;
}

} // namespace

Result<> prepare_counters(const bpf::RawMap& counters, const std::vector<InstalledRule>& rules,
                          const std::vector<InstalledRule>* previous, const CounterKind& kind) {
    std::vector<std::uint32_t> kept;
    if (previous)
        for (const InstalledRule& installed : *previous)
            kept.push_back(installed.slot);
    std::sort(kept.begin(), kept.end());
    // By chunk, the slots that rules get and none had.
    std::map<std::uint32_t, std::vector<std::uint32_t>> taken;
    std::set<std::uint32_t> wanted;
    for (const InstalledRule& installed : rules) {
        const std::uint32_t number = installed.slot / NC_COUNTER_CHUNK;
        wanted.insert(number);
        if (!std::binary_search(kept.begin(), kept.end(), installed.slot))
            taken[number].push_back(installed.slot % NC_COUNTER_CHUNK);
    }
    const std::vector<std::uint32_t> fresh = NETCTL_TRY(add_chunks(counters, wanted, kind));
    const std::vector<std::byte> zeroes(bpf::possible_cpus() * kind.size);
    for (const auto& [number, slots] : taken) {
        if (std::binary_search(fresh.begin(), fresh.end(), number))
            continue; // all zeroes
        std::uint32_t id = 0;
        NETCTL_TRY(counters.lookup(&number, &id));
        const bpf::RawMap chunk = NETCTL_TRY(bpf::RawMap::open_id(id));
        for (const std::uint32_t slot : slots)
            NETCTL_TRY(chunk.update(&slot, zeroes.data()));
    }
    return {};
}

Result<Generation> load_generation(const bpf::Object& object, const Root& root,
                                   const GenerationRequest& request) {
    PointState& state = *request.state;
    const std::vector<InstalledRule>* before =
        request.previous ? &request.previous->state.rules : nullptr;
    assign_slots(state.rules, before);

    std::vector<Rule> rules;
    for (const InstalledRule& installed : state.rules)
        rules.push_back(installed.rule);
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(rules));
    const OpenedSets sets = NETCTL_TRY(open_sets(root, compiled.set_uses));

    Devices devices(request.resolve_device, before);
    std::vector<nc_action> actions;
    for (const InstalledRule& installed : state.rules)
        actions.push_back(NETCTL_TRY(encode_action(installed, [&](const std::string& device) {
            return devices.resolve(installed.rule, device);
        })));
    const std::vector<nc_rule_text> records = encode_rules(state.rules);
    state.point.abi_version = NC_ABI_VERSION;
    state.point.rules = static_cast<__u32>(state.rules.size());
    state.point.records = static_cast<__u32>(records.size());
    state.point.engine = compiled.engine == "linear" ? NC_ENGINE_LINEAR : NC_ENGINE_CROSSING;
    state.point.rules_apart = static_cast<__u32>(compiled.rules_apart);
    state.point.table_bytes = compiled.memory();
    state.point.changes = 0;

    // Before loading: shapes, constants, and what is taken over.
    for (const classifier::Table& table : compiled.tables)
        NETCTL_TRY(object.set_table(table.name, table.bytes));
    for (const classifier::Constant& constant : compiled.constants)
        NETCTL_TRY(object.set_constant(constant.name, constant.values));
    NETCTL_TRY(set_constants(object, request, sets.uses, actions));
    const auto at_least_one = [](std::size_t count) {
        return static_cast<std::uint32_t>(std::max<std::size_t>(count, 1));
    };
    NETCTL_TRY(object.set_max_entries("actions", at_least_one(actions.size() + NC_CHANGE_ACTIONS)));
    NETCTL_TRY(object.set_max_entries("rules", at_least_one(records.size())));
    if (request.previous && !request.simulate)
        for (const std::string& name : persistent_maps(request.hook))
            NETCTL_TRY(object.reuse(name, NETCTL_TRY(request.previous->program.map(name))));

    const auto is_cidr = [](const Set& set) { return set.type() == SetType::cidr; };
    if (std::any_of(sets.sets.begin(), sets.sets.end(), is_cidr))
        NETCTL_TRY(NETCTL_TRY(BaseStore::open_or_make(root)).share(object));
    NETCTL_TRY(object.load());

    // After loading: contents, before anything can reach the program.
    NETCTL_TRY(fill_sets(object, sets));
    const bpf::RawMap action_map = NETCTL_TRY(object.map("actions"));
    NETCTL_TRY(action_map.write_array(actions.data(), sizeof(nc_action), state.point.rules));
    const bpf::RawMap text_map = NETCTL_TRY(object.map("rules"));
    NETCTL_TRY(text_map.write_array(records.data(), sizeof(nc_rule_text), state.point.records));
    const bpf::RawMap point_map = NETCTL_TRY(object.map("point"));
    const std::uint32_t zero = 0;
    NETCTL_TRY(point_map.update(&zero, &state.point));
    const bpf::RawMap counters = NETCTL_TRY(object.map("counters"));
    NETCTL_TRY(prepare_counters(counters, state.rules, request.simulate ? nullptr : before,
                                {"counter_chunk", sizeof(nc_counter)}));
    NETCTL_TRY(prepare_state([&](const std::string& name) { return object.map(name); },
                             request.hook, state.rules));

    Generation generation;
    generation.program = NETCTL_TRY(object.program(request.program));
    generation.engine = compiled.engine;
    generation.rules_apart = compiled.rules_apart;
    generation.reason = compiled.reason;
    generation.memory = compiled.memory();
    generation.notes = devices.notes();
    // All that the next command needs must be found from the program, used by its code or not.
    for (const char* name : pinned_maps) {
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        NETCTL_TRY(generation.program.bind(map));
    }
    for (const std::string& name : persistent_maps(request.hook)) {
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        NETCTL_TRY(generation.program.bind(map));
    }
    return generation;
}

Result<> publish_pins(const bpf::PinDir& dir, const bpf::Program& program) {
    for (const char* name : pinned_maps) {
        const bpf::RawMap map = NETCTL_TRY(program.map(name));
        NETCTL_TRY(dir.replace(name, map));
    }
    return {};
}

Result<> remove_pins(const bpf::PinDir& dir) {
    for (const std::string& name : dir.list())
        if (name != "link" && name != "program" && !dir.sub(name).exists())
            NETCTL_TRY(dir.unpin(name));
    return {};
}

namespace {

/// Erases the entries of `map`, keyed by structs that begin with a rule's id, that no rule in `kept` has.
Result<> keep_only(const bpf::RawMap& map, const std::set<std::uint32_t>& kept) {
    const bpf::MapKeys keys = NETCTL_TRY(map.keys());
    for (const std::uint8_t* key : keys) {
        std::uint32_t id = 0;
        std::memcpy(&id, key, sizeof id);
        if (!kept.contains(id))
            NETCTL_TRY(map.erase(key));
    }
    return {};
}

} // namespace

Result<> forget_limits(const bpf::Program& program, const PointState& state, Hook hook) {
    std::set<std::uint32_t> limited, rated;
    for (const InstalledRule& installed : state.rules) {
        if (installed.rule.limit)
            limited.insert(installed.rule.id);
        if (has_rate(installed.rule))
            rated.insert(installed.rule.id);
    }
    const bpf::RawMap limits = NETCTL_TRY(program.map("limits"));
    NETCTL_TRY(keep_only(limits, limited));
    if (hook != Hook::tc)
        return {};
    const bpf::RawMap rates = NETCTL_TRY(program.map("rates"));
    return keep_only(rates, rated);
}

} // namespace netctl::datapath
