// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/func/command.hpp"
#include "features/trace/groups.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <ctime>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/duration.hpp"
#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/func/functions.hpp"
#include "features/trace/func/targets.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/spans.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::func {

namespace {

using Steady = std::chrono::steady_clock;

struct Field {
    const char* name;
    std::uint32_t bit;
    const char* title;
};
constexpr std::array<Field, 4> fields{{
    {"function", NC_FUNC_BY_FUNCTION, "FUNCTION"},
    {"process", NC_FUNC_BY_PROCESS, "PROCESS"},
    {"thread", NC_FUNC_BY_THREAD, "THREAD"},
    {"cgroup", NC_FUNC_BY_CGROUP, "CGROUP"},
}};

/// `function,thread`, as NC_FUNC_BY_*.
Result<std::uint32_t> parse_by(const std::string& text) {
    std::uint32_t by = 0;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        const auto field = std::find_if(fields.begin(), fields.end(),
                                        [&](const Field& one) { return word == one.name; });
        if (field == fields.end())
            return Error::usage(fmt::format("--by: '{}' is nothing to tell calls by", word),
                                "function, process, thread, cgroup, or several with commas between "
                                "them");
        by |= field->bit;
        begin = end + 1;
    }
    return by;
}

struct Wanted {
    Request request;
    Targets targets;
    std::uint64_t top = 0;
    std::uint64_t interval_s = 0;
    std::uint64_t count = 0;
    std::uint64_t duration_s = 0;
    bool histograms = false;
};

