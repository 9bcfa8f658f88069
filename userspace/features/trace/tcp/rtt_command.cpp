// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/groups.hpp"
#include "features/trace/tcp/command.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/address.hpp"
#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/tcp/rtt.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::tcp {

namespace {

using Steady = std::chrono::steady_clock;

/// `remote,port`, as NC_RTT_BY_*.
Result<std::uint32_t> parse_by(const std::string& text) {
    std::uint32_t by = 0;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        const std::uint32_t bit = word == "remote"    ? NC_RTT_BY_REMOTE
                                  : word == "port"    ? NC_RTT_BY_PORT
                                  : word == "cgroup"  ? NC_RTT_BY_CGROUP
                                  : word == "process" ? NC_RTT_BY_PROCESS
                                                      : 0;
        if (bit == 0)
            return Error::usage(
                fmt::format("--by: '{}' is nothing to tell connections by", word),
                "remote, port, cgroup, process, or several with commas between them");
        by |= bit;
        begin = end + 1;
    }
    return by;
}

Address group_address(const nc_rtt_group& group) {
    Address address;
    constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (group.family == 6 && std::memcmp(group.address, mapped, sizeof mapped) == 0) {
        std::memcpy(address.bytes.data(), group.address + 12, 4);
        return address;
    }
    address.family = group.family == 6 ? Family::ipv6 : Family::ipv4;
    std::memcpy(address.bytes.data(), group.address, address.family == Family::ipv6 ? 16 : 4);
    return address;
}

std::string owner_name(const nc_rtt_group& group) {
    return std::string(group.owner.comm, strnlen(group.owner.comm, sizeof group.owner.comm));
}

std::string ms(std::uint64_t us) {
    return fmt::format("{}.{:03}", us / 1000, us % 1000);
}

