// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/point.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <thread>

#include <fmt/format.h>

#include "bpf/per_cpu_sum.hpp"
#include "bpf/tc.hpp"
#include "bpf/xdp.hpp"
#include "core/abi_version.hpp"
#include "netctl/abi/changes.h"
#include "netctl/abi/policy_tables.h"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "sys/qdisc.hpp"

namespace netctl::datapath {

std::vector<nc_rule_text> encode_rules(const std::vector<InstalledRule>& rules) {
    std::vector<nc_rule_text> records;
    for (const InstalledRule& installed : rules) {
        const std::string text = to_string(installed.rule);
        std::size_t offset = 0;
        do {
            nc_rule_text record{};
            const std::size_t length =
                std::min<std::size_t>(text.size() - offset, NC_RULE_TEXT_CHUNK);
            record.rule_id = installed.rule.id;
            record.slot = installed.slot;
            record.length = static_cast<__u16>(length);
            std::memcpy(record.text, text.data() + offset, length);
            offset += length;
            record.more = offset < text.size();
            records.push_back(record);
        } while (offset < text.size());
    }
    return records;
}

namespace {

InstalledRule decode_rule(const std::string& text, const nc_rule_text& record, Hook hook) {
    auto rule = parse_rule(text, hook);
    InstalledRule installed{{}, record.slot};
    if (rule) {
        installed.rule = std::move(*rule);
    } else {
        installed.unreadable = text;
        installed.why = rule.error().what;
        installed.rule.actions.emplace_back(); // rules have one
    }
    installed.rule.id = record.rule_id;
    return installed;
}

std::vector<InstalledRule> decode_part(std::span<const nc_rule_text> records, Hook hook) {
    std::vector<InstalledRule> rules;
    std::string text;
    for (const nc_rule_text& record : records) {
        text.append(record.text, std::min<std::size_t>(record.length, NC_RULE_TEXT_CHUNK));
        if (record.more && &record != &records.back())
            continue;
        rules.push_back(decode_rule(text, record, hook));
        text.clear();
    }
    return rules;
}

/// Cuts records into about equal parts of whole rules, one for each CPU that is worth waking.
std::vector<std::span<const nc_rule_text>> cut(std::span<const nc_rule_text> records) {
    constexpr std::size_t worth_a_thread = 2000, most_threads = 8;
    const std::size_t cpus = std::max(1U, std::thread::hardware_concurrency());
    const std::size_t count =
        std::clamp<std::size_t>(records.size() / worth_a_thread, 1, std::min(cpus, most_threads));
    std::vector<std::span<const nc_rule_text>> parts;
    std::size_t begin = 0;
    for (std::size_t i = 1; i <= count; i++) {
        std::size_t end = std::max(begin, records.size() * i / count);
        while (end > begin && end < records.size() && records[end - 1].more)
            end++;
        parts.push_back(records.subspan(begin, end - begin));
        begin = end;
    }
    return parts;
}

} // namespace

std::vector<InstalledRule> decode_rules(const std::vector<nc_rule_text>& records, Hook hook) {
    // Most of the time that a change to many rules takes.
    const auto parts = cut(records);
    std::vector<std::future<std::vector<InstalledRule>>> others;
    for (std::size_t i = 1; i < parts.size(); i++) // deferred, if there can be no thread
        others.push_back(
            std::async(std::launch::async | std::launch::deferred, decode_part, parts[i], hook));
    std::vector<InstalledRule> rules = decode_part(parts.front(), hook);
    rules.reserve(records.size());
    for (auto& other : others) {
        std::vector<InstalledRule> more = other.get();
        std::move(more.begin(), more.end(), std::back_inserter(rules));
    }
    return rules;
}

bool could_pass(const Error& error) {
    return error.code != 0 && error.code != ENOENT && error.code != EINVAL;
}

Result<> check_readable(const std::vector<InstalledRule>& rules) {
    for (const InstalledRule& installed : rules)
        if (!installed.why.empty())
            return Error::failed(
                fmt::format("the stored rule {} cannot be read: {}", installed.rule.id,
                            installed.why),
                fmt::format("`rule delete {}` takes it away, `rule list` shows its text",
                            installed.rule.id));
    return {};
}

namespace {

/// Makes the rules as compiled those that are in force.
Result<> apply_changes(const bpf::RawMap& map, PointState& state, Hook hook) {
    const auto block = std::make_unique<nc_changes>();
    const std::uint32_t zero = 0;
    if (NETCTL_TRY(bpf::map_info(map.fd())).value_size != sizeof *block ||
        !NETCTL_TRY(map.lookup(&zero, block.get())))
        return Error::failed("the changes to the program's rules cannot be read",
                             "they were made by another version of netctl");
    state.point.generation = block->generation;
    state.point.next_rule_id = block->next_rule_id;
    state.point.rules = block->rules;
    state.point.changes = static_cast<__u32>(std::popcount(block->all));
    const auto count = std::min<std::size_t>(block->records, NC_CHANGE_TEXTS);
    std::vector<InstalledRule> changed = decode_rules({block->texts, block->texts + count}, hook);

    std::vector<InstalledRule> rules;
    rules.reserve(state.rules.size() + changed.size());
    auto next = changed.begin();
    unsigned bit = 0;
    const auto take_until = [&](std::size_t compiled) {
        for (; bit < NC_CHANGES && next != changed.end(); bit++) {
            if (!(block->listed >> bit & 1))
                continue;
            if (block->before[bit] > compiled)
                return;
            next->action = block->action[bit];
            rules.push_back(std::move(*next++));
        }
    };
    for (std::size_t i = 0; i < state.rules.size(); i++) {
        take_until(i);
        const bool is_gone = i < NC_COMPILED_MAX && block->gone[i / 64] >> i % 64 & 1;
        (is_gone ? state.gone : rules).push_back(std::move(state.rules[i]));
    }
    take_until(state.rules.size());
    state.rules = std::move(rules);
    return {};
}

} // namespace

namespace {

Result<> read_into(PointState& state, const bpf::Program& program, Hook hook) {
    const bpf::RawMap point = NETCTL_TRY(program.map("point"));
    const std::uint32_t zero = 0;
    nc_point found{};
    if (NETCTL_TRY(bpf::map_info(point.fd())).value_size != sizeof found ||
        !NETCTL_TRY(point.lookup(&zero, &found)) || !reads_abi(found.abi_version))
        return Error::failed(
            "its settings were made by another version of netctl, or by somebody else");
    state.point = found;
    const bpf::RawMap texts = NETCTL_TRY(program.map("rules"));
    const bpf::MapInfo info = NETCTL_TRY(bpf::map_info(texts.fd()));
    if (info.value_size != sizeof(nc_rule_text) || info.max_entries < state.point.records)
        return Error::failed("the program's map 'rules' is not what its map 'point' says");
    std::vector<nc_rule_text> records(state.point.records);
    NETCTL_TRY(texts.read_array(records.data(), sizeof(nc_rule_text), state.point.records));
    state.rules = decode_rules(records, hook);
    state.compiled = static_cast<std::uint32_t>(state.rules.size());
    for (std::uint32_t i = 0; i < state.compiled; i++)
        state.rules[i].action = i;
    const bpf::RawMap slot = NETCTL_TRY(program.map("changes"));
    std::uint32_t id = 0;
    if (NETCTL_TRY(slot.lookup(&zero, &id)))
        NETCTL_TRY(apply_changes(NETCTL_TRY(bpf::RawMap::open_id(id)), state, hook));
    return {};
}

} // namespace

Result<PointState> read_state(const bpf::Program& program, Hook hook) {
    PointState state;
    NETCTL_TRY(read_into(state, program, hook));
    return state;
}

std::string point_name(const std::string& netns, const std::string& interface) {
    const std::string name = bpf::encode_pin_name(interface);
    return netns.empty() ? name : bpf::encode_pin_name(netns) + ":" + name;
}

PointName parse_point_name(const std::string& name) {
    const auto colon = name.find(':');
    if (colon == std::string::npos)
        return {{}, bpf::decode_pin_name(name)};
    return {bpf::decode_pin_name(name.substr(0, colon)),
            bpf::decode_pin_name(name.substr(colon + 1))};
}

bool is_pinned(const bpf::PinDir& dir) {
    return dir.has("link") || dir.has(next_link) || dir.has("program");
}

Result<bool> look_pinned(const bpf::PinDir& dir) {
    for (const char* pin : {"link", next_link, "program"})
        if (NETCTL_TRY(dir.look_for(pin)))
            return true;
    return false;
}

namespace {

/// Reads the state, or notes why it cannot be read.
void read_state_of(LivePoint& live, Hook hook) {
    live.trouble.reset();
    live.state = {};
    if (auto status = read_into(live.state, live.program, hook); !status)
        live.trouble = std::move(status).error();
}

/// Whether two programs are generations of one point: they hand on its `stats`.
bool same_point(const bpf::Program& a, const bpf::ProgramInfo& b) {
    const auto stats = a.map("stats");
    if (!stats)
        return false;
    const auto info = bpf::map_info(stats->fd());
    return info && std::find(b.map_ids.begin(), b.map_ids.end(), info->id) != b.map_ids.end();
}

/// A place where the program of a point may be, and the program that is there.
struct Found {
    bpf::TcFilter place;
    std::uint32_t program_id = 0;
};

/// Looks where a point without a link says that it is; if it cannot be read, everywhere on its interface.
Result<std::vector<Found>> look(const bpf::PinDir& dir, const std::string& interface,
                                const nc_point& point, Hook hook) {
    const bool known = reads_abi(point.abi_version);
    std::uint32_t ifindex = known ? point.ifindex : 0;
    if (!known) {
        const auto present = NETCTL_TRY(sys::look_for_interface(interface));
        ifindex = present ? present->index : 0;
    }
    std::vector<Found> found;
    if (ifindex == 0)
        return found;
    if (hook == Hook::xdp) {
        const auto occupant = bpf::query_xdp(ifindex);
        if (!occupant && occupant.error().code != ENODEV) // it is gone, with what was there
            return Error(occupant.error());
        if (occupant && occupant->mode != bpf::XdpMode::none)
            found.push_back({{ifindex}, occupant->program_id});
        return found;
    }
    std::vector<bpf::TcFilter> places;
    if (known) {
        places.push_back(filter_of(point));
    } else {
        const bool egress = dir.name() == "egress";
        for (const sys::ClsactFilter& each : NETCTL_TRY(sys::list_clsact_filters(ifindex, egress)))
            places.push_back({ifindex,
                              egress ? bpf::TcDirection::egress : bpf::TcDirection::ingress,
                              each.priority, each.handle});
    }
    for (const bpf::TcFilter& place : places)
        if (const auto id = NETCTL_TRY(bpf::query_filter(place)))
            found.push_back({place, *id});
    return found;
}

/// A point without a link: the pinned program leads to where it is attached, and that to the program in
/// force.
Result<std::optional<LivePoint>> open_program_point(const bpf::PinDir& dir, Hook hook) {
    LivePoint live;
    live.program = NETCTL_TRY(dir.open_program("program"));
    const bpf::ProgramInfo pinned = NETCTL_TRY(live.program.info());
    live.link_info.program_id = pinned.id;
    read_state_of(live, hook);
    const PointName name = parse_point_name(hook == Hook::tc ? dir.parent_name() : dir.name());
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter_if_there(name.netns));
    const std::uint64_t netns = NETCTL_TRY(sys::current_netns_inode());
    if (!guard || (live.state.point.netns_inode != 0 && live.state.point.netns_inode != netns))
        return std::optional<LivePoint>(std::move(live));
    for (const Found& found : NETCTL_TRY(look(dir, name.interface, live.state.point, hook))) {
        // Somebody may have put a program of his own there, another root of netctl, too.
        if (found.program_id != pinned.id) {
            auto present = bpf::Program::open_id(found.program_id);
            const auto info = present ? present->info() : Result<bpf::ProgramInfo>(present.error());
            if (!info || !same_point(live.program, *info))
                continue;
            live.program = std::move(*present);
            read_state_of(live, hook);
        }
        live.link_info.program_id = found.program_id;
        live.link_info.ifindex = found.place.ifindex;
        live.filter = found.place;
        break;
    }
    return std::optional<LivePoint>(std::move(live));
}

} // namespace