class Report {
  public:
    Report(Wanted wanted, Context& context)
        : wanted_(std::move(wanted)),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }),
          clock_offset_(sys::monotonic_offset()) {}

    Result<int> run() {
        Ending ending(wanted_.duration_s, request().selection.pid, context_->out);
        FunctionTrace trace = NETCTL_TRY(FunctionTrace::start(
            wanted_.targets, request(), [this](const auto& call) { on_call(call); }));
        const std::size_t count = wanted_.targets.places.size();
        context_->out.note(fmt::format(
            "tracing {} function{}{}", count, count == 1 ? "" : "s",
            trace.kernel_way().empty() ? "" : ", the kernel's by " + trace.kernel_way()));
        ending.begin();
        if (request().mode == NC_FUNC_EACH)
            NETCTL_TRY(tell_each(trace.instrument(), ending));
        else
            NETCTL_TRY(count_them(trace, ending));
        return finish(trace);
    }

  private:
    struct Row {
        nc_func_group group{};
        Values values;
    };

    const Request& request() const { return wanted_.request; }

    Result<> tell_each(Instrument& instrument, Ending& ending) {
        if (!context_->out.json())
            lines_.pending() = Text::format("{:<15} {:<20} {:>8} {:>10}  {}\n", "TIME", "PROCESS",
                                            "THREAD", "TOOK", "FUNCTION");
        while (!done_ && !ending.has_come()) {
            NETCTL_TRY(instrument.poll());
            write();
            instrument.rest();
        }
        return {};
    }

    Result<> count_them(FunctionTrace& trace, Ending& ending) {
        auto next = ending.start() + std::chrono::seconds(wanted_.interval_s);
        while (!done_) {
            constexpr timespec nap{0, 50'000'000};
            nanosleep(&nap, nullptr);
            if (ending.has_come())
                return {};
            if (wanted_.interval_s == 0 || Steady::now() < next)
                continue;
            next += std::chrono::seconds(wanted_.interval_s);
            show(NETCTL_TRY(trace.read()));
            if (wanted_.count != 0 && ++shown_ >= wanted_.count)
                done_ = true;
        }
        return {};
    }

    Result<int> finish(FunctionTrace& trace) {
        NETCTL_TRY(trace.stop());
        if (request().mode != NC_FUNC_EACH && !done_)
            show(NETCTL_TRY(trace.read())); // the last interval, or all of it
        const Counters counters = NETCTL_TRY(trace.counters());
        const std::uint64_t calls =
            request().mode == NC_FUNC_EACH ? shown_ : counters.instrument.kernel.sent;
        if (context_->out.json())
            lines_.add_end({{"calls", calls},
                            {"lost", counters.lost()},
                            {"too_deep", counters.calls.too_deep},
                            {"left", counters.calls.left}});
        lines_.write();
        std::string told = fmt::format("{} calls, {} lost", calls, counters.lost());
        if (counters.calls.no_group > 0)
            told += fmt::format(", {} of them as there are more than {} groups",
                                counters.calls.no_group, NC_FUNC_GROUPS);
        if (counters.calls.too_deep > 0)
            told += fmt::format("; {} nested deeper than {}, without a time",
                                counters.calls.too_deep, NC_FUNC_DEPTH);
        if (counters.calls.left > 0)
            told += fmt::format("; {} left without returning", counters.calls.left);
        if (lines_.unwritten() > 0)
            told += fmt::format("; {} lines not written", lines_.unwritten());
        context_->out.note(told);
        return 0;
    }

    void write() {
        if (!lines_.write())
            done_ = true; // nobody reads any more
    }

    const Place& place_of(std::uint32_t function) const {
        return wanted_.targets
            .places[std::min<std::size_t>(function, wanted_.targets.places.size() - 1)];
    }

    Json file_of(const Place& place) const {
        return place.file == Place::kernel ? Json() : Json(wanted_.targets.files[place.file].path);
    }

    void on_call(const nc_func_call& call) {
        if (done_)
            return;
        const Selection& selection = request().selection;
        std::shared_ptr<const Container> container;
        if (!selection.container.empty()) {
            container = containers_.of(call.cgroup_id);
            if (!container_selected(selection, container.get()))
                return;
        }
        const Place& place = place_of(call.function);
        const std::string comm(call.owner.comm, strnlen(call.owner.comm, sizeof call.owner.comm));
        const std::uint64_t time = call.time_ns + static_cast<std::uint64_t>(clock_offset_);
        if (context_->out.json()) {
            const auto& cgroup = cgroups_.of(call.cgroup_id);
            lines_.pending() += Text::format(
                "{}\n", Json{{"event", "call"},
                             {"time", sys::iso_time(time)},
                             {"process", {{"pid", call.owner.pid}, {"comm", comm}}},
                             {"thread", call.tid},
                             {"cgroup", cgroup ? Json(*cgroup) : Json()},
                             {"container", container ? Json(container->label()) : Json()},
                             {"file", file_of(place)},
                             {"function", place.name},
                             {"took_ns", call.took_ns},
                             {"depth", call.depth}}
                            .dump());
        } else {
            std::string process = fmt::format("{}[{}]", shown(comm), call.owner.pid);
            if (container)
                process += "@" + shown(container->label());
            lines_.pending() +=
                Text::format("{:<15} {:<20} {:>8} {:>10}  {}{}\n", sys::time_text(time).substr(11),
                             process, call.tid, span_text(call.took_ns),
                             std::string(call.depth * 2, ' '), wanted_.targets.label(place));
        }
        ++shown_;
        if (lines_.pending().size() > 256 * 1024)
            write();
        if (wanted_.count != 0 && shown_ >= wanted_.count)
            done_ = true;
    }

    /// What came since the last time.
    void show(const Groups& now) {
        Groups fresh = now;
        for (auto& [group, values] : fresh)
            if (const auto old = before_.find(group); old != before_.end())
                values.subtract(old->second);
        before_ = now;
        if (!request().selection.container.empty()) {
            std::erase_if(fresh, [this](const auto& one) {
                return !container_selected(request().selection,
                                           containers_.of(one.first.cgroup_id).get());
            });
            if ((request().by & NC_FUNC_BY_CGROUP) == 0)
                fresh = without_cgroups(fresh);
        }
        std::vector<Row> rows;
        for (const auto& [group, values] : fresh)
            if (values.calls != 0)
                rows.push_back({group, values});
        std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
            return std::pair(a.values.sum_ns, a.values.calls) >
                   std::pair(b.values.sum_ns, b.values.calls);
        });
        if (wanted_.top != 0 && rows.size() > wanted_.top)
            rows.resize(wanted_.top);
        if (context_->out.json())
            for (const Row& row : rows)
                lines_.pending() += Text::format("{}\n", json_of(row).dump());
        else
            show_text(rows);
        write();
    }

    bool times() const { return request().mode == NC_FUNC_TIMES; }

    void show_text(const std::vector<Row>& rows) {
        std::vector<TextTable::Column> columns;
        for (const Field& field : fields)
            if ((request().by & field.bit) != 0)
                columns.push_back({Text(std::string(field.title))});
        columns.push_back({Text::format("CALLS"), true});
        if (times())
            for (const char* name : {"MEAN", "P50", "P90", "P99", "MAX", "TOTAL"})
                columns.push_back({Text(std::string(name)), true});
        TextTable table(std::move(columns));
        for (const Row& row : rows)
            table.row(cells_of(row));
        if (std::exchange(again_, true))
            lines_.pending() += Text::format("\n");
        lines_.pending() += table.render();
        if (!times())
            return;
        for (const Row& row : rows) {
            if (!wanted_.histograms && rows.size() > 1)
                break;
            if (rows.size() > 1)
                lines_.pending() += Text::format("\n{}\n", fmt::join(names_of(row), " "));
            lines_.pending() += span_bars(row.values.histogram);
        }
    }

    /// What tells the row from others.
    std::vector<std::string> names_of(const Row& row) {
        std::vector<std::string> names;
        const std::uint32_t by = request().by;
        if ((by & NC_FUNC_BY_FUNCTION) != 0)
            names.push_back(wanted_.targets.label(place_of(row.group.function)));
        if ((by & NC_FUNC_BY_PROCESS) != 0)
            names.push_back(fmt::format("{}[{}]", row.values.comm, row.values.pid));
        if ((by & NC_FUNC_BY_THREAD) != 0)
            names.push_back(fmt::format("{}[{}]", row.values.comm, row.group.id));
        if ((by & NC_FUNC_BY_CGROUP) != 0)
            names.push_back(cgroups_.of(row.group.cgroup_id).value_or("-"));
        return names;
    }

    std::vector<Text> cells_of(const Row& row) {
        std::vector<Text> cells;
        for (const std::string& name : names_of(row))
            cells.emplace_back(name);
        const Values& values = row.values;
        cells.emplace_back(std::to_string(values.calls));
        if (times()) {
            cells.emplace_back(span_text(values.sum_ns / values.calls));
            for (const double part : {0.5, 0.9, 0.99, 1.0})
                cells.emplace_back(span_text(values.histogram.quantile(part)));
            cells.emplace_back(span_text(values.sum_ns));
        }
        return cells;
    }

    Json json_of(const Row& row) {
        const Values& values = row.values;
        const std::uint32_t by = request().by;
        Json json{{"event", "function"},
                  {"time", sys::iso_time(
                               static_cast<std::uint64_t>(sys::monotonic_now() + clock_offset_))}};
        json["file"] = json["function"] = json["process"] = json["thread"] = json["cgroup"] =
            nullptr;
        if ((by & NC_FUNC_BY_FUNCTION) != 0) {
            json["file"] = file_of(place_of(row.group.function));
            json["function"] = place_of(row.group.function).name;
        }
        if ((by & NC_FUNC_BY_PROCESS) != 0)
            json["process"] = Json{{"pid", values.pid}, {"comm", values.comm}};
        if ((by & NC_FUNC_BY_THREAD) != 0)
            json["thread"] =
                Json{{"tid", row.group.id}, {"pid", values.pid}, {"comm", values.comm}};
        if ((by & NC_FUNC_BY_CGROUP) != 0)
            if (const auto& name = cgroups_.of(row.group.cgroup_id))
                json["cgroup"] = *name;
        json["calls"] = values.calls;
        json["total_ns"] = times() ? Json(values.sum_ns) : Json();
        json["mean_ns"] = times() ? Json(values.sum_ns / values.calls) : Json();
        add_spans(json, values.histogram);
        return json;
    }

    Wanted wanted_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    std::int64_t clock_offset_;
    Groups before_;
    std::uint64_t shown_ = 0; ///< calls, or reports
    bool again_ = false;
    bool done_ = false;
};

