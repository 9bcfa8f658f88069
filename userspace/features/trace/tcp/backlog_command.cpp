// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/command.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/signals.hpp"
#include "features/trace/tcp/connections.hpp"
#include "features/trace/tcp/tcp_render.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::tcp {

namespace {

std::string listener_owner(const nc_tcp_listener& listener) {
    return std::string(listener.owner.comm,
                       strnlen(listener.owner.comm, sizeof listener.owner.comm));
}

/// Of what either queue holds; the kernel lets one more in than the limit says.
std::uint64_t full_percent(const nc_tcp_listener& listener) {
    return std::uint64_t{std::max(listener.ready, listener.half_open)} * 100 /
           (std::uint64_t{listener.limit} + 1);
}

class BacklogReport {
  public:
    BacklogReport(const Selection& selection, Context& context)
        : selection_(&selection),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }) {}

    /// One report, or one each `interval_s` seconds.
    Result<int> run(std::uint64_t interval_s, std::uint64_t count, std::uint64_t duration_s) {
        using Steady = std::chrono::steady_clock;
        const Signals signals;
        Instrument instrument = NETCTL_TRY(look_at_listeners(
            *selection_, [this](const nc_tcp_listener& one) { on_listener(one); }));
        const auto start = Steady::now();
        auto next = start;
        for (std::uint64_t told = 0; !Signals::interrupted();) {
            const auto now = Steady::now();
            if (duration_s != 0 && now - start >= std::chrono::seconds(duration_s))
                break;
            if (now < next) {
                constexpr timespec nap{0, 50'000'000};
                nanosleep(&nap, nullptr);
                continue;
            }
            if (told != 0)
                NETCTL_TRY(instrument.iterate());
            next += std::chrono::seconds(interval_s);
            if (!NETCTL_TRY(report(instrument)) || interval_s == 0 || ++told == count)
                break;
        }
        NETCTL_TRY(instrument.stop());
        const InstrumentCounters counters = NETCTL_TRY(instrument.counters());
        if (context_->out.json()) {
            Json members{{"shown", shown_}};
            members.update(counters.json());
            lines_.add_end(members);
        }
        lines_.write();
        if (counters.lost() != 0)
            context_->out.note(counters.text());
        return 0;
    }

  private:
    void on_listener(const nc_tcp_listener& one) {
        if (seen_.insert(one.cookie).second)
            listeners_.push_back(one);
    }

    /// False if nobody reads any more.
    Result<bool> report(Instrument& instrument) {
        NETCTL_TRY(instrument.drain());
        if (!selection_->container.empty())
            std::erase_if(listeners_, [this](const nc_tcp_listener& one) {
                return !container_selected(*selection_, containers_.of(one.cgroup_id).get());
            });
        const auto rank = [](const nc_tcp_listener& one) {
            return std::tuple(full_percent(one), one.drops);
        };
        std::stable_sort(listeners_.begin(), listeners_.end(),
                         [&](const auto& a, const auto& b) { return rank(a) > rank(b); });
        shown_ += listeners_.size();
        if (context_->out.json())
            for (const nc_tcp_listener& one : listeners_)
                lines_.pending() += Text::format("{}\n", json_of(one).dump());
        else
            show_text();
        listeners_.clear();
        seen_.clear();
        return lines_.write();
    }

    void show_text() {
        TextTable table({{"LOCAL"},
                         {"PROCESS"},
                         {"READY", true},
                         {"HALF-OPEN", true},
                         {"LIMIT", true},
                         {"FULL", true},
                         {"DROPS", true}});
        for (const nc_tcp_listener& one : listeners_)
            table.row({end_of(one.ends.family, one.ends.local, one.ends.local_port).to_string(),
                       Text::format("{}[{}]", listener_owner(one), one.owner.pid),
                       std::to_string(one.ready), std::to_string(one.half_open),
                       std::to_string(one.limit), fmt::format("{}%", full_percent(one)),
                       std::to_string(one.drops)});
        if (std::exchange(again_, true))
            lines_.pending() += Text::format("\n");
        lines_.pending() += table.render();
    }

    Json json_of(const nc_tcp_listener& one) {
        const Endpoint local = end_of(one.ends.family, one.ends.local, one.ends.local_port);
        const auto& cgroup = cgroups_.of(one.cgroup_id);
        Json json{{"event", "listener"},
                  {"time", sys::iso_time(one.time_ns +
                                         static_cast<std::uint64_t>(sys::monotonic_offset()))}};
        json["process"] = Json{{"pid", one.owner.pid}, {"comm", listener_owner(one)}};
        json["cgroup"] = cgroup ? Json(*cgroup) : Json();
        json["netns"] = one.netns;
        json["cookie"] = one.cookie;
        json["local"] = Json{{"address", local.address.to_string()}, {"port", local.port}};
        json["ready"] = one.ready;
        json["half_open"] = one.half_open;
        json["limit"] = one.limit;
        json["full_percent"] = full_percent(one);
        json["drops"] = one.drops;
        return json;
    }

    const Selection* selection_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    std::vector<nc_tcp_listener> listeners_;
    std::set<std::uint64_t> seen_; ///< cookies of this report
    std::uint64_t shown_ = 0;
    bool again_ = false;
};

Result<int> backlog(const Arguments& arguments, Context& context) {
    const Selection selection = NETCTL_TRY(parse_selection(arguments, context));
    const std::uint64_t interval = NETCTL_TRY(arguments.number("interval", 0, 1, 86'400));
    const std::uint64_t count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
    const std::uint64_t duration = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    for (const char* other : {"count", "duration"})
        if (arguments.has(other) && interval == 0)
            return Error::usage(
                fmt::format("--{} goes with --interval: without it, there is one report", other));
    return BacklogReport(selection, context).run(interval, count, duration);
}

} // namespace

Command backlog_command() {
    std::vector<Option> options = selection_options();
    options.push_back({"interval", "SECONDS", "report each so often, and not once", {}});
    options.push_back({"count", "N", "end after N reports (with --interval)", {}});
    options.push_back({"duration", "SECONDS", "end after this time (with --interval)", {}});
    return {
        .name = "backlog",
        .summary = "what waits at listening sockets, and how full their queues are",
        .description =
            "A row for each listening socket, the fullest first: connections that wait for "
            "accept(), those "
            "whose last acknowledgment is awaited, what either may be at most, and how many were "
            "dropped since it listens.",
        .options = std::move(options),
        .run = backlog};
}

} // namespace netctl::trace::tcp
