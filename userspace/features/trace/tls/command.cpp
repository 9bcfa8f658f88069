// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tls/command.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/json.hpp"
#include "features/trace/cgroup_names.hpp"
#include "features/trace/container.hpp"
#include "features/trace/ending.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/selection.hpp"
#include "features/trace/tls/calls.hpp"
#include "features/trace/tls/capture.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::tls {

namespace {

struct Wanted {
    Selection selection;
    std::string read; ///< a capture file; empty: system calls
    bool failed = false;
    std::uint64_t count = 0;
    std::uint64_t duration_s = 0;
    std::uint32_t ring_bytes = 0;
};

/// Of both sources.
class Listing {
  public:
    Listing(const Wanted& wanted, Context& context)
        : wanted_(&wanted),
          context_(&context),
          lines_(context.out),
          containers_([this](std::uint64_t id) { return cgroups_.of(id); }) {}

    Result<int> run() { return wanted_->read.empty() ? watch() : read(); }

  private:
    Result<int> watch() {
        Ending ending(wanted_->duration_s, wanted_->selection.pid, context_->out);
        const std::int64_t offset = sys::monotonic_offset();
        CallHandshakes handshakes([this](Event& event) { on_event(event); }, offset);
        Instrument instrument = NETCTL_TRY(trace_handshakes(
            wanted_->selection, wanted_->ring_bytes,
            [&handshakes](std::span<const std::byte> bytes) { handshakes.record(bytes); }));
        begin("tracing TLS handshakes");
        ending.begin();
        while (!done_ && !ending.has_come()) {
            NETCTL_TRY(instrument.poll());
            handshakes.tick(static_cast<Time>(sys::monotonic_now() + offset));
            write();
            instrument.rest();
        }
        NETCTL_TRY(instrument.stop());
        handshakes.finish();
        const InstrumentCounters counters = NETCTL_TRY(instrument.counters());
        Json members = counters.json();
        members["forgotten"] = handshakes.forgotten();
        std::string more = counters.text();
        if (handshakes.forgotten() > 0)
            more += fmt::format(", {} connections forgotten", handshakes.forgotten());
        end(handshakes.undecoded(), members, more);
        return 0;
    }

    Result<int> read() {
        Signals signals;
        auto capture = NETCTL_TRY(CaptureHandshakes::open(
            wanted_->read, wanted_->selection.ports, [this](Event& event) { on_event(event); }));
        begin({});
        Result<int> ended = 0;
        while (!done_ && !Signals::interrupted()) {
            const auto more = capture->poll();
            write();
            // What was read before an error is shown.
            if (!more.has_value())
                ended = more.error();
            if (!more.has_value() || !*more)
                break;
        }
        capture->finish();
        const PacketCounters& counters = capture->counters();
        std::string more = fmt::format("{} frames", counters.frames);
        const auto item = [&more](std::uint64_t value, const char* what) {
            if (value > 0)
                more += fmt::format(", {} {}", value, what);
        };
        item(counters.tls + counters.not_http, "connections without a ClientHello");
        item(counters.tcp.missing_bytes, "bytes never captured");
        item(counters.layers.fragments, "IP fragments");
        item(counters.layers.damaged, "damaged frames");
        item(counters.evicted, "connections forgotten");
        end(capture->undecoded(),
            Json{{"frames", counters.frames},
                 {"other_connections", counters.tls + counters.not_http},
                 {"missing_bytes", counters.tcp.missing_bytes},
                 {"fragments", counters.layers.fragments},
                 {"damaged", counters.layers.damaged},
                 {"forgotten", counters.evicted}},
            more);
        return ended;
    }

    void begin(const std::string& what) {
        if (!what.empty())
            context_->out.note(what);
        if (!context_->out.json())
            lines_.pending() = header();
    }

    void on_event(Event& event) {
        if (done_ || (wanted_->failed && !event.failed()))
            return;
        if (event.cgroup_id != 0) {
            if (context_->out.json())
                event.cgroup = cgroups_.of(event.cgroup_id);
            if (!wanted_->selection.container.empty())
                event.process.container = containers_.of(event.cgroup_id);
        }
        if (!container_selected(wanted_->selection, event.process.container.get()))
            return;
        if (context_->out.json())
            append_json(lines_.pending(), event);
        else
            append_text(lines_.pending(), event);
        ++shown_;
        if (lines_.pending().size() > 256 * 1024)
            write();
        if (wanted_->count != 0 && shown_ >= wanted_->count)
            done_ = true;
    }

    void write() {
        if (!lines_.write())
            done_ = true; // nobody reads any more
    }

    void end(const Undecoded& undecoded, const Json& counters, const std::string& more) {
        if (context_->out.json()) {
            Json members{{"shown", shown_}, {"not_decoded", undecoded.json()}};
            members.update(counters);
            lines_.add_end(members);
        }
        lines_.write();
        std::string told = fmt::format("{} handshakes shown; {}", shown_, more);
        if (const std::string text = undecoded.text(); !text.empty())
            told += fmt::format("; not decoded: {}", text);
        if (lines_.unwritten() > 0)
            told += fmt::format("; {} lines not written", lines_.unwritten());
        context_->out.note(told);
    }

    const Wanted* wanted_;
    Context* context_;
    LineWriter lines_;
    CgroupNames cgroups_;
    Containers containers_;
    std::uint64_t shown_ = 0;
    bool done_ = false;
};

Result<int> tls(const Arguments& arguments, Context& context) {
    Wanted wanted;
    wanted.read = arguments.get("read");
    if (arguments.has("read"))
        for (const char* option :
             {"pid", "comm", "cgroup", "container", "src", "dst", "duration", "buffer"})
            if (arguments.has(option))
                return Error::usage(
                    fmt::format("--{} does not go with --read: it is about a running host", option),
                    "--port selects in a file");
    wanted.selection = NETCTL_TRY(parse_selection(arguments, context));
    wanted.failed = arguments.has("failed");
    wanted.count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
    wanted.duration_s = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    wanted.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));
    return Listing(wanted, context).run();
}

} // namespace

Command tls_command() {
    std::vector<Option> options = selection_options();
    options.push_back({"failed", "", "only handshakes that failed", {}});
    options.push_back({"read",
                       "FILE",
                       "of a capture file (- is standard input), which gzip or zstd may have "
                       "compressed; needs no privileges",
                       {}});
    options.push_back({"count", "N", "end after N handshakes", {}});
    options.push_back({"duration", "SECONDS", "end after this time", {}});
    options.push_back(
        {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}});
    return {.name = "tls",
            .summary = "show TLS handshakes: version, cipher, server name, and how they ended",
            .description =
                "One line for each handshake when it is over: when it began, the process, client "
                "and "
                "server, how long it took, what was agreed upon, and whether it was done, by a "
                "resumed "
                "session or anew, or who ended it with which alert. All of it is from the bytes on "
                "TCP sockets, whatever library made them. Ends with a signal, --count or "
                "--duration; "
                "what was lost or not decoded is then told on standard error.",
            .options = std::move(options),
            .run = tls};
}

} // namespace netctl::trace::tls
