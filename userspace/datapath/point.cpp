// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/point.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <thread>

#include <fmt/format.h>

#include "netctl/abi/changes.h"
#include "sys/netns.hpp"

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

Result<std::vector<InstalledRule>> decode_part(std::span<const nc_rule_text> records, Hook hook) {
    std::vector<InstalledRule> rules;
    std::string text;
    for (const nc_rule_text& record : records) {
        text.append(record.text, std::min<std::size_t>(record.length, NC_RULE_TEXT_CHUNK));
        if (record.more)
            continue;
        auto rule = parse_rule(text, hook);
        if (!rule)
            return std::move(rule).error().within(
                fmt::format("the stored rule {} cannot be read", record.rule_id));
        rule->id = record.rule_id;
        rules.push_back({std::move(*rule), record.slot});
        text.clear();
    }
    if (!text.empty())
        return Error::failed("the stored rules end in the middle of one");
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

Result<std::vector<InstalledRule>> decode_rules(const std::vector<nc_rule_text>& records,
                                                Hook hook) {
    // Most of the time that a change to many rules takes.
    const auto parts = cut(records);
    std::vector<std::future<Result<std::vector<InstalledRule>>>> others;
    for (std::size_t i = 1; i < parts.size(); i++) // deferred, if there can be no thread
        others.push_back(
            std::async(std::launch::async | std::launch::deferred, decode_part, parts[i], hook));
    std::vector<InstalledRule> rules = NETCTL_TRY(decode_part(parts.front(), hook));
    rules.reserve(records.size());
    for (auto& other : others) {
        std::vector<InstalledRule> more = NETCTL_TRY(other.get());
        std::move(more.begin(), more.end(), std::back_inserter(rules));
    }
    return rules;
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
    std::vector<InstalledRule> changed =
        NETCTL_TRY(decode_rules({block->texts, block->texts + count}, hook));

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
        const bool is_gone = block->gone[i / 64] >> i % 64 & 1;
        (is_gone ? state.gone : rules).push_back(std::move(state.rules[i]));
    }
    take_until(state.rules.size());
    state.rules = std::move(rules);
    return {};
}

} // namespace

Result<PointState> read_state(const bpf::Program& program, Hook hook) {
    PointState state;
    const bpf::RawMap point = NETCTL_TRY(program.map("point"));
    const std::uint32_t zero = 0;
    if (!NETCTL_TRY(point.lookup(&zero, &state.point)))
        return Error::failed("the program's map 'point' is empty");
    if (state.point.abi_version != NC_ABI_VERSION)
        return Error::failed(fmt::format("the program has ABI version {}, this netctl speaks {}",
                                         state.point.abi_version, NC_ABI_VERSION));
    const bpf::RawMap texts = NETCTL_TRY(program.map("rules"));
    std::vector<nc_rule_text> records(state.point.records);
    NETCTL_TRY(texts.read_array(records.data(), sizeof(nc_rule_text), state.point.records));
    state.rules = NETCTL_TRY(decode_rules(records, hook));
    state.compiled = static_cast<std::uint32_t>(state.rules.size());
    for (std::uint32_t i = 0; i < state.compiled; i++)
        state.rules[i].action = i;
    const bpf::RawMap slot = NETCTL_TRY(program.map("changes"));
    std::uint32_t id = 0;
    if (NETCTL_TRY(slot.lookup(&zero, &id)))
        NETCTL_TRY(apply_changes(NETCTL_TRY(bpf::RawMap::open_id(id)), state, hook));
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
    return dir.has("link") || dir.has("program");
}