class RoundTripReport {
  public:
    RoundTripReport(const Selection& selection, std::uint32_t by, std::uint64_t top,
                    Context& context)
        : selection_(&selection),
          by_(by),
          top_(top),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }) {}

    Result<int> run(std::uint64_t interval_s, std::uint64_t count, std::uint64_t duration_s) {
        Ending ending(duration_s, selection_->pid, context_->out);
        RttTrace trace = NETCTL_TRY(RttTrace::start(*selection_, by_));
        context_->out.note("counting round-trip times of TCP connections");
        ending.begin();
        auto next = ending.start() + std::chrono::seconds(interval_s);
        std::uint64_t told = 0;
        bool over = false;
        while (!over) {
            constexpr timespec nap{0, 50'000'000};
            nanosleep(&nap, nullptr);
            over = ending.has_come();
            if (interval_s == 0 || Steady::now() < next || over)
                continue;
            next += std::chrono::seconds(interval_s);
            over = !show(NETCTL_TRY(trace.read())) || (count != 0 && ++told >= count);
        }
        NETCTL_TRY(trace.stop());
        // The last interval, or all of it.
        if (count == 0 || told < count)
            show(NETCTL_TRY(trace.read()));
        const InstrumentCounters counters = NETCTL_TRY(trace.counters());
        if (context_->out.json())
            lines_.add_end({{"samples", counters.kernel.sent},
                            {"lost", counters.lost()},
                            {"not_counted", counters.kernel.no_memory}});
        lines_.write();
        std::string last =
            fmt::format("{} samples, {} lost", counters.kernel.sent, counters.lost());
        if (counters.kernel.no_memory > 0)
            last += fmt::format(", {} not counted, as there are more than {} groups",
                                counters.kernel.no_memory, NC_RTT_GROUPS);
        context_->out.note(last);
        return 0;
    }

  private:
    struct Row {
        nc_rtt_group group{};
        RttValues values;
    };

    /// What came since the last time. False if nobody reads any more.
    bool show(const RttGroups& now) {
        RttGroups fresh = now;
        for (auto& [group, values] : fresh)
            if (const auto old = before_.find(group); old != before_.end())
                values.subtract(old->second);
        before_ = now;
        if (!selection_->container.empty()) {
            std::erase_if(fresh, [this](const auto& one) {
                return !container_selected(*selection_, containers_.of(one.first.cgroup_id).get());
            });
            if ((by_ & NC_RTT_BY_CGROUP) == 0)
                fresh = without_cgroups(fresh);
        }
        std::vector<Row> rows;
        for (const auto& [group, values] : fresh)
            if (values.samples != 0)
                rows.push_back({group, values});
        std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
            return a.values.histogram.quantile(0.99) > b.values.histogram.quantile(0.99);
        });
        if (top_ != 0 && rows.size() > top_)
            rows.resize(top_);
        if (context_->out.json())
            for (const Row& row : rows)
                lines_.pending() += Text::format("{}\n", json_of(row).dump());
        else
            show_text(rows);
        return lines_.write();
    }

    void show_text(const std::vector<Row>& rows) {
        std::vector<TextTable::Column> columns;
        const auto title = [&](std::uint32_t bit, const char* name) {
            if ((by_ & bit) != 0)
                columns.push_back({Text::format("{}", name)});
        };
        title(NC_RTT_BY_REMOTE, "REMOTE");
        title(NC_RTT_BY_PORT, "PORT");
        title(NC_RTT_BY_CGROUP, "CGROUP");
        title(NC_RTT_BY_PROCESS, "PROCESS");
        for (const char* name :
             {"SAMPLES", "P50 MS", "P90 MS", "P99 MS", "MAX MS", "LEAST MS", "DEVIATION MS"})
            columns.push_back({Text::format("{}", name), true});
        TextTable table(std::move(columns));
        for (const Row& row : rows)
            table.row(cells_of(row));
        Text text = table.render();
        if (by_ == 0 && !rows.empty())
            text += rows.front().values.histogram.bars(1000, "ms");
        if (const auto time = std::exchange(again_, true); time)
            lines_.pending() += Text::format("\n");
        lines_.pending() += text;
    }

    std::vector<Text> cells_of(const Row& row) {
        std::vector<Text> cells;
        const nc_rtt_group& group = row.group;
        if ((by_ & NC_RTT_BY_REMOTE) != 0)
            cells.emplace_back(group_address(group).to_string());
        if ((by_ & NC_RTT_BY_PORT) != 0)
            cells.emplace_back(std::to_string(group.port));
        if ((by_ & NC_RTT_BY_CGROUP) != 0)
            cells.emplace_back(cgroups_.of(group.cgroup_id).value_or("-"));
        if ((by_ & NC_RTT_BY_PROCESS) != 0)
            cells.push_back(group.owner.pid != 0
                                ? Text::format("{}[{}]", owner_name(group), group.owner.pid)
                                : Text::format("-"));
        const RttValues& values = row.values;
        cells.emplace_back(std::to_string(values.samples));
        for (const double part : {0.5, 0.9, 0.99, 1.0})
            cells.emplace_back(ms(values.histogram.quantile(part)));
        cells.emplace_back(values.min_us != 0 ? ms(values.min_us) : std::string("-"));
        cells.emplace_back(ms(values.deviation_sum_us / values.samples));
        return cells;
    }

    Json json_of(const Row& row) {
        const nc_rtt_group& group = row.group;
        const RttValues& values = row.values;
        const auto at = [&](double part) { return values.histogram.quantile(part); };
        Json json{{"event", "rtt"},
                  {"time", sys::iso_time(static_cast<std::uint64_t>(sys::monotonic_now() +
                                                                    sys::monotonic_offset()))}};
        json["remote"] = json["port"] = json["cgroup"] = json["process"] = nullptr;
        if ((by_ & NC_RTT_BY_REMOTE) != 0)
            json["remote"] = group_address(group).to_string();
        if ((by_ & NC_RTT_BY_PORT) != 0)
            json["port"] = group.port;
        if ((by_ & NC_RTT_BY_CGROUP) != 0)
            if (const auto& name = cgroups_.of(group.cgroup_id))
                json["cgroup"] = *name;
        if ((by_ & NC_RTT_BY_PROCESS) != 0 && group.owner.pid != 0)
            json["process"] = Json{{"pid", group.owner.pid}, {"comm", owner_name(group)}};
        json["samples"] = values.samples;
        json["mean_us"] = values.sum_us / values.samples;
        json["p50_us"] = at(0.5);
        json["p90_us"] = at(0.9);
        json["p99_us"] = at(0.99);
        json["max_us"] = at(1.0);
        json["least_us"] = values.min_us != 0 ? Json(values.min_us) : Json();
        json["mean_deviation_us"] = values.deviation_sum_us / values.samples;
        json["histogram"] = Json::array();
        for (const Histogram::Slot& slot : values.histogram.slots())
            json["histogram"].push_back(
                {{"from_us", slot.from}, {"below_us", slot.below}, {"samples", slot.count}});
        return json;
    }

    const Selection* selection_;
    std::uint32_t by_;
    std::uint64_t top_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    RttGroups before_;
    bool again_ = false;
};

Result<int> rtt(const Arguments& arguments, Context& context) {
    const Selection selection = NETCTL_TRY(parse_selection(arguments, context));
    std::uint32_t by = 0;
    if (arguments.has("by"))
        by = NETCTL_TRY(parse_by(arguments.get("by")));
    const std::uint64_t top = NETCTL_TRY(arguments.number("top", 0, 1, NC_RTT_GROUPS));
    const std::uint64_t interval = NETCTL_TRY(arguments.number("interval", 0, 1, 86'400));
    const std::uint64_t count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
    const std::uint64_t duration = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    if (count != 0 && interval == 0)
        return Error::usage("--count goes with --interval: without it, there is one report");
    return RoundTripReport(selection, by, top, context).run(interval, count, duration);
}

} // namespace

Command rtt_command() {
    std::vector<Option> options = selection_options();
    options.push_back(
        {"by",
         "FIELDS",
         "a row for each remote, port (the server's), cgroup, process, or any of these together: "
         "remote,port",
         {}});
    options.push_back({"top", "N", "only the N rows with the longest times (99th percentile)", {}});
    options.push_back(
        {"interval", "SECONDS", "report each so often what came since the last time", {}});
    options.push_back({"count", "N", "end after N reports (with --interval)", {}});
    options.push_back({"duration", "SECONDS", "end after this time", {}});
    return {
        .name = "rtt",
        .summary = "how long round trips take, as a histogram or by groups of connections",
        .description =
            "With each segment that comes in, the smoothed round-trip time of its connection is "
            "counted "
            "in the kernel. Reports when it ends, by a signal or --duration, or with --interval.",
        .options = std::move(options),
        .run = rtt};
}

} // namespace netctl::trace::tcp