bpf::TcFilter filter_of(const nc_point& point) {
    return {point.ifindex,
            point.flags & NC_POINT_EGRESS ? bpf::TcDirection::egress : bpf::TcDirection::ingress,
            point.tc_priority, point.tc_handle};
}

Result<std::optional<LivePoint>> open_point(const bpf::PinDir& dir, Hook hook) {
    // One that was pinned in the place of a link whose interface is gone, by a writer that was killed then.
    const char* pin = NETCTL_TRY(dir.look_for(next_link)) ? next_link : "link";
    if (!NETCTL_TRY(dir.look_for(pin)))
        return NETCTL_TRY(dir.look_for("program")) ? open_program_point(dir, hook)
                                                   : Result(std::optional<LivePoint>());
    LivePoint live;
    auto link = dir.open_link(pin);
    if (!link && link.error().code == EROFS)
        link = bpf::find_link_with(NETCTL_TRY(dir.open_map("point")));
    live.link = NETCTL_TRY(std::move(link));
    live.link_info = NETCTL_TRY(live.link.info());
    auto program = bpf::Program::open_id(live.link_info.program_id);
    if (program) {
        live.program = std::move(*program);
        read_state_of(live, hook);
    } else {
        live.trouble = std::move(program).error();
    }
    return std::optional<LivePoint>(std::move(live));
}

