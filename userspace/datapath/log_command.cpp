// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/log_command.hpp"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "classifier/packet.hpp"
#include "classifier/packet_text.hpp"
#include "core/json.hpp"
#include "datapath/log_capture.hpp"
#include "sys/clock.hpp"
#include "sys/stop.hpp"

namespace netctl::datapath {

namespace {

/// The event has the start of the frame only; what the IP header says about its length must still
/// agree with the frame, so the rest is made up for the parser.
nc_packet event_packet(const nc_event& event, FrameForm form) {
    std::vector<std::uint8_t> frame(event.headers, event.headers + event.captured);
    frame.resize(std::max<std::size_t>(event.len, event.captured));
    return form == FrameForm::ip ? classifier::parse_ip(frame).packet
                                 : classifier::parse_ethernet(frame).packet;
}

} // namespace

Result<int> print_log(const Arguments& arguments, Context& context, FrameForm form,
                      FilterPoint& point) {
    const auto wanted = NETCTL_TRY(packet_file_of(arguments, NC_EVENT_HEADERS));
    std::optional<LogCapture> capture;
    const bool silent = wanted && wanted->path == "-";
    const std::uint64_t most = NETCTL_TRY(arguments.number("count", 0, 1, std::uint64_t{1} << 62));
    const std::int64_t offset = sys::boottime_offset();
    std::uint64_t seen = 0;
    Result<> failure;
    // Once the log is ours: a file that another reader writes stays as it is.
    const auto begin_capture = [&] {
        if (!wanted || capture)
            return true;
        auto made = LogCapture::create(*wanted, form, point);
        if (made)
            capture.emplace(std::move(*made));
        else
            failure = Error(made.error());
        return made.has_value();
    };
    const auto handle = [&](const LogEvent& logged) {
        const nc_event& event = logged.event;
        const std::uint64_t time = event.time_ns + static_cast<std::uint64_t>(offset);
        const auto verdict = static_cast<nc_verdict>(event.verdict);
        const auto reason = static_cast<nc_reason>(event.reason);
        const nc_packet packet = event_packet(event, form);
        if (!begin_capture())
            return false;
        if (capture) {
            const auto going_on = capture->write(event, time);
            if (!going_on.has_value())
                failure = Error(going_on.error());
            if (!going_on.has_value() || !*going_on)
                return false;
        }
        const bool reading =
            silent ||
            context.out.line(
                {{"time", sys::iso_time(time)},
                 {"interface", logged.interface},
                 {"rule_id", event.rule_id},
                 {"verdict", to_string(verdict)},
                 {"reason", to_string(reason)},
                 {"generation", event.generation},
                 {"packet", classifier::packet_json(packet)}},
                fmt::format("{} rule {} {}{}: {}", sys::time_text(time), event.rule_id,
                            to_string(verdict),
                            reason == NC_REASON_RULE ? "" : fmt::format(" ({})", to_string(reason)),
                            classifier::packet_text(packet)));
        return reading && ++seen != most;
    };
    sys::catch_stop_signals();
    NETCTL_TRY(point.follow_log(handle, [&] { return begin_capture() && !sys::stop_requested(); }));
    NETCTL_TRY(std::move(failure));
    if (capture)
        NETCTL_TRY(capture->finish());
    return 0;
}

std::vector<Option> log_options() {
    std::vector<Option> options = packet_file_options("their headers, with rule and verdict,");
    options.push_back({"count", "N", "stop after so many", {}});
    return options;
}

} // namespace netctl::datapath
