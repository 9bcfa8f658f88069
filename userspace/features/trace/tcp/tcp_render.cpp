// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/tcp_render.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

#include "features/trace/container.hpp"
#include "features/trace/line_text.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::tcp {

namespace {

// enum of the kernel, which its BTF and its API share.
enum State : std::uint8_t { established = 1, close = 7, close_wait = 8 };

Address address_of(std::uint8_t family, const std::uint8_t (&bytes)[16]) {
    constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    Address address;
    if (family == 6 && std::memcmp(bytes, mapped.data(), mapped.size()) == 0) {
        std::memcpy(address.bytes.data(), bytes + 12, 4);
        return address;
    }
    address.family = family == 6 ? Family::ipv6 : Family::ipv4;
    std::memcpy(address.bytes.data(), bytes, address.family == Family::ipv6 ? 16 : 4);
    return address;
}

std::string size_text(std::uint64_t bytes) {
    if (bytes < 10'000)
        return fmt::format("{}B", bytes);
    const double kib = static_cast<double>(bytes) / 1024;
    if (kib < 10'000)
        return fmt::format("{:.1f}K", kib);
    return fmt::format("{:.1f}M", kib / 1024);
}

std::string end_text(const Endpoint& end) {
    if (end.port != 0)
        return end.to_string();
    std::string text = end.to_string();
    text.back() = '-';
    return text;
}

std::string_view role_name(std::uint8_t role) {
    return role == NC_TCP_CLIENT ? "client" : role == NC_TCP_SERVER ? "server" : "-";
}

std::string error_name(int code) {
    if (code == 0)
        return {};
    const char* name = strerrorname_np(code);
    return name ? name : std::to_string(code);
}

std::string rtt_text(const nc_tcp_event& raw) {
    return raw.rtt_us != 0 ? took_text(std::uint64_t{raw.rtt_us} * 1000) : std::string("-");
}

/// Of what there may be no socket for.
std::string state_text(const nc_tcp_event& raw) {
    return raw.after != 0 ? std::string(state_name(raw.after)) : std::string("-");
}

/// What the lines of all kinds begin with.
Text beginning(const Text& time, const Text& process, const Text& local, const Text& remote) {
    return padded(time, 15) + Text::format(" ") + padded(process, 18) + Text::format(" ") +
           padded(local, 21) + Text::format(" ") + padded(remote, 21) + Text::format(" ");
}

void append_members(std::string& out, const Event& event, std::string_view kind) {
    fmt::format_to(std::back_inserter(out), R"({{"event":"{}","time":"{}","process":)", kind,
                   sys::iso_time(event.time_ns));
    if (event.process.pid == 0) {
        out += "null";
    } else {
        fmt::format_to(std::back_inserter(out), R"({{"pid":{},"comm":)", event.process.pid);
        append_json_string(out, event.process.name);
        out += '}';
    }
    out += R"(,"cgroup":)";
    if (event.cgroup)
        append_json_string(out, *event.cgroup);
    else
        out += "null";
    out += R"(,"container":)";
    if (const auto& container = event.process.container) {
        const auto member = [&](const char* name, const std::string& value) {
            fmt::format_to(std::back_inserter(out), R"("{}":)", name);
            if (value.empty())
                out += "null";
            else
                append_json_string(out, value);
        };
        out += '{';
        member("runtime", container->runtime);
        out += ',';
        member("id", container->id);
        out += ',';
        member("name", container->name);
        out += ',';
        member("image", container->image);
        out += '}';
    } else {
        out += "null";
    }
    fmt::format_to(std::back_inserter(out), R"(,"netns":{},"cookie":)", event.raw.netns);
    out += event.raw.cookie != 0 ? std::to_string(event.raw.cookie) : std::string("null");
    const auto end = [&](const char* name, const Endpoint& one) {
        fmt::format_to(std::back_inserter(out), R"(,"{}":{{"address":"{}","port":)", name,
                       one.address.to_string());
        out += one.port != 0 ? std::to_string(one.port) : std::string("null");
        out += '}';
    };
    end("local", event.local);
    end("remote", event.remote);
}

void append_microseconds(std::string& out, const char* name, std::optional<std::uint64_t> ns) {
    if (ns)
        fmt::format_to(std::back_inserter(out), R"(,"{}":{}.{:03})", name, *ns / 1000, *ns % 1000);
    else
        fmt::format_to(std::back_inserter(out), R"(,"{}":null)", name);
}

void append_word(std::string& out, const char* name, std::string_view word) {
    if (word.empty())
        fmt::format_to(std::back_inserter(out), R"(,"{}":null)", name);
    else
        fmt::format_to(std::back_inserter(out), R"(,"{}":"{}")", name, word);
}

void append_segment(std::string& out, const nc_tcp_event& raw) {
    fmt::format_to(std::back_inserter(out), R"(,"sequence":{},"bytes":{})", raw.sequence,
                   raw.length);
}

void append_figures(std::string& out, const nc_tcp_event& raw) {
    fmt::format_to(std::back_inserter(out),
                   R"(,"sent_bytes":{},"received_bytes":{},"retransmitted_bytes":{},)"
                   R"("sent_segments":{},"received_segments":{},"retransmitted_segments":{})",
                   raw.sent_bytes, raw.received_bytes, raw.retransmitted_bytes, raw.sent_segments,
                   raw.received_segments, raw.retransmitted_segments);
    const auto rtt = [&](const char* name, std::uint32_t us, bool known) {
        if (known)
            fmt::format_to(std::back_inserter(out), R"(,"{}":{})", name, us);
        else
            fmt::format_to(std::back_inserter(out), R"(,"{}":null)", name);
    };
    rtt("rtt_us", raw.rtt_us, raw.rtt_us != 0);
    rtt("rtt_deviation_us", raw.rtt_deviation_us, raw.rtt_us != 0);
    rtt("min_rtt_us", raw.min_rtt_us, raw.min_rtt_us != 0);
}

} // namespace

Endpoint end_of(std::uint8_t family, const std::uint8_t (&address)[16], std::uint16_t port) {
    return {address_of(family, address), port};
}

Event make_event(const nc_tcp_event& raw, std::int64_t clock_offset,
                 const std::map<std::uint32_t, std::string>& reasons) {
    Event event;
    event.time_ns = raw.time_ns + static_cast<std::uint64_t>(clock_offset);
    event.process = {raw.owner.pid,
                     std::string(raw.owner.comm, strnlen(raw.owner.comm, sizeof raw.owner.comm)),
                     nullptr};
    event.local = end_of(raw.ends.family, raw.ends.local, raw.ends.local_port);
    event.remote = end_of(raw.ends.family, raw.ends.remote, raw.ends.remote_port);
    if (raw.since_ns != 0)
        event.took_ns = raw.time_ns - raw.since_ns;
    if (raw.kind == NC_TCP_DROP || (raw.flags & NC_TCP_REASON) != 0) {
        const auto found = reasons.find(raw.reason);
        event.reason = found != reasons.end() ? found->second : std::to_string(raw.reason);
    }
    event.raw = raw;
    return event;
}

std::string_view state_name(std::uint8_t state) {
    static constexpr std::array<std::string_view, 13> names{
        "?",     "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",   "TIME_WAIT",
        "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV"};
    return state < names.size() ? names[state] : names[0];
}

std::string_view why_again(std::uint8_t why) {
    switch (why) {
    case NC_TCP_WHY_SYN: return "syn";
    case NC_TCP_WHY_SYNACK: return "syn-ack";
    case NC_TCP_WHY_TIMEOUT: return "timeout";
    case NC_TCP_WHY_FAST: return "fast";
    case NC_TCP_WHY_PROBE: return "probe";
    default: return "";
    }
}

int connect_error(const nc_tcp_event& event) {
    if (event.after == established)
        return 0;
    if (event.error == 0 && event.ends.local_port == 0)
        return EADDRNOTAVAIL;
    return event.error;
}

std::string_view connect_result(const nc_tcp_event& event) {
    if (event.after == established)
        return "established";
    return connect_error(event) != 0 ? "failed" : "given-up";
}

std::string_view how_ended(const nc_tcp_event& event) {
    if (event.error == ETIMEDOUT)
        return "timeout";
    if ((event.flags & NC_TCP_RST_RECEIVED) != 0)
        return "remote-reset";
    // A reset by close() is sent behind the change of state.
    if ((event.flags & NC_TCP_RST_SENT) != 0 ||
        (event.error == 0 && (event.before == established || event.before == close_wait)))
        return "local-reset";
    if ((event.flags & NC_TCP_FIN_SENT) != 0)
        return "local-fin";
    if ((event.flags & NC_TCP_FIN_RECEIVED) != 0)
        return "remote-fin";
    return event.error != 0 ? "error" : "";
}

Text header_of(nc_tcp_kind kind) {
    const Text first = beginning(Text::format("TIME"), Text::format("PROCESS"),
                                 Text::format("LOCAL"), Text::format("REMOTE"));
    switch (kind) {
    case NC_TCP_CONNECT: return first + Text::format("{:>10}  RESULT\n", "LATENCY");
    case NC_TCP_STATE: return first + Text::format("{:>10}  CHANGE\n", "BEFORE");
    case NC_TCP_CLOSE:
        return first + Text::format("{:<6} {:>8} {:>8} {:>7} {:>10} {:>10}  ENDED\n", "ROLE",
                                    "SENT", "GOT", "RETRANS", "RTT", "DURATION");
    case NC_TCP_RETRANSMIT:
        return first + Text::format("{:<12} {:>7} {:>10}  WHY\n", "STATE", "BYTES", "RTT");
    case NC_TCP_RESET: return first + Text::format("{:<12} {:<8}  REASON\n", "STATE", "RESET");
    case NC_TCP_DROP:
        return first + Text::format("{:<12} {:>7}  {:<24} PLACE\n", "STATE", "BYTES", "REASON");
    case NC_TCP_LISTENER: break; // is no line of a stream
    }
    return {};
}

void append_event_text(Text& out, const Event& event) {
    const nc_tcp_event& raw = event.raw;
    out += beginning(time_of_day(event.time_ns), process_text(event.process), end_text(event.local),
                     end_text(event.remote));
    const std::string took = took_text(event.took_ns);
    switch (raw.kind) {
    case NC_TCP_CONNECT: {
        std::string result(connect_result(raw));
        if (const int error = connect_error(raw))
            result = error_text(error);
        if (raw.retransmitted_segments != 0)
            result += fmt::format(" ({} SYN sent again)", raw.retransmitted_segments);
        out += Text::format("{:>10}  {}\n", took, result);
        return;
    }
    case NC_TCP_STATE:
        out +=
            Text::format("{:>10}  {} -> {}\n", took, state_name(raw.before), state_name(raw.after));
        return;
    case NC_TCP_RETRANSMIT:
        out += Text::format("{:<12} {:>7} {:>10}  {}\n", state_name(raw.after),
                            size_text(raw.length), rtt_text(raw), why_again(raw.why));
        return;
    case NC_TCP_RESET:
        out += Text::format("{:<12} {:<8}  {}\n", state_text(raw),
                            (raw.flags & NC_TCP_RST_SENT) != 0 ? "sent" : "received",
                            event.reason.empty() ? std::string("-") : event.reason);
        return;
    case NC_TCP_DROP:
        out += Text::format("{:<12} {:>7}  {:<24} {}\n", state_text(raw), size_text(raw.length),
                            event.reason, event.place);
        return;
    default: break;
    }
    std::string ended(how_ended(raw));
    if (!event.reason.empty())
        ended += fmt::format(" ({})", event.reason);
    out += Text::format("{:<6} {:>8} {:>8} {:>7} {:>10} {:>10}  {}\n", role_name(raw.role),
                        size_text(raw.sent_bytes), size_text(raw.received_bytes),
                        raw.retransmitted_segments, rtt_text(raw), took,
                        ended.empty() ? std::string("-") : ended);
}

void append_event_json(Text& text, const Event& event) {
    std::string& out = text.trusted_bytes();
    const nc_tcp_event& raw = event.raw;
    switch (raw.kind) {
    case NC_TCP_CONNECT:
        append_members(out, event, "connect");
        append_word(out, "result", connect_result(raw));
        append_word(out, "error", error_name(connect_error(raw)));
        append_microseconds(out, "latency_us", event.took_ns);
        fmt::format_to(std::back_inserter(out), R"(,"syn_retransmits":{})",
                       raw.retransmitted_segments);
        break;
    case NC_TCP_STATE:
        append_members(out, event, "state");
        append_word(out, "before", state_name(raw.before));
        append_word(out, "after", state_name(raw.after));
        append_microseconds(out, "before_us", event.took_ns);
        break;
    case NC_TCP_RETRANSMIT:
        append_members(out, event, "retransmit");
        append_word(out, "why", why_again(raw.why));
        append_word(out, "state", state_name(raw.after));
        append_segment(out, raw);
        append_figures(out, raw);
        break;
    case NC_TCP_RESET:
        append_members(out, event, "reset");
        append_word(out, "direction", (raw.flags & NC_TCP_RST_SENT) != 0 ? "sent" : "received");
        append_word(out, "state", raw.after != 0 ? state_name(raw.after) : "");
        append_word(out, "reason", event.reason);
        break;
    case NC_TCP_DROP:
        append_members(out, event, "drop");
        append_word(out, "reason", event.reason);
        append_word(out, "place", event.place);
        append_word(out, "state", raw.after != 0 ? state_name(raw.after) : "");
        append_segment(out, raw);
        break;
    default:
        append_members(out, event, "life");
        append_word(out, "role", raw.role == NC_TCP_UNKNOWN ? "" : role_name(raw.role));
        append_word(out, "ended", how_ended(raw));
        append_word(out, "error", error_name(raw.error));
        append_word(out, "reset_reason", event.reason);
        append_microseconds(out, "duration_us", event.took_ns);
        append_figures(out, raw);
    }
    out += "}\n";
}

} // namespace netctl::trace::tcp