std::vector<bpf::PinDir> list_points(const Root& root, Hook hook) {
    std::vector<bpf::PinDir> points;
    const bpf::PinDir base = root.dir().sub(std::string(to_string(hook)));
    for (const std::string& name : base.list()) {
        const bpf::PinDir dir = base.sub(name);
        if (hook == Hook::tc) {
            for (const char* direction : {"ingress", "egress"})
                if (is_pinned(dir.sub(direction)))
                    points.push_back(dir.sub(direction));
        } else if (is_pinned(dir)) {
            points.push_back(dir);
        }
    }
    return points;
}

Result<bool> has_points_of(const RootOptions& options, const std::string& netns) {
    const Root root = NETCTL_TRY(Root::open(options));
    for (const char* hook : {"xdp", "tc"})
        for (const std::string& name : root.dir().sub(hook).list())
            if (parse_point_name(name).netns == netns)
                return true;
    return false;
}

namespace {

/// Whether a rule asks the set, or adds to it; one that cannot be read does if its text names it.
bool uses_set(const InstalledRule& installed, const std::string& set) {
    const std::string name = "@" + set;
    for (auto at = installed.unreadable.find(name); at != std::string::npos;
         at = installed.unreadable.find(name, at + 1)) {
        const auto end = at + name.size();
        const unsigned char next =
            end < installed.unreadable.size() ? installed.unreadable[end] : ' ';
        if (!std::isalnum(next) && next != '_' && next != '-')
            return true;
    }
    const std::vector<std::string> sets = sets_of(installed.rule);
    return std::find(sets.begin(), sets.end(), set) != sets.end();
}

/// A program of the policy, whose maps lead to what is in force; nothing if there is none.
Result<std::optional<bpf::Program>> policy_program(const bpf::PinDir& policy) {
    for (const char* name : {"connect4", "lsm_connect"}) { // one of each layer
        if (!NETCTL_TRY(policy.look_for(name)))
            continue;
        auto link = policy.open_link(name);
        if (!link && link.error().code == EROFS)
            link = bpf::find_link_with(NETCTL_TRY(policy.open_map("counters")));
        const bpf::LinkInfo info = NETCTL_TRY(NETCTL_TRY(std::move(link)).info());
        return std::optional(NETCTL_TRY(bpf::Program::open_id(info.program_id)));
    }
    return std::optional<bpf::Program>();
}

/// The policy's rules, by the way that its programs take. (Their pin `rules` is made anew behind the commit, which a
/// writer that is killed does not come to.)
Result<std::vector<InstalledRule>> policy_rules(const bpf::PinDir& policy) {
    const auto program = NETCTL_TRY(policy_program(policy));
    const std::uint32_t zero = 0;
    std::uint32_t id = 0;
    if (!program || !NETCTL_TRY(NETCTL_TRY(program->map("root")).lookup(&zero, &id)))
        return std::vector<InstalledRule>();
    const bpf::RawMap segment = NETCTL_TRY(bpf::RawMap::open_id(id));
    std::vector<std::uint64_t> words(NC_SEGMENT_WORDS);
    if (NETCTL_TRY(bpf::map_info(segment.fd())).value_size != words.size() * sizeof words[0] ||
        !NETCTL_TRY(segment.lookup(&zero, words.data())))
        return Error::failed("the policy's tables are of another version");
    nc_policy_head head{};
    std::memcpy(&head, words.data(), sizeof head);
    if (!reads_abi(head.abi_version))
        return Error::failed("the policy's rules are of another version");
    if (!NETCTL_TRY(NETCTL_TRY(program->map("texts")).lookup(&head.texts_slot, &id)))
        return Error::failed("the policy's rules are gone from its maps");
    const bpf::RawMap texts = NETCTL_TRY(bpf::RawMap::open_id(id));
    const bpf::MapInfo info = NETCTL_TRY(bpf::map_info(texts.fd()));
    if (info.value_size != sizeof(nc_rule_text) || info.max_entries < head.records)
        return Error::failed("the policy's rules are not what its tables say");
    std::vector<nc_rule_text> records(head.records);
    NETCTL_TRY(texts.read_array(records.data(), sizeof(nc_rule_text), head.records));
    return decode_rules(records, Hook::policy);
}

} // namespace

