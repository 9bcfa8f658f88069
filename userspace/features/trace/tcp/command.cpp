// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/command.hpp"

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/duration.hpp"
#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/tcp/connections.hpp"
#include "features/trace/tcp/tcp_render.hpp"
#include "sys/clock.hpp"
#include "sys/kernel_symbols.hpp"

namespace netctl::trace::tcp {

namespace {

class Stream {
  public:
    Stream(ConnectionsRequest request, Context& context)
        : request_(std::move(request)),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }),
          clock_offset_(sys::monotonic_offset()) {}

    Result<int> run(std::uint64_t count, std::uint64_t duration_s) {
        Ending ending(duration_s, request_.selection.pid, context_->out);
        count_ = count;
        Connections connections = NETCTL_TRY(
            trace_connections(request_, [this](const nc_tcp_event& raw) { on_event(raw); }));
        reasons_ = connections.reasons;
        context_->out.note("tracing TCP connections");
        if (!context_->out.json())
            lines_.pending() = header_of(request_.kind);
        ending.begin();
        while (!done_ && !ending.has_come()) {
            NETCTL_TRY(connections.instrument.poll());
            write();
            connections.instrument.rest();
        }
        NETCTL_TRY(connections.instrument.stop());
        const InstrumentCounters counters = NETCTL_TRY(connections.instrument.counters());
        if (context_->out.json()) {
            Json members{{"shown", shown_}};
            members.update(counters.json());
            lines_.add_end(members);
        }
        lines_.write();
        std::string told = fmt::format("{} shown; {}", shown_, counters.text());
        if (lines_.unwritten() > 0)
            told += fmt::format("; {} lines not written", lines_.unwritten());
        context_->out.note(told);
        return 0;
    }

  private:
    void on_event(const nc_tcp_event& raw) {
        if (done_)
            return;
        Event event = make_event(raw, clock_offset_, reasons_);
        if (raw.kind == NC_TCP_DROP)
            event.place = symbols_.at(raw.place);
        if (context_->out.json() && raw.cgroup_id != 0)
            event.cgroup = cgroups_.of(raw.cgroup_id);
        if (!request_.selection.container.empty()) {
            if (raw.cgroup_id != 0)
                event.process.container = containers_.of(raw.cgroup_id);
            if (!container_selected(request_.selection, event.process.container.get()))
                return;
        }
        if (context_->out.json())
            append_event_json(lines_.pending(), event);
        else
            append_event_text(lines_.pending(), event);
        ++shown_;
        if (lines_.pending().size() > 256 * 1024)
            write();
        if (count_ != 0 && shown_ >= count_)
            done_ = true;
    }

    void write() {
        if (!lines_.write())
            done_ = true; // nobody reads any more
    }

    ConnectionsRequest request_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    sys::KernelSymbols symbols_;
    std::int64_t clock_offset_;
    std::map<std::uint32_t, std::string> reasons_;
    std::uint64_t count_ = 0;
    std::uint64_t shown_ = 0;
    bool done_ = false;
};

Handler handler_of(nc_tcp_kind kind) {
    return [kind](const Arguments& arguments, Context& context) -> Result<int> {
        ConnectionsRequest request;
        request.kind = kind;
        request.selection = NETCTL_TRY(parse_selection(arguments, context));
        request.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));
        if (arguments.has("min"))
            request.min_ns = static_cast<std::uint64_t>(
                NETCTL_TRY(parse_duration("min", arguments.get("min"),
                                          std::chrono::nanoseconds::zero(), std::chrono::hours(24)))
                    .count());
        const std::uint64_t count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
        const std::uint64_t duration = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
        return Stream(std::move(request), context).run(count, duration);
    };
}

std::vector<Option> stream_options(std::vector<Option> own) {
    std::vector<Option> options = selection_options();
    options.insert(options.end(), std::make_move_iterator(own.begin()),
                   std::make_move_iterator(own.end()));
    options.push_back({"count", "N", "end after N lines", {}});
    options.push_back({"duration", "SECONDS", "end after this time", {}});
    options.push_back(
        {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}});
    return options;
}

} // namespace

Command tcp_command() {
    return {
        .name = "tcp",
        .summary = "show what TCP connections do, and whose they are",
        .children = {
            {
                .name = "connlat",
                .summary = "how long connecting took, and how it ended",
                .description =
                    "One line for each attempt of this host to connect, when it is decided: when, "
                    "the "
                    "process that asked, from where to where, the time from the SYN to the "
                    "connection or to the failure, and what came of it. Ends with a signal, "
                    "--count or --duration; what was lost is then told on standard error.",
                .options = stream_options(
                    {{"min", "TIME", "only attempts that took at least so long: 1ms", {}}}),
                .run = handler_of(NC_TCP_CONNECT),
            },
            {
                .name = "states",
                .summary = "every change of a connection's state",
                .description =
                    "One line for each change, with the time that was spent in the state before. A "
                    "port that the kernel has not chosen yet is shown as -.",
                .options = stream_options({}),
                .run = handler_of(NC_TCP_STATE),
            },
            {
                .name = "life",
                .summary = "one line for each connection when it is over",
                .description =
                    "Who, from where to where, bytes both ways, segments sent again, round-trip "
                    "time, duration, and who ended it how.",
                .options = stream_options({}),
                .run = handler_of(NC_TCP_CLOSE),
            },
            {
                .name = "retrans",
                .summary = "every segment that is sent again, and why",
                .description =
                    "One line for each, with the state, its payload, the round-trip time so far, "
                    "and "
                    "why: no answer to a SYN (syn) or to a SYN and ACK (syn-ack), nothing "
                    "acknowledged "
                    "in time (timeout), later segments acknowledged (fast), or to see whether the "
                    "last one was lost (probe).",
                .options = stream_options({}),
                .run = handler_of(NC_TCP_RETRANSMIT),
            },
            {
                .name = "reset",
                .summary = "every reset, sent or received, and why",
                .description = "One line for each, with the state that the connection was in and, "
                               "for those that "
                               "were sent, the kernel's reason where it has one.",
                .options = stream_options({}),
                .run = handler_of(NC_TCP_RESET),
            },
            {
                .name = "drops",
                .summary = "every TCP segment that the kernel drops, why, and where",
                .description = "One line for each, with the kernel's reason and the place in its "
                               "code. LOCAL is "
                               "where a segment was to go that came in.",
                .options = stream_options({}),
                .run = handler_of(NC_TCP_DROP),
            },
            rtt_command(),
            backlog_command(),
        }};
}

} // namespace netctl::trace::tcp