namespace {

/// The program that the filter of `point` runs, if both are there; `dir` names the namespace.
Result<std::optional<std::uint32_t>> program_of_filter(const bpf::PinDir& dir,
                                                       const nc_point& point) {
    std::optional<std::uint32_t> none;
    const auto guard = sys::NetnsGuard::enter(parse_point_name(dir.parent_name()).netns);
    if (!guard || NETCTL_TRY(sys::current_netns_inode()) != point.netns_inode)
        return none;
    const auto id = NETCTL_TRY(bpf::query_filter(filter_of(point)));
    if (!id)
        return none;
    const auto info = NETCTL_TRY(bpf::Program::open_id(*id)).info();
    // Somebody may have put a program of his own there, which is not ours to touch.
    return info && info->name == "tc_filter" ? id : none;
}

Result<std::optional<LivePoint>> open_filter(const bpf::PinDir& dir, Hook hook) {
    LivePoint live;
    live.program = NETCTL_TRY(dir.open_program("program"));
    live.state = NETCTL_TRY(read_state(live.program, hook));
    if (const auto id = NETCTL_TRY(program_of_filter(dir, live.state.point))) {
        live.program = NETCTL_TRY(bpf::Program::open_id(*id));
        live.state = NETCTL_TRY(read_state(live.program, hook));
        live.link_info.ifindex = live.state.point.ifindex;
    }
    live.link_info.program_id = NETCTL_TRY(live.program.info()).id;
    return std::optional<LivePoint>(std::move(live));
}

} // namespace

bpf::TcFilter filter_of(const nc_point& point) {
    return {point.ifindex,
            point.flags & NC_POINT_EGRESS ? bpf::TcDirection::egress : bpf::TcDirection::ingress,
            point.tc_priority, point.tc_handle};
}

Result<std::optional<LivePoint>> open_point(const bpf::PinDir& dir, Hook hook) {
    if (!dir.has("link"))
        return dir.has("program") ? open_filter(dir, hook) : Result(std::optional<LivePoint>());
    LivePoint live;
    auto link = dir.open_link("link");
    if (!link && link.error().code == EROFS)
        link = bpf::find_link_with(NETCTL_TRY(dir.open_map("point")));
    live.link = NETCTL_TRY(std::move(link));
    live.link_info = NETCTL_TRY(live.link.info());
    live.program = NETCTL_TRY(bpf::Program::open_id(live.link_info.program_id));
    live.state = NETCTL_TRY(read_state(live.program, hook));
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
        } else if (dir.has("link")) {
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

Result<std::vector<std::string>> users_of_set(const Root& root, const std::string& set) {
    std::vector<std::string> users;
    for (const Hook hook : {Hook::xdp, Hook::tc})
        for (const bpf::PinDir& dir : list_points(root, hook)) {
            const auto live = NETCTL_TRY(open_point(dir, hook));
            if (!live)
                continue;
            const std::string prefix = root.dir().path() + "/";
            for (const InstalledRule& installed : live->state.rules)
                for (const Match& match : installed.rule.matches)
                    if (match.set == set)
                        users.push_back(fmt::format(
                            "{} rule {}", bpf::decode_pin_name(dir.path().substr(prefix.size())),
                            installed.rule.id));
        }
    // A policy's rules are not in its program; their pin leads to them.
    const bpf::PinDir policy = root.dir().sub("policy");
    if (!policy.has("rules"))
        return users;
    const bpf::RawMap texts = NETCTL_TRY(policy.open_map("rules"));
    std::vector<nc_rule_text> records(NETCTL_TRY(bpf::map_info(texts.fd())).max_entries);
    NETCTL_TRY(texts.read_array(records.data(), sizeof(nc_rule_text),
                                static_cast<std::uint32_t>(records.size())));
    // An empty list has a record as well, since there is no empty map.
    std::erase_if(records, [](const nc_rule_text& record) { return record.length == 0; });
    for (const InstalledRule& installed : NETCTL_TRY(decode_rules(records, Hook::policy)))
        for (const Match& match : installed.rule.matches)
            if (match.set == set)
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
    const std::uint32_t zero = 0;
    const auto values = NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, nc_stats>(map, zero)));
    // Every member is a __u64, so the sum is one over the struct's words.
    static_assert(sizeof(nc_stats) % sizeof(std::uint64_t) == 0);
    std::array<std::uint64_t, sizeof(nc_stats) / sizeof(std::uint64_t)> sum{}, words{};
    for (const nc_stats& value : values) {
        std::memcpy(words.data(), &value, sizeof value);
        for (std::size_t i = 0; i < sum.size(); i++)
            sum[i] += words[i];
    }
    nc_stats total{};
    std::memcpy(&total, sum.data(), sizeof total);
    return total;
}

} // namespace netctl::datapath
