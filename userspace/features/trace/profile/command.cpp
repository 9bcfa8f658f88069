// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/command.hpp"

#include <cerrno>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/profile/flame_graph.hpp"
#include "features/trace/profile/pprof.hpp"
#include "features/trace/profile/profile.hpp"
#include "features/trace/profile/stacks.hpp"
#include "features/trace/spans.hpp"
#include "sys/clock.hpp"
#include "sys/replace_file.hpp"

namespace netctl::trace::profile {

namespace {

struct Wanted {
    Request request;
    std::uint64_t top = 20;
    std::uint64_t duration_s = 0;
    bool folded = false;
    std::string svg;   ///< path; empty: none
    std::string pprof; ///< as well
};

class Report {
  public:
    Report(Wanted wanted, Context& context)
        : wanted_(std::move(wanted)),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }) {}

    Result<int> run() {
        Ending ending(wanted_.duration_s, request().selection.pid, context_->out);
        ProfileTrace trace = NETCTL_TRY(
            ProfileTrace::start(request(), [this](const Sample& sample) { on_sample(sample); }));
        const std::int64_t begin = sys::monotonic_now();
        context_->out.note(request().off_cpu ? "tracing where threads wait"
                                             : fmt::format("sampling what runs, {} times a second "
                                                           "on each CPU",
                                                           request().hertz));
        ending.begin();
        while (!ending.has_come()) {
            NETCTL_TRY(trace.instrument().poll());
            trace.instrument().rest();
        }
        waiting_ = NETCTL_TRY(trace.stop());
        about_ = {begin + sys::monotonic_offset(), sys::monotonic_now() - begin, waits(),
                  request().hertz};
        counters_ = NETCTL_TRY(trace.counters());
        stacks_ = counts_.finish();
        show();
        return write_files();
    }

  private:
    const Request& request() const { return wanted_.request; }
    bool waits() const { return request().off_cpu; }

    void on_sample(const Sample& sample) {
        if (!container_selected(request().selection, container_of(sample.head.cgroup_id).get()))
            return;
        counts_.add(sample);
    }

    std::shared_ptr<const Container> container_of(std::uint64_t cgroup_id) {
        return request().selection.container.empty() ? nullptr : containers_.of(cgroup_id);
    }

    std::uint64_t lost() const {
        return counters_.lost() + counters_.kernel.no_memory + stacks_.no_room;
    }

    void show() {
        if (context_->out.json())
            show_json();
        else if (wanted_.folded)
            lines_.pending() += folded(stacks_);
        else if (wanted_.svg.empty() && wanted_.pprof.empty())
            show_functions();
        lines_.write();
        std::string told =
            fmt::format("{} {}, {} lost", stacks_.samples, waits() ? "waits" : "samples", lost());
        if (waiting_ > 0)
            told += fmt::format("; {} of them not over yet", waiting_);
        if (stacks_.ends_early > 0)
            told += fmt::format("; the stacks of {} end early, as programs without frame pointers "
                                "(-fno-omit-frame-pointer) have them",
                                stacks_.ends_early);
        if (stacks_.gone > 0)
            told += fmt::format("; {} of processes that were gone before their names were read",
                                stacks_.gone);
        if (lines_.unwritten() > 0)
            told += fmt::format("; {} lines not written", lines_.unwritten());
        context_->out.note(told);
    }

    std::string percent(std::uint64_t amount) const {
        return fmt::format("{:.2f}%", stacks_.amount == 0
                                          ? 0.0
                                          : 100 * static_cast<double>(amount) /
                                                static_cast<double>(stacks_.amount));
    }

    void show_functions() {
        TextTable table({{Text::format("SELF"), true},
                         {Text::format("TOTAL"), true},
                         {waits() ? Text::format("TIME") : Text::format("SAMPLES"), true},
                         {Text::format("FUNCTION")},
                         {Text::format("FILE")}});
        std::vector<Function> functions = stacks_.functions();
        if (functions.size() > wanted_.top)
            functions.resize(wanted_.top);
        for (const Function& one : functions) {
            const Frame& frame = stacks_.frames[one.frame];
            table.row({Text(percent(one.self)), Text(percent(one.total)),
                       Text(waits() ? span_text(one.self) : std::to_string(one.self)),
                       Text(frame.function), Text(where(frame))});
        }
        lines_.pending() += table.render();
    }

    static std::string where(const Frame& frame) {
        return frame.kind == Frame::Kind::kernel     ? "[kernel]"
               : frame.kind == Frame::Kind::compiled ? "[compiled]"
               : frame.file.empty()                  ? "-"
                                                     : frame.file;
    }

    static Json json_of(const Frame& frame) {
        const char* kind = frame.kind == Frame::Kind::kernel     ? "kernel"
                           : frame.kind == Frame::Kind::compiled ? "compiled"
                                                                 : "user";
        return {{"function", frame.named ? Json(frame.function) : Json()},
                {"file", frame.file.empty() ? Json() : Json(frame.file)},
                {"kind", kind}};
    }