Result<std::vector<std::string>> users_of_set(const Root& root, const std::string& set) {
    std::vector<std::string> users;
    const std::string prefix = root.dir().path() + "/";
    for (const Hook hook : {Hook::xdp, Hook::tc})
        for (const bpf::PinDir& dir : list_points(root, hook)) {
            const auto live = open_point(dir, hook);
            if (!live.has_value() && could_pass(live.error()))
                return Error(live.error());
            if (!live.has_value() || !*live)
                continue;
            if ((*live)->trouble && could_pass(*(*live)->trouble))
                return Error(*(*live)->trouble);
            for (const InstalledRule& installed : (*live)->state.rules)
                if (uses_set(installed, set))
                    users.push_back(fmt::format(
                        "{} rule {}", bpf::decode_pin_name(dir.path().substr(prefix.size())),
                        installed.rule.id));
        }
    const bpf::PinDir policy = root.dir().sub("policy");
    const auto rules = policy_rules(policy);
    if (!rules && could_pass(rules.error()))
        return Error(rules.error());
    if (rules)
        for (const InstalledRule& installed : *rules)
            if (uses_set(installed, set))
                users.push_back(fmt::format("policy rule {}", installed.rule.id));
    return users;
}

Result<std::vector<nc_counter>> read_counters(const bpf::Program& program,
                                              const std::vector<std::uint32_t>& slots) {
    const bpf::RawMap outer = NETCTL_TRY(program.map("counters"));
    std::map<std::uint32_t, bpf::RawMap> chunks;
    std::vector<nc_counter> totals;
    for (const std::uint32_t slot : slots) {
        const std::uint32_t number = slot / NC_COUNTER_CHUNK;
        auto chunk = chunks.find(number);
        if (chunk == chunks.end()) {
            std::uint32_t id = 0;
            if (!NETCTL_TRY(outer.lookup(&number, &id)))
                return Error::failed(fmt::format("the counters have no chunk {}", number));
            chunk = chunks.emplace(number, NETCTL_TRY(bpf::RawMap::open_id(id))).first;
        }
        nc_counter total{};
        const std::uint32_t index = slot % NC_COUNTER_CHUNK;
        const auto values =
            NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, nc_counter>(chunk->second, index)));
        for (const nc_counter& value : values) {
            total.packets += value.packets;
            total.bytes += value.bytes;
            total.over_packets += value.over_packets;
            total.over_bytes += value.over_bytes;
        }
        totals.push_back(total);
    }
    return totals;
}

