// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/command.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "core/command.hpp"
#include "features/trace/http/content_coding.hpp"
#include "features/trace/http/controller.hpp"
#include "features/trace/http/filter.hpp"
#include "features/trace/http/har.hpp"
#include "features/trace/http/render.hpp"
#include "features/trace/http/session.hpp"
#include "features/trace/http/top.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/number_list.hpp"
#include "features/trace/selection.hpp"
#include "features/trace/signals.hpp"
#include "sys/screen.hpp"

namespace netctl::trace {

namespace {

using Clock = std::chrono::steady_clock;

struct Wanted {
    Request request;
    Filter filter;
    std::uint64_t count = 0;
    std::uint64_t duration_s = 0;
    bool top = false;
    bool decode = false;
    std::string har;
};

Result<std::vector<std::string>> parse_methods(const std::string& text) {
    std::vector<std::string> methods;
    std::size_t begin = 0;
    for (;;) {
        const std::size_t comma = text.find(',', begin);
        const std::string method = text.substr(begin, comma - begin);
        if (method.empty() || std::any_of(method.begin(), method.end(), [](char c) {
                return !((c >= 'A' && c <= 'Z') || c == '-');
            }))
            return Error::usage(fmt::format("'{}' is no method", method),
                                "methods are written in capitals: GET,POST");
        methods.push_back(method);
        if (comma == std::string::npos)
            return methods;
        begin = comma + 1;
    }
}

/// `5s` or `5`.
Result<std::uint64_t> parse_seconds(std::string text) {
    const std::string whole = text;
    if (text.ends_with('s'))
        text.pop_back();
    std::uint64_t seconds = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (status != std::errc{} || end != text.data() + text.size() || seconds > 86'400)
        return Error::usage(fmt::format("'{}' is no number of seconds", whole),
                            "--stalled takes 1s to 86400s");
    return seconds;
}

Result<Wanted> read_arguments(const Arguments& arguments, const Context& context) {
    Wanted wanted;
    Request& request = wanted.request;
    const std::string source = arguments.get("source", "auto");
    request.source = source == "socket"    ? Source::socket
                     : source == "syscall" ? Source::syscall
                                           : Source::automatic;
    request.interface = arguments.get("interface");
    request.netns = context.netns;
    request.only_netns = !context.netns.empty();
    request.read = arguments.get("read");
    request.write = arguments.get("write");
    request.cgroup = arguments.get("cgroup");
    request.both_sides = arguments.has("both-sides");
    request.tls = arguments.has("tls") || arguments.has("tls-lib");
    if (arguments.has("tls-lib"))
        request.tls_libraries.push_back(arguments.get("tls-lib"));
    request.containers = arguments.has("container");
    wanted.filter.container = arguments.get("container");
    if (arguments.has("read")) {
        for (const char* other : {"interface", "write", "source", "pid", "comm", "cgroup",
                                  "container", "both-sides", "tls", "tls-lib", "duration"})
            if (arguments.has(other))
                return Error::usage(fmt::format("--read and --{} exclude each other", other));
        request.source = Source::file;
    }
    const bool calls = request.source == Source::syscall;
    const bool packets = request.source == Source::socket || arguments.has("interface") ||
                         (arguments.has("write") && !calls);
    if (packets && calls)
        return Error::usage("--source syscall and --interface exclude each other",
                            "system calls are seen whatever interface they lead to");
    if (calls && arguments.has("write") && !request.write.ends_with(".pcapng"))
        return Error::usage(fmt::format("--source syscall writes pcapng, not '{}'", request.write),
                            "give the file a name that ends in .pcapng: process names are comments "
                            "in it, which pcap has not");
    if (packets)
        for (const char* other :
             {"pid", "comm", "cgroup", "container", "both-sides", "tls", "tls-lib"})
            if (arguments.has(other))
                return Error::usage(
                    fmt::format("--{} needs --source syscall: packets know no processes", other));
    if (arguments.has("port"))
        request.ports = NETCTL_TRY(parse_port_list(arguments.get("port")));
    request.pid = NETCTL_TRY(parse_pid(arguments));
    request.comm = NETCTL_TRY(parse_comm(arguments));
    const std::uint64_t body = NETCTL_TRY(arguments.number("body", 0, 1, 1024 * 1024));
    request.parser.body_limit = static_cast<std::uint32_t>(body);
    request.parser.keep_fields = arguments.has("headers") || arguments.has("har");
    if (body > 128 * 1024)
        request.turn_bytes = static_cast<std::uint32_t>(body) + 64 * 1024;
    request.stalled = NETCTL_TRY(parse_seconds(arguments.get("stalled", "0"))) * 1'000'000'000ull;
    const std::string tunnels = arguments.get("tunnels", "yes");
    request.tunnels = tunnels == "yes";
    if (arguments.has("tunnels") && !arguments.has("read"))
        return Error::usage("--tunnels goes with --read: a running tracer does not look into them");
    request.ring_bytes = NETCTL_TRY(parse_ring_bytes(arguments));

    Filter& filter = wanted.filter;
    filter.host = arguments.get("host");
    if (filter.host.find_first_of("/ ") != std::string::npos)
        return Error::usage(fmt::format("no host is called '{}'", filter.host),
                            "a name or an address, with or without a port");
    filter.path_prefix = arguments.get("path");
    if (arguments.has("path") && !filter.path_prefix.starts_with('/') && filter.path_prefix != "*")
        return Error::usage(fmt::format("no path begins with '{}'", filter.path_prefix),
                            "paths begin with a slash");
    if (arguments.has("method"))
        filter.methods = NETCTL_TRY(parse_methods(arguments.get("method")));
    if (arguments.has("status"))
        filter.statuses = NETCTL_TRY(parse_status_list(arguments.get("status")));
    if (arguments.has("grpc-status"))
        filter.grpc = NETCTL_TRY(parse_grpc_statuses(arguments.get("grpc-status")));
    filter.min_latency = NETCTL_TRY(arguments.number("min-latency", 0, 1, 86'400'000)) * 1'000'000;

    wanted.count = NETCTL_TRY(arguments.number("count", 0, 1, UINT64_MAX));
    wanted.duration_s = NETCTL_TRY(arguments.number("duration", 0, 1, 31'536'000));
    wanted.har = arguments.get("har");
    wanted.top = arguments.has("top");
    wanted.decode = arguments.has("decode");
    if (wanted.decode && body == 0)
        return Error::usage("--decode goes with --body: without it, no bodies are kept");
    if (wanted.top && (context.out.json() || !context.out.terminal()))
        return Error::usage("--top needs a terminal",
                            "use --json and count there, or leave --top out");
    return wanted;
}

/// What was lost or not understood, in words; empty if all was well.
std::string losses(const Counters& now, const Counters& before) {
    std::string text;
    const auto item = [&](std::uint64_t value, std::uint64_t old, const char* what) {
        if (value > old)
            text += fmt::format("{}{} {}", text.empty() ? "" : ", ", value - old, what);
    };
    item(now.kernel.lost + now.recursions, before.kernel.lost + before.recursions, "records lost");
    item(now.kernel.truncated, before.kernel.truncated, "truncated");
    item(now.parser.malformed, before.parser.malformed, "messages unparsed");
    item(now.parser.holes, before.parser.holes, "holes");
    item(now.parser.tables_unknown, before.parser.tables_unknown,
         "HTTP/2 header tables not known whole");
    item(now.parser.unframed, before.parser.unframed, "bodies of guessed length");
    item(now.kernel.unreadable, before.kernel.unreadable, "buffers unreadable");
    item(now.kernel.unsupported, before.kernel.unsupported, "calls unsupported");
    item(now.kernel.io_uring, before.kernel.io_uring, "io_uring calls unread");
    item(now.kernel.no_memory, before.kernel.no_memory, "connections not remembered");
    item(now.kernel.fragments + now.packets.layers.fragments,
         before.kernel.fragments + before.packets.layers.fragments, "IP fragments");
    item(now.kernel.damaged + now.packets.layers.damaged + now.calls.damaged,
         before.kernel.damaged + before.packets.layers.damaged + before.calls.damaged, "damaged");
    item(now.packets.tcp.missing_bytes + now.calls.missing_bytes,
         before.packets.tcp.missing_bytes + before.calls.missing_bytes, "bytes missing");
    item(now.packets.evicted + now.calls.evicted, before.packets.evicted + before.calls.evicted,
         "connections forgotten");
    item(now.packets.tcp.strays, before.packets.tcp.strays, "stray segments");
    item(now.parser.guessed, before.parser.guessed, "pairs guessed");
    item(now.parser.dropped + now.packets.tcp.given_up,
         before.parser.dropped + before.packets.tcp.given_up, "given up for lack of memory");
    return text;
}

std::string summary(const Counters& counters, std::uint64_t shown) {
    std::string text = fmt::format("{} transactions", shown);
    const std::uint64_t hidden =
        counters.parser.transactions - counters.calls.mirrored > shown
            ? counters.parser.transactions - counters.calls.mirrored - shown
            : 0;
    if (hidden > 0)
        text += fmt::format(" shown, {} filtered out", hidden);
    if (counters.kernel.seen > 0)
        text += fmt::format("; {} records, {} lost", counters.kernel.sent,
                            counters.kernel.lost + counters.recursions);
    const auto item = [&](std::uint64_t value, const char* what) {
        if (value > 0)
            text += fmt::format("; {} {}", value, what);
    };
    item(counters.parser.http2, "HTTP/2 connections");
    item(counters.parser.tunnels, "tunnels");
    item(counters.parser.unanswered, "requests without an answer");
    item(counters.parser.unasked, "answers without a request");
    item(counters.parser.unfinished, "under way at the end");
    item(counters.packets.tls, "TLS connections");
    item(counters.calls.unplaced, "transactions in TLS whose socket is not known");
    if (counters.sealed > 0)
        text += fmt::format("; {} TLS connections not decoded ({})", counters.sealed,
                            counters.sealed_about);
    item(counters.packets.not_http, "connections of other protocols");
    for (std::size_t kind = 0; kind < tunnel_kinds; ++kind)
        if (const std::uint64_t frames = counters.packets.layers.tunnelled[kind])
            text += fmt::format("; {} frames in {} not looked into", frames,
                                tunnel_name(static_cast<Tunnel>(kind)));
    item(counters.packets.layers.deep, "frames of too many layers");
    const std::string lost = losses(counters, Counters{});
    return lost.empty() ? text : text + "; " + lost;
}

class Run {
  public:
    Run(const Wanted& wanted, Context& context)
        : wanted_(&wanted), context_(&context), lines_(context.out) {}

    Result<int> operator()() {
        if (!wanted_->har.empty())
            har_.emplace(NETCTL_TRY(HarFile::create(wanted_->har)));
        Signals signals;
        std::vector<std::string> notes;
        auto session = NETCTL_TRY(open_session(
            wanted_->request, context_->root,
            [this](const Transaction& transaction) { on_transaction(transaction); }, notes));
        context_->out.notes(notes);
        if (wanted_->request.source != Source::file)
            context_->out.note(fmt::format(
                "tracing {}{}", session->description(),
                session->pins().empty() ? std::string() : "; settings in " + session->pins()));
        if (wanted_->top)
            screen_ = std::make_unique<sys::Screen>(context_->out);
        else if (!context_->out.json())
            lines_.pending() = text_header();
        auto ended = loop(*session);
        screen_.reset();
        // Also when it ended with an error, as with a capture file that is cut: what was read before is shown.
        NETCTL_TRY(session->stop());
        flush();
        tell_write_trouble(*session);
        std::string told = summary(NETCTL_TRY(session->counters()), shown_);
        if (lines_.unwritten() > 0)
            told += fmt::format("; {} lines not written", lines_.unwritten());
        if (har_ && har_->unwritten() > 0)
            told += fmt::format("; {} archive entries not written", har_->unwritten());
        context_->out.note(told);
        return ended;
    }

  private:
    void on_transaction(const Transaction& transaction) {
        if (done_ || !wanted_->filter.matches(transaction))
            return;
        if (!wanted_->decode)
            return tell(transaction);
        Transaction decoded = transaction;
        decode_bodies(decoded);
        tell(decoded);
    }

    void tell(const Transaction& transaction) {
        // That one hangs is told besides: it is counted, and goes into tables and archives, when it is over.
        if (!transaction.stalled)
            ++shown_;
        else if (wanted_->top || (har_ && !context_->out.json()))
            return;
        if (har_ && !transaction.stalled)
            har_->add(transaction);
        if (wanted_->top) {
            table_.add(transaction);
        } else if (!har_ || context_->out.json()) {
            if (context_->out.json())
                append_json(lines_.pending(), transaction);
            else
                append_text(lines_.pending(), transaction);
        }
        if (lines_.pending().size() > 256 * 1024 || (har_ && har_->pending() > 1024 * 1024))
            flush();
        if (wanted_->count != 0 && shown_ >= wanted_->count)
            done_ = true;
    }

    void flush() {
        if (!lines_.write())
            done_ = true; // nobody reads any more
        if (har_) {
            const auto written = har_->flush();
            if (!written && !std::exchange(har_failed_, true))
                context_->out.note(written.error().what + "; tracing goes on");
        }
    }

    void tell_write_trouble(Session& session) const {
        if (const auto trouble = session.write_error())
            context_->out.note(trouble->what + "; tracing goes on");
    }

    Result<int> loop(Session& session) {
        const auto start = Clock::now();
        auto next_minute = start + std::chrono::minutes(1);
        auto next_second = start;
        Counters told;
        while (!Signals::interrupted() && !done_) {
            if (!NETCTL_TRY(session.poll()))
                break;
            flush();
            session.rest();
            const auto now = Clock::now();
            if (wanted_->duration_s != 0 &&
                now - start >= std::chrono::seconds(wanted_->duration_s))
                break;
            if (screen_ && !keys())
                break;
            const bool resized = Signals::take_resized();
            if (now >= next_second || (screen_ && (resized || std::exchange(reorder_, false)))) {
                next_second = now + std::chrono::seconds(1);
                tell_write_trouble(session);
                const std::uint32_t pid = wanted_->request.pid;
                if (pid != 0 && !process_exists(pid)) {
                    NETCTL_TRY(session.poll());
                    context_->out.note(fmt::format("process {} is gone", pid));
                    break;
                }
                if (screen_ && !show(session, now - start))
                    break;
            }
            if (now >= next_minute && !screen_) {
                next_minute += std::chrono::minutes(1);
                const Counters counters = NETCTL_TRY(session.counters());
                const std::string text = losses(counters, told);
                if (!text.empty())
                    context_->out.note("last minute: " + text);
                told = counters;
            }
        }
        return 0;
    }

    bool show(Session& session, Clock::duration elapsed) {
        const auto counters = session.counters();
        Text title = Text::format("{}: {} transactions", session.description(), shown_);
        if (counters)
            title +=
                Text::format(", {} records lost", counters->kernel.lost + counters->recursions);
        title += "   sort: r e 5 9 p b n   quit: q";
        const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count() + 1;
        const TerminalSize size = screen_->size();
        return screen_->show(
            table_.render(size.columns, size.rows, order_, static_cast<Time>(now), title));
    }

    /// False to quit.
    bool keys() {
        switch (screen_->key()) {
        case 'q': return false;
        case 'r': order_ = TopOrder::requests; break;
        case 'e': order_ = TopOrder::errors; break;
        case '5': order_ = TopOrder::p50; break;
        case '9': order_ = TopOrder::p95; break;
        case 'p': order_ = TopOrder::p99; break;
        case 'b': order_ = TopOrder::bytes; break;
        case 'n': order_ = TopOrder::route; break;
        default: return true;
        }
        reorder_ = true;
        return true;
    }

    const Wanted* wanted_;
    Context* context_;
    LineWriter lines_;
    std::optional<HarFile> har_;
    bool har_failed_ = false;
    std::unique_ptr<sys::Screen> screen_;
    RouteTable table_;
    TopOrder order_ = TopOrder::requests;
    bool reorder_ = false; ///< show it at once
    std::uint64_t shown_ = 0;
    bool done_ = false;
};

Result<int> http(const Arguments& arguments, Context& context) {
    const Wanted wanted = NETCTL_TRY(read_arguments(arguments, context));
    return Run(wanted, context)();
}

} // namespace

Command http_command() {
    return {
        .name = "http",
        .summary = "show HTTP requests and responses as they happen",
        .description = "One line for each transaction: when, who asked whom, the process, "
                       "status, bytes "
                       "of request and response, time to the response's first byte and to "
                       "its last, and "
                       "what was asked for. Ends with a signal, --count or --duration; "
                       "what was lost or "
                       "not understood is then told on standard error.",
        .options =
            {
                {"source",
                 "auto|syscall|socket",
                 "where to look: at what processes send and receive (syscall), or at "
                 "packets "
                 "(socket); auto takes the first that works",
                 {"auto", "syscall", "socket"}},
                {"interface", "IFACE|any", "packets of this interface (-i)", {}, 'i'},
                {"pid", "PID", "only of this process", {}},
                {"comm", "NAME", "only of processes of this name", {}},
                {"cgroup", "PATH", "only of processes in this cgroup or below it", {}},
                {"container",
                 "NAME|any",
                 "only if one of the processes is in this container, by its name, image or "
                 "id, "
                 "or in any; and show the containers",
                 {}},
                {"port", "PORTS", "only connections with one of these ports: 80,8000-8010", {}},
                {"host", "HOST", "only requests for this host", {}},
                {"path", "PREFIX", "only paths that begin like this", {}},
                {"method", "METHODS", "only these methods: GET,POST", {}},
                {"status", "STATUSES", "only these statuses: 404,5xx,400-403", {}},
                {"grpc-status",
                 "STATUSES",
                 "only calls of gRPC that ended so: 0, 5,NOT_FOUND, !0 (any other, or "
                 "none)",
                 {}},
                {"min-latency",
                 "MS",
                 "only if the response's first byte took at least this many milliseconds",
                 {}},
                {"both-sides",
                 "",
                 "show a transaction of two local processes as each of them saw it",
                 {}},
                {"tls",
                 "",
                 "what goes through OpenSSL, too: it is read where processes hand it over, "
                 "before it is encrypted",
                 {}},
                {"tls-lib",
                 "FILE",
                 "a library or program with OpenSSL's functions that no process has mapped "
                 "yet, besides those that are found (with --tls, which it implies)",
                 {}},
                {"stalled",
                 "TIME",
                 "show requests that wait for an answer for so long, while they wait: 5s",
                 {}},
                {"tunnels",
                 "yes|no",
                 "with --read: look into GRE, IPIP, 6in4, VXLAN, GENEVE, MPLS and PPPoE "
                 "(default: yes)",
                 {"yes", "no"}},
                {"headers", "", "show header fields", {}},
                {"body", "BYTES", "show up to this much of each body", {}},
                {"decode", "", "undo gzip, deflate, br and zstd in bodies (with --body)", {}},
                {"count", "N", "end after N transactions", {}},
                {"duration", "SECONDS", "end after this time", {}},
                {"har",
                 "FILE",
                 "write the transactions to an HTTP archive, which browsers' tools open",
                 {}},
                {"write",
                 "FILE",
                 "write the packets to a capture file, too: pcapng if it is called so; "
                 "with "
                 "--source syscall, packets that are made of the calls, with the processes "
                 "as "
                 "comments",
                 {}},
                {"read",
                 "FILE",
                 "read packets from a capture file (- is standard input), which gzip or "
                 "zstd "
                 "may have compressed; needs no privileges",
                 {}},
                {"top", "", "a live table by host and route instead of lines", {}},
                {"buffer", "MIB", "size of the ring between kernel and netctl (default: 16)", {}},
            },
        .run = http,
    };
}

} // namespace netctl::trace