    void show_json() {
        std::vector<Function> functions = stacks_.functions();
        if (functions.size() > wanted_.top)
            functions.resize(wanted_.top);
        for (const Function& one : functions) {
            Json json{{"event", "function"}};
            json.update(json_of(stacks_.frames[one.frame]));
            json[waits() ? "self_ns" : "self_samples"] = one.self;
            json[waits() ? "total_ns" : "total_samples"] = one.total;
            lines_.pending() += Text::format("{}\n", json.dump());
        }
        for (const Stack& stack : stacks_.stacks) {
            const auto& cgroup = cgroups_.of(stack.cgroup_id);
            const auto container = container_of(stack.cgroup_id);
            Json json{{"event", "stack"},
                      {"process", {{"pid", stack.pid}, {"comm", stack.comm}}},
                      {"cgroup", cgroup ? Json(*cgroup) : Json()},
                      {"container", container ? Json(container->label()) : Json()},
                      {"samples", stack.samples},
                      {"waited_ns", waits() ? Json(stack.amount) : Json()},
                      {"ends_early", stack.ends_early},
                      {"frames", Json::array()}};
            for (const std::uint32_t frame : stack.frames)
                json["frames"].push_back(json_of(stacks_.frames[frame]));
            lines_.pending() += Text::format("{}\n", json.dump());
        }
        lines_.add_end({{"samples", stacks_.samples},
                        {"waited_ns", waits() ? Json(stacks_.amount) : Json()},
                        {"lost", lost()},
                        {"waiting", waiting_},
                        {"ended_early", stacks_.ends_early},
                        {"gone", stacks_.gone}});
    }

    Result<int> write_files() {
        constexpr mode_t mode = 0644;
        if (!wanted_.svg.empty()) {
            const std::string title = waits() ? "Where threads wait" : "What runs on the CPUs";
            NETCTL_TRY(sys::replace_file(wanted_.svg, flame_graph(stacks_, title, waits()), mode));
        }
        if (!wanted_.pprof.empty())
            NETCTL_TRY(sys::replace_file(wanted_.pprof, NETCTL_TRY(pprof(stacks_, about_)), mode));
        return 0;
    }

    Wanted wanted_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    StackCounts counts_;
    Stacks stacks_;
    InstrumentCounters counters_;
    PprofAbout about_;
    std::uint64_t waiting_ = 0;
};

/// Before anything is sampled, since it is written at the end. Errors: there is no such directory, or no right to write there.
Result<> check_place_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == path.npos ? "." : path.substr(0, slash + 1);
    if (access(directory.c_str(), W_OK | X_OK) != 0)
        return Error::system(errno, fmt::format("cannot write {}", path));
    return {};
}

Result<int> run_profile(const Arguments& arguments, Context& context) {
    Wanted wanted;
    Request& request = wanted.request;
    request.off_cpu = arguments.has("off-cpu");
    if (request.off_cpu && arguments.has("frequency"))
        return Error::usage("--frequency is for samples: with --off-cpu each wait is taken");
    request.hertz =
        static_cast<std::uint32_t>(NETCTL_TRY(arguments.number("frequency", 99, 1, 10'000)));
    request.selection = NETCTL_TRY(parse_selection(arguments, context));
    request.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));
    wanted.top = NETCTL_TRY(arguments.number("top", 20, 1, 1'000'000));
    wanted.duration_s = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    wanted.folded = arguments.has("folded");
    if (wanted.folded && context.out.json())
        return Error::usage("--folded and --json exclude each other");
    if (wanted.folded && arguments.has("top"))
        return Error::usage("--top is for the table of functions, which --folded leaves out");
    wanted.svg = arguments.get("svg");
    wanted.pprof = arguments.get("pprof");
    for (const std::string& path : {wanted.svg, wanted.pprof})
        if (!path.empty())
            NETCTL_TRY(check_place_of(path));
    return Report(std::move(wanted), context).run();
}

} // namespace

Command profile_command() {
    std::vector<Option> options = task_selection_options();
    options.insert(
        options.end(),
        {{"frequency", "HERTZ", "samples a second on each CPU (default: 99)", {}, 'F'},
         {"off-cpu", "", "where threads wait, and how long, in the place of what runs", {}},
         {"folded", "", "each stack on a line, as flamegraph.pl and its like read them", {}},
         {"svg", "FILE", "draw a flame graph, for a browser, into this file", {}},
         {"pprof", "FILE", "write the profile into this file as pprof reads it", {}},
         {"top", "N", "only the N hottest functions (default: 20)", {}},
         {"duration", "SECONDS", "end after this time", {}},
         {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}}});
    return {
        .name = "profile",
        .summary = "which functions the CPUs' time goes to, or where threads wait",
        .description =
            "The stacks of what runs are sampled by the kernel's clock, or with --off-cpu taken "
            "whenever a thread begins to wait. At the end, by a signal, --duration, or with the "
            "process of --pid, the functions that had the most are shown; --folded, --svg and "
            "--pprof have the stacks instead. Functions are those of the kernel, of programs "
            "and libraries, and those that runtimes tell of in /tmp/perf-PID.map.",
        .positionals = {},
        .options = std::move(options),
        .run = run_profile};
}

} // namespace netctl::trace::profile
