// SPDX-License-Identifier: GPL-2.0-only
//
// What the packet filters of every hook can tell about a point: its state and counters, its log, and
// what its rules would do with a frame.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/judge.hpp"
#include "datapath/location.hpp"
#include "datapath/point.hpp"
#include "datapath/rule_command.hpp"
#include "netctl/abi/rule.h"

namespace netctl::datapath {

struct FilterStatus {
    std::string interface;
    std::string netns; ///< empty: the one netctl runs in
    std::string now;   ///< renamed: what it is called now
    Presence presence = Presence::attached;
    std::uint32_t program_id = 0;
    nc_point settings{};
    nc_stats stats{};
    nc_rejects rejects{};
    nc_over_adds over_adds{};
    nc_syncookies syncookies{};
    std::vector<RuleStatus> rules;
    std::string trouble; ///< why not all of this could be read; empty if it could

    std::uint64_t packets_with(nc_verdict verdict) const {
        if (verdict == NC_VERDICT_REJECT)
            return rejects.packets;
        return verdict == NC_VERDICT_SYNCOOKIE ? syncookies.packets : stats.verdicts[verdict];
    }
};

/// Reads a point with its counters, as far as they can be read.
FilterStatus read_status(const PointName& name, LivePoint live, Hook hook);

struct LogEvent {
    nc_event event{};
    std::string interface;
};
/// Gets each event; false ends the reading.
using HandleEvent = std::function<bool(const LogEvent&)>;

/// Calls `handle` for each event until it returns false, or the point in `dir` is detached; between
/// events `idle` is asked at least ten times a second whether to go on. Only one reader at a time.
Result<> follow_log(const bpf::PinDir& dir, const LivePoint& live, const std::string& interface,
                    const HandleEvent& handle, const std::function<bool()>& idle);

/// What the program would do with one frame.
struct Simulated {
    nc_result result{};
    std::optional<Rule> rule;
    std::uint32_t looked_at = 0; ///< bits 1 << Key: what any of the rules looks at
};
/// Gives a frame, or nothing at the end.
using NextFrame = std::function<Result<std::optional<std::vector<std::uint8_t>>>()>;
using HandleSimulated =
    std::function<void(std::span<const std::uint8_t> frame, const Simulated& outcome)>;
/// Runs a simulating program over a frame.
using RunFrame = std::function<Result<>(std::span<const std::uint8_t> frame)>;

/// Runs frames through a simulating program, whose map `result` is given, and tells what came out. The
/// reference matcher judges those that are too long for the kernel's test runs; `ether`: frames have a link
/// header; `told`: what the host has for each packet.
Result<> run_simulation(const PointState& state, LiveSets& sets, bool ether, const nc_told& told,
                        const bpf::RawMap& result, const NextFrame& next, const RunFrame& run,
                        const HandleSimulated& handle);

std::string to_string(Presence presence);
std::string to_string(nc_verdict verdict);
std::string to_string(nc_reason reason);
std::string to_string(nc_unparsed reason);

} // namespace netctl::datapath
