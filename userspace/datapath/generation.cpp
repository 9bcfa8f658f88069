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
#include "core/abi_version.hpp"
#include "datapath/base_store.hpp"
#include "datapath/changes.hpp"
#include "datapath/conntrack.hpp"
#include "datapath/counter_slots.hpp"
#include "datapath/limit_state.hpp"
#include "datapath/set_uses.hpp"
#include "netctl/abi/changes.h"
#include "netctl/abi/classify.h"

namespace netctl::datapath {

namespace {

/// Maps that outlive a commit: the next program is given the same ones.
std::vector<std::string> persistent_maps(Hook hook) {
    std::vector<std::string> maps{"stats",  "rejects",   "over_adds", "counters",
                                  "limits", "limit_src", "events"};
    maps.emplace_back(hook == Hook::tc ? "rates" : "syncookies");
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

Result<> set_constants(const bpf::Object& object, const GenerationRequest& request,
                       const std::vector<nc_action>& actions) {
    std::uint32_t used = 0;
    for (const nc_action& action : actions)
        used |= action.flags;
    const PointState& state = *request.state;
    const std::array<std::pair<const char*, std::uint32_t>, 6> numbers{{
        {"actions_used", used},
        {"wanted", all_wanted(state.rules)},
        {"default_verdict", state.point.default_verdict},
        {"unparsed_verdict", state.point.unparsed_verdict},
        {"simulate", request.simulate ? 1U : 0U},
        {"may_change", state.rules.size() >= least_compiled ? 1U : 0U},
    }};
    for (const auto& [name, value] : numbers)
        NETCTL_TRY(object.set_constant(name, {&value, 1}));

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

Result<> set_classifier(const bpf::Object& object, const classifier::Compiled& compiled,
                        const OpenedSets& sets) {
    for (const classifier::Table& table : compiled.tables)
        NETCTL_TRY(object.set_table(table.name, table.bytes));
    for (const classifier::Constant& constant : compiled.constants)
        NETCTL_TRY(object.set_constant(constant.name, constant.values));
    const auto uses = static_cast<std::uint32_t>(sets.uses.size());
    NETCTL_TRY(object.set_constant("n_set_uses", {&uses, 1}));
    if (uses != 0)
        NETCTL_TRY(object.set_rodata("set_use", std::as_bytes(std::span(sets.uses))));
    return {};
}

Result<Generation> load_generation(const bpf::Object& object, const Root& root,
                                   const GenerationRequest& request) {
    PointState& state = *request.state;
    NETCTL_TRY(check_readable(state.rules));
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
    for (const InstalledRule& installed : state.rules) {
        actions.push_back(NETCTL_TRY(encode_action(installed, [&](const std::string& device) {
            return devices.resolve(installed.rule, device);
        })));
        if (const auto use = classifier::use_of_over(installed.rule))
            actions.back().over_set =
                NETCTL_TRY(place_of_over(installed.rule, *use, compiled, sets));
    }
    const std::vector<nc_rule_text> records = encode_rules(state.rules);
    state.point.abi_version = abi_version();
    state.point.rules = static_cast<__u32>(state.rules.size());
    state.point.records = static_cast<__u32>(records.size());
    state.point.engine = compiled.engine == "linear" ? NC_ENGINE_LINEAR : NC_ENGINE_CROSSING;
    state.point.rules_apart = static_cast<__u32>(compiled.rules_apart);
    state.point.table_bytes = compiled.memory();
    state.point.changes = 0;

    // Before loading: shapes, constants, and what is taken over.
    NETCTL_TRY(set_classifier(object, compiled, sets));
    NETCTL_TRY(set_constants(object, request, actions));
    const auto at_least_one = [](std::size_t count) {
        return static_cast<std::uint32_t>(std::max<std::size_t>(count, 1));
    };
    NETCTL_TRY(object.set_max_entries("actions", at_least_one(actions.size() + NC_CHANGE_ACTIONS)));
    NETCTL_TRY(object.set_max_entries("rules", at_least_one(records.size())));
    if (request.previous && !request.simulate)
        for (const std::string& name : persistent_maps(request.hook)) {
            if (const auto map = NETCTL_TRY(find_counting_map(request.previous->program, name)))
                NETCTL_TRY(object.reuse(name, *map));
        }

    if (!sets.sets.empty())
        NETCTL_TRY(NETCTL_TRY(BaseStore::open_or_make(root)).share(object));
    const bool tracked = ask_conntrack(state.rules);
    if (auto loaded = object.load(); !loaded) {
        if (tracked)
            NETCTL_TRY(try_conntrack()); // which says it better
        return std::move(loaded).error();
    }

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
    if (tracked && !request.simulate && !(before && ask_conntrack(*before)))
        if (std::string note = untracked_note(); !note.empty())
            generation.notes.push_back(std::move(note));
    // All that the next command needs must be found from the program, used by its code or not.
    for (const char* name : pinned_maps) {
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        NETCTL_TRY(generation.program.bind(map));
    }
    for (const std::string& name : persistent_maps(request.hook)) {
        const bpf::RawMap map = NETCTL_TRY(object.map(name));
        NETCTL_TRY(generation.program.bind(map));
    }
    // libbpf leaves out names if the kernel refuses them just when it asks; by these the maps are found.
    const bpf::ProgramInfo info = NETCTL_TRY(generation.program.info());
    if (info.name.empty())
        return Error::failed("the kernel has taken the program without its name",
                             "nothing was changed; try again");
    // The link leads to a program's id, and that to those of its maps: whoever cannot open these could not
    // change again what he attaches.
    if (auto found = bpf::Program::open_id(info.id); !found)
        return Error::system(found.error().code, "cannot find the program again by its id",
                             "nothing was changed; that takes CAP_SYS_ADMIN: run as root");
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
        if (name != "link" && name != next_link && name != "program" && !dir.sub(name).exists())
            NETCTL_TRY(dir.unpin(name));
    return {};
}

} // namespace netctl::datapath
