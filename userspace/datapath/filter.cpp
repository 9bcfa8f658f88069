// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/filter.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "bpf/ring_buffer.hpp"
#include "classifier/packet.hpp"

namespace netctl::datapath {

namespace {

Result<> read_numbers(FilterStatus& status, const LivePoint& live) {
    status.stats = NETCTL_TRY(read_stats(live.program));
    status.rejects = NETCTL_TRY(read_rejects(live.program));
    status.over_adds = NETCTL_TRY(read_over_adds(live.program));
    status.syncookies = NETCTL_TRY(read_syncookies(live.program));
    std::vector<std::uint32_t> slots;
    for (const auto& installed : live.state.rules)
        slots.push_back(installed.slot);
    const auto counters = NETCTL_TRY(read_counters(live.program, slots));
    for (std::size_t i = 0; i < counters.size(); i++)
        status.rules[i].counter = counters[i];
    return {};
}

} // namespace

FilterStatus read_status(const PointName& name, LivePoint live, Hook hook) {
    FilterStatus status;
    status.interface = name.interface;
    status.netns = name.netns;
    status.settings = live.state.point;
    status.program_id = live.link_info.program_id;
    const Location location = locate(name, live, hook);
    status.presence = location.presence;
    status.now = location.interface;
    for (InstalledRule& installed : live.state.rules)
        status.rules.push_back({std::move(installed.rule),
                                {},
                                std::move(installed.unreadable),
                                std::move(installed.why)});
    if (live.trouble)
        status.trouble = live.trouble->what;
    else if (location.trouble)
        status.trouble = location.trouble->what;
    else if (auto numbers = read_numbers(status, live); !numbers)
        status.trouble = numbers.error().what;
    return status;
}

Result<> follow_log(const bpf::PinDir& dir, const LivePoint& live, const std::string& interface,
                    const HandleEvent& handle, const std::function<bool()>& idle) {
    const auto lock = bpf::DirLock::try_acquire(dir);
    if (!lock) {
        if (lock.error().code == EWOULDBLOCK)
            return Error::failed(fmt::format("the log of {} is being read already", interface),
                                 "a ring buffer gives each event to one reader only");
        return Error(lock.error());
    }
    auto buffer = NETCTL_TRY(bpf::RingBuffer::open(
        NETCTL_TRY(live.program.map("events")), [&](std::span<const std::byte> record) {
            LogEvent event{{}, interface};
            if (record.size() < sizeof event.event)
                return true;
            std::memcpy(&event.event, record.data(), sizeof event.event);
            event.event.captured = std::min<__u16>(event.event.captured, NC_EVENT_HEADERS);
            return handle(event);
        }));
    while (NETCTL_TRY(buffer.poll(100)))
        if (!idle() || !is_pinned(dir))
            break;
    return {};
}

namespace {

/// Test runs of every kernel take frames of this length, and no longer ones than some dozen pages.
constexpr std::size_t surely_runs = 3000;

Result<nc_result> by_reference(const PointState& state, LiveSets& sets, bool ether,
                               const nc_told& told, std::span<const std::uint8_t> frame) {
    const classifier::Parsed parsed =
        ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame);
    nc_result result{};
    result.packet = parsed.packet;
    result.packet.len = static_cast<__u32>(frame.size());
    result.position = NC_NO_RULE;
    classifier::tell(result.packet, told);
    if (!parsed.parsed) {
        result.verdict = state.point.unparsed_verdict;
        result.reason = NC_REASON_UNPARSED;
        result.unparsed = parsed.reason;
        return result;
    }
    const Judged judged = NETCTL_TRY(judge(state, result.packet, sets));
    result.position = judged.position;
    result.verdict = judged.verdict;
    result.reason = judged.reason;
    return result;
}

} // namespace

Result<> run_simulation(const PointState& state, LiveSets& sets, bool ether, const nc_told& told,
                        const bpf::RawMap& result, const NextFrame& next, const RunFrame& run,
                        const HandleSimulated& handle) {
    std::uint32_t looked_at = 0;
    for (const InstalledRule& installed : state.rules)
        for (const Match& match : installed.rule.matches)
            looked_at |= 1U << static_cast<unsigned>(match.key);
    const std::uint32_t zero = 0;
    nc_result before{};
    before.told = told;
    NETCTL_TRY(result.update(&zero, &before));
    for (;;) {
        const auto frame = NETCTL_TRY(next());
        if (!frame)
            return {};
        Simulated simulated;
        simulated.looked_at = looked_at;
        auto ran = run(*frame);
        if (ran) {
            NETCTL_TRY(result.lookup(&zero, &simulated.result));
        } else if (frame->size() > surely_runs) {
            simulated.result = NETCTL_TRY(by_reference(state, sets, ether, told, *frame));
        } else {
            return ran;
        }
        if (simulated.result.position < state.rules.size())
            simulated.rule = state.rules[simulated.result.position].rule;
        handle(*frame, simulated);
    }
}

std::string to_string(Presence presence) {
    switch (presence) {
    case Presence::attached: return "attached";
    case Presence::renamed: return "renamed";
    case Presence::moved: return "moved";
    case Presence::vanished: return "vanished";
    case Presence::returned: return "returned";
    case Presence::removed: return "removed";
    case Presence::unknown: break;
    }
    return "unknown";
}

std::string to_string(nc_verdict verdict) {
    switch (verdict) {
    case NC_VERDICT_PASS: return "pass";
    case NC_VERDICT_DROP: return "drop";
    case NC_VERDICT_REJECT: return "reject";
    case NC_VERDICT_TX: return "tx";
    case NC_VERDICT_REDIRECT: return "redirect";
    case NC_VERDICT_NEXT: return "next";
    case NC_VERDICT_SYNCOOKIE: return "syncookie";
    case NC_VERDICTS: break;
    }
    return "unknown";
}

std::string to_string(nc_reason reason) {
    switch (reason) {
    case NC_REASON_RULE: return "rule";
    case NC_REASON_DEFAULT: return "default";
    case NC_REASON_UNPARSED: return "unparsed";
    case NC_REASON_LIMIT: return "over limit";
    case NC_REASON_FAILED: return "redirect failed";
    case NC_REASON_RATE: return "over rate";
    }
    return "unknown";
}

std::string to_string(nc_unparsed reason) {
    switch (reason) {
    case NC_UNPARSED_CUT: return "cut";
    case NC_UNPARSED_IPV4: return "ipv4";
    case NC_UNPARSED_IPV6: return "ipv6";
    case NC_UNPARSED_CHAIN: return "chain";
    case NC_UNPARSED_BOUND: return "bound";
    case NC_UNPARSED_ENGINE: return "engine";
    case NC_UNPARSED_REASONS: break;
    }
    return "unknown";
}

} // namespace netctl::datapath