Result<int> func(const Arguments& arguments, Context& context) {
    const bool calls = arguments.has("calls");
    if (arguments.has("slower") && calls)
        return Error::usage("--slower and --calls exclude each other: a count has no time");
    const Look look = calls ? Look::calls : Look::times;
    const std::uint32_t pid = NETCTL_TRY(parse_pid(arguments));
    return report(arguments, look, context,
                  [&]() { return find_targets(arguments.rest(), pid, look); });
}

} // namespace

Result<int> report(const Arguments& arguments, Look look, Context& context,
                   const std::function<Result<Targets>()>& find) {
    Wanted wanted;
    Request& request = wanted.request;
    if (look == Look::calls)
        request.mode = NC_FUNC_CALLS;
    if (arguments.has("slower")) {
        request.mode = NC_FUNC_EACH;
        for (const char* other : {"by", "interval", "top", "histograms"})
            if (arguments.has(other))
                return Error::usage(
                    fmt::format("--slower shows calls one by one, and --{} is about many", other));
        request.slower_ns = static_cast<std::uint64_t>(
            NETCTL_TRY(parse_duration("slower", arguments.get("slower"),
                                      std::chrono::nanoseconds::zero(), std::chrono::hours(24)))
                .count());
    }
    if (arguments.has("by"))
        request.by = NETCTL_TRY(parse_by(arguments.get("by")));
    request.selection = NETCTL_TRY(parse_selection(arguments, context));
    request.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));
    wanted.top = NETCTL_TRY(arguments.number("top", 0, 1, NC_FUNC_GROUPS));
    wanted.interval_s = NETCTL_TRY(arguments.number("interval", 0, 1, 86'400));
    wanted.count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
    wanted.duration_s = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    wanted.histograms = arguments.has("histograms");
    if (wanted.count != 0 && wanted.interval_s == 0 && request.mode != NC_FUNC_EACH)
        return Error::usage("--count goes with --interval or --slower: without, there is one "
                            "report");
    wanted.targets = NETCTL_TRY(find());
    return Report(std::move(wanted), context).run();
}

std::vector<Option> report_options() {
    std::vector<Option> options = task_selection_options();
    options.insert(
        options.end(),
        {{"by",
          "FIELDS",
          "a row for each function, process, thread, cgroup, or any of these together: "
          "function,thread (default: function)",
          {}},
         {"slower", "TIME", "show each call that took at least so long, when it returns: 5ms", {}},
         {"histograms", "", "a histogram for each row, also where there are several", {}},
         {"top", "N", "only the N rows that took the longest time in all", {}},
         {"interval", "SECONDS", "report each so often what came since the last time", {}},
         {"count", "N", "end after N reports (with --interval) or calls (with --slower)", {}},
         {"duration", "SECONDS", "end after this time", {}},
         {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}}});
    return options;
}

Command func_command() {
    std::vector<Option> options = report_options();
    options.push_back({"calls", "", "count calls only: costs half as much, and works for Go", {}});
    return {
        .name = "func",
        .summary = "how often functions are called, and how long that takes",
        .description =
            "FILE:NAME is a function of a program (a path, or a name in PATH) or of a library (c, "
            "libc.so.6); NAME may be a glob, and have a +OFFSET behind it. FILE:+OFFSET is a "
            "function of a stripped file, by where it begins there. :NAME is one of the program of "
            "--pid. k:NAME is one of the kernel. Calls are counted in the kernel, with their times "
            "as histograms; a report comes at the end, by a signal or --duration, or with "
            "--interval. --slower shows single calls instead.",
        .positionals = {{"TARGET", Positional::Count::rest}},
        .options = std::move(options),
        .run = func};
}

} // namespace netctl::trace::func