Result<nc_stats> read_stats(const bpf::Program& program) {
    const bpf::RawMap map = NETCTL_TRY(program.map("stats"));
    return bpf::sum_per_cpu<nc_stats>(map);
}

Result<std::optional<bpf::RawMap>> find_counting_map(const bpf::Program& program,
                                                     const std::string& name) {
    auto map = program.map(name);
    if (map)
        return std::optional(std::move(map).value());
    const bool came_later = name == "rejects" || name == "over_adds" || name == "syncookies";
    if (map.error().code != 0 || !came_later) // the kernel's: whether there is one is not known
        return std::move(map).error();
    return std::optional<bpf::RawMap>();
}

namespace {

template <class T> Result<T> sum_if_there(const bpf::Program& program, const char* name) {
    const auto map = NETCTL_TRY(find_counting_map(program, name));
    return map ? bpf::sum_per_cpu<T>(*map) : Result<T>(T{});
}

} // namespace

Result<nc_rejects> read_rejects(const bpf::Program& program) {
    return sum_if_there<nc_rejects>(program, "rejects");
}

Result<nc_over_adds> read_over_adds(const bpf::Program& program) {
    return sum_if_there<nc_over_adds>(program, "over_adds");
}

Result<nc_syncookies> read_syncookies(const bpf::Program& program) {
    return sum_if_there<nc_syncookies>(program, "syncookies");
}

} // namespace netctl::datapath
