// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/gc/command.hpp"

#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "core/duration.hpp"
#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/gc/collections.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/spans.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::gc {

namespace {

struct Wanted {
    Selection selection;
    std::uint32_t ring_bytes = 0;
    std::uint64_t slower_ns = 0;
    std::uint64_t duration_s = 0;
};

class Report {
  public:
    Report(Wanted wanted, Context& context)
        : wanted_(std::move(wanted)),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }),
          clock_offset_(sys::monotonic_offset()) {}

    Result<int> run(const std::vector<usdt::ProbeFile>& files) {
        Ending ending(wanted_.duration_s, wanted_.selection.pid, context_->out);
        Instrument instrument = NETCTL_TRY(
            watch_collections(files, wanted_.selection, wanted_.ring_bytes,
                              [this](const nc_gc_record& record) { on_record(record); }));
        std::string names;
        for (const usdt::ProbeFile& file : files)
            names += (names.empty() ? "" : ", ") + file.file.path;
        context_->out.note("tracing collections of " + names);
        if (!context_->out.json())
            lines_.pending() =
                Text::format("{:<15} {:<20} {:>10}  {}\n", "TIME", "PROCESS", "TOOK", "COLLECTION");
        ending.begin();
        while (!done_ && !ending.has_come()) {
            NETCTL_TRY(instrument.poll());
            write();
            instrument.rest();
        }
        NETCTL_TRY(instrument.stop());
        const InstrumentCounters counters = NETCTL_TRY(instrument.counters());
        summarize();
        const std::uint64_t lost = counters.lost() + counters.kernel.no_memory;
        if (context_->out.json())
            lines_.add_end({{"collections", count_}, {"lost", lost}});
        write();
        context_->out.note(fmt::format("{} collections, {} lost", count_, lost));
        return 0;
    }

  private:
    using Key = std::tuple<std::string, std::uint32_t, std::string>; ///< process, pid, collector

    struct Sum {
        std::uint64_t count = 0;
        std::uint64_t total_ns = 0;
        Histogram histogram;
    };

    void write() {
        if (!lines_.write())
            done_ = true; // nobody reads any more
    }

    void on_record(const nc_gc_record& record) {
        const auto collection = collections_.add(record);
        if (!collection || done_)
            return;
        std::shared_ptr<const Container> container;
        if (!wanted_.selection.container.empty()) {
            container = containers_.of(collection->cgroup_id);
            if (!container_selected(wanted_.selection, container.get()))
                return;
        }
        ++count_;
        Sum& sum = sums_[{collection->comm, collection->pid, collection->collector}];
        ++sum.count;
        sum.total_ns += collection->took_ns;
        std::array<std::uint32_t, Histogram::slot_count> one{};
        one[Histogram::slot_of(collection->took_ns)] = 1;
        sum.histogram.add(one);
        if (collection->took_ns >= wanted_.slower_ns)
            show(*collection, container.get());
    }

    void show(const Collection& one, const Container* container) {
        const std::uint64_t time = one.time_ns + static_cast<std::uint64_t>(clock_offset_);
        if (context_->out.json()) {
            const auto& cgroup = cgroups_.of(one.cgroup_id);
            Json json{{"event", "collection"},
                      {"time", sys::iso_time(time)},
                      {"process", {{"pid", one.pid}, {"comm", one.comm}}},
                      {"thread", one.tid},
                      {"cgroup", cgroup ? Json(*cgroup) : Json()},
                      {"container", container ? Json(container->label()) : Json()},
                      {"runtime", one.java ? "java" : "python"},
                      {"collector", one.collector.empty() ? Json() : Json(one.collector)},
                      {"full", one.full ? Json(*one.full) : Json()},
                      {"took_ns", one.took_ns},
                      {"collected", one.collected ? Json(*one.collected) : Json()},
                      {"pools", Json::array()}};
            for (const Pool& pool : one.pools)
                json["pools"].push_back({{"pool", pool.name},
                                         {"before_bytes", pool.before},
                                         {"after_bytes", pool.after}});
            lines_.pending() += Text::format("{}\n", json.dump());
            return;
        }
        std::string process = fmt::format("{}[{}]", shown(one.comm), one.pid);
        if (container)
            process += "@" + shown(container->label());
        std::string told = one.collector.empty() ? "-" : one.collector;
        if (one.full.value_or(false))
            told += ", full";
        if (one.collected)
            told += fmt::format(", {} objects", *one.collected);
        for (const Pool& pool : one.pools) {
            if (pool.before == pool.after)
                continue; // most do not change, as those of compiled code
            told += fmt::format("; {} {:.1f}M->{:.1f}M", pool.name,
                                static_cast<double>(pool.before) / 1048576,
                                static_cast<double>(pool.after) / 1048576);
        }
        lines_.pending() +=
            Text::format("{:<15} {:<20} {:>10}  {}\n", sys::time_text(time).substr(11), process,
                         span_text(one.took_ns), told);
    }

    /// What all of a collector's took.
    void summarize() {
        TextTable table({{Text::format("PROCESS")},
                         {Text::format("COLLECTOR")},
                         {Text::format("COUNT"), true},
                         {Text::format("MEAN"), true},
                         {Text::format("P50"), true},
                         {Text::format("P99"), true},
                         {Text::format("MAX"), true},
                         {Text::format("TOTAL"), true}});
        for (const auto& [key, sum] : sums_) {
            const auto& [comm, pid, collector] = key;
            if (context_->out.json()) {
                Json json{{"event", "collector"},
                          {"process", {{"pid", pid}, {"comm", comm}}},
                          {"collector", collector.empty() ? Json() : Json(collector)},
                          {"calls", sum.count},
                          {"total_ns", sum.total_ns},
                          {"mean_ns", sum.total_ns / sum.count}};
                add_spans(json, sum.histogram);
                lines_.pending() += Text::format("{}\n", json.dump());
                continue;
            }
            table.row({Text(fmt::format("{}[{}]", comm, pid)),
                       Text(collector.empty() ? std::string("-") : collector),
                       Text(std::to_string(sum.count)), Text(span_text(sum.total_ns / sum.count)),
                       Text(span_text(sum.histogram.quantile(0.5))),
                       Text(span_text(sum.histogram.quantile(0.99))),
                       Text(span_text(sum.histogram.quantile(1))), Text(span_text(sum.total_ns))});
        }
        if (table.empty() || context_->out.json())
            return;
        lines_.pending() += Text::format("\n") + table.render();
        if (sums_.size() == 1)
            lines_.pending() += span_bars(sums_.begin()->second.histogram);
    }

    Wanted wanted_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    std::int64_t clock_offset_;
    Collections collections_;
    std::map<Key, Sum> sums_;
    std::uint64_t count_ = 0;
    bool done_ = false;
};

Result<int> run_gc(const Arguments& arguments, Context& context) {
    Wanted wanted;
    wanted.selection = NETCTL_TRY(parse_selection(arguments, context));
    wanted.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));
    wanted.duration_s = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    if (arguments.has("slower"))
        wanted.slower_ns = static_cast<std::uint64_t>(
            NETCTL_TRY(parse_duration("slower", arguments.get("slower"),
                                      std::chrono::nanoseconds::zero(), std::chrono::hours(24)))
                .count());
    const auto files = NETCTL_TRY(find_runtimes(arguments.get("file"), wanted.selection.pid));
    return Report(std::move(wanted), context).run(files);
}

} // namespace

Command gc_command() {
    std::vector<Option> options = task_selection_options();
    options.insert(
        options.end(),
        {{"file", "FILE", "of this libjvm.so or python3, whoever runs it, now or later", {}},
         {"slower", "TIME", "only lines for those that took at least so long: 5ms", {}},
         {"duration", "SECONDS", "end after this time", {}},
         {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}}});
    return {
        .name = "gc",
        .summary = "garbage collections of Java and Python, and how long they take",
        .description =
            "A line for each collection when it is over, with its collector and, of Java, what "
            "its pools hold before and behind it; at the end what those of each collector took. "
            "By the probes that Java (hotspot) and Python have built in: no option of theirs is "
            "needed, and processes go on as they are.",
        .positionals = {},
        .options = std::move(options),
        .run = run_gc};
}

} // namespace netctl::trace::gc
