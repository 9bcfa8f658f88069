// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/render.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>
#include <iterator>

#include <fmt/format.h>

#include "features/trace/container.hpp"
#include "features/trace/http/filter.hpp"
#include "features/trace/http/grpc_call.hpp"

namespace netctl::trace {

namespace {

// Formats are read at run time by fmt, which at 100,000 transactions a second took more time than all
// else together. So what each line has is put together by hand; what is rare is not.

/// Characters one after the other in a buffer that is large enough for them.
class Cursor {
  public:
    explicit Cursor(char* begin) : begin_(begin), at_(begin) {}
    std::string_view text() const { return {begin_, static_cast<std::size_t>(at_ - begin_)}; }
    void character(char c) { *at_++ = c; }
    void text(std::string_view text) {
        std::memcpy(at_, text.data(), text.size());
        at_ += text.size();
    }
    void number(std::uint64_t value) { at_ = std::to_chars(at_, at_ + 20, value).ptr; }
    /// With leading zeros.
    void digits(std::uint64_t value, unsigned count) {
        for (unsigned i = count; i-- > 0; value /= 10)
            at_[i] = static_cast<char>('0' + value % 10);
        at_ += count;
    }
    /// `value` thousandths, with the three digits behind the point.
    void thousandths(std::uint64_t value) {
        number(value / 1000);
        character('.');
        digits(value % 1000, 3);
    }
    /// `value` tenths, with the digit behind the point.
    void tenths(std::uint64_t value) {
        number(value / 10);
        character('.');
        digits(value % 10, 1);
    }
    void right(std::string_view written, std::size_t width) {
        for (std::size_t i = written.size(); i < width; ++i)
            *at_++ = ' ';
        text(written);
    }

  private:
    char* begin_;
    char* at_;
};

void append_number(std::string& out, std::uint64_t value) {
    char digits[20];
    Cursor at(digits);
    at.number(value);
    out += at.text();
}

void append_thousandths(std::string& out, std::uint64_t value) {
    char digits[24];
    Cursor at(digits);
    at.thousandths(value);
    out += at.text();
}

/// An endpoint takes at most 48 characters.
void write_endpoint(Cursor& at, const Endpoint& end) {
    if (end.address.family == Family::ipv6)
        return at.text(end.to_string());
    for (unsigned i = 0; i < 4; ++i) {
        at.number(end.address.bytes[i]);
        at.character(i < 3 ? '.' : ':');
    }
    at.number(end.port);
}

void append_endpoint(std::string& out, const Endpoint& end) {
    char text[64];
    Cursor at(text);
    write_endpoint(at, end);
    out += at.text();
}

void write_time_of_day(Cursor& at, const std::tm& day, Time time) {
    at.digits(static_cast<unsigned>(day.tm_hour), 2);
    at.character(':');
    at.digits(static_cast<unsigned>(day.tm_min), 2);
    at.character(':');
    at.digits(static_cast<unsigned>(day.tm_sec), 2);
    at.character('.');
    at.digits(time % second / 1000, 6);
}

const std::tm& calendar(Time time, bool local) {
    // A log has many lines a second, and the calendar costs a system call's worth for each.
    struct Cache {
        std::time_t at = -1;
        std::tm broken{};
    };
    static thread_local std::array<Cache, 2> caches;
    Cache& cache = caches[local ? 1 : 0];
    const auto at = static_cast<std::time_t>(time / second);
    if (cache.at != at) {
        cache.at = at;
        if (local)
            localtime_r(&at, &cache.broken);
        else
            gmtime_r(&at, &cache.broken);
    }
    return cache.broken;
}

void write_size(Cursor& at, std::uint64_t bytes, std::size_t width) {
    char buffer[24];
    Cursor text(buffer);
    if (bytes < 10000) {
        text.number(bytes);
        text.character('B');
    } else if (bytes < 10'000'000) {
        text.tenths((bytes * 10 + 512) / 1024);
        text.character('K');
    } else {
        text.tenths((bytes / 1024 * 10 + 512) / 1024);
        text.character('M');
    }
    at.right(text.text(), width);
}

void write_duration(Cursor& at, Time time, std::size_t width) {
    char buffer[32];
    Cursor text(buffer);
    if (time == 0) {
        text.character('-');
    } else if (time < 10'000'000) {
        text.thousandths((time + 500) / 1000);
        text.text("ms");
    } else if (time < 10 * second) {
        text.tenths((time + 50'000) / 100'000);
        text.text("ms");
    } else {
        text.tenths((time + 50'000'000) / 100'000'000);
        text.character('s');
    }
    at.right(text.text(), width);
}

void append_process(std::string& out, const Process& process) {
    if (process.pid == 0) {
        out += '-';
        return;
    }
    append_shown(out, process.name);
    out += '[';
    append_number(out, process.pid);
    out += ']';
    if (process.container) {
        out += '@';
        append_shown(out, process.container->label());
    }
}

/// The columns that are the same for all transactions of a connection.
const std::string& columns_of(const Transaction& transaction) {
    struct Columns {
        Endpoint client, server;
        std::optional<std::string> unix_path;
        bool placed = true;
        Process process;
        std::string text;
    };
    static thread_local std::array<Columns, 1024> cache;
    const Process& process =
        transaction.client_view ? transaction.client_process : transaction.server_process;
    Columns& columns = cache[(transaction.client.port ^ transaction.server.port) % cache.size()];
    if (!columns.text.empty() && columns.client == transaction.client &&
        columns.server == transaction.server && columns.unix_path == transaction.unix_path &&
        columns.placed == transaction.placed && columns.process.pid == process.pid &&
        columns.process.name == process.name && columns.process.container == process.container)
        return columns.text;
    columns.client = transaction.client;
    columns.server = transaction.server;
    columns.unix_path = transaction.unix_path;
    columns.placed = transaction.placed;
    columns.process = process;
    std::string& text = columns.text;
    text.clear();
    const auto pad = [&](std::size_t begin, std::size_t width) {
        if (text.size() - begin < width)
            text.append(width - (text.size() - begin), ' ');
        text += ' ';
    };
    if (!transaction.placed)
        text += '-';
    else if (transaction.unix_path)
        text += transaction.client_name();
    else
        append_endpoint(text, transaction.client);
    pad(0, 21);
    std::size_t begin = text.size();
    if (!transaction.placed)
        text += '-';
    else if (transaction.unix_path)
        append_shown(text, transaction.server_name());
    else
        append_endpoint(text, transaction.server);
    pad(begin, 21);
    begin = text.size();
    append_process(text, process);
    pad(begin, 18);
    return text;
}

const char* end_name(MessageEnd end) {
    switch (end) {
    case MessageEnd::complete: return "complete";
    case MessageEnd::cut: return "cut";
    case MessageEnd::unframed: return "unframed";
    }
    return "";
}

void append_fields(std::string& out, char mark, const std::vector<HeaderField>& fields) {
    for (const HeaderField& field : fields) {
        fmt::format_to(std::back_inserter(out), "\n  {} ", mark);
        append_shown(out, field.name);
        out += ": ";
        append_shown(out, field.value);
    }
}

void append_body(std::string& out, char mark, const Message& message) {
    const std::string& body = message.decoded ? *message.decoded : message.body;
    if (body.empty())
        return;
    fmt::format_to(std::back_inserter(out), "\n  {} ", mark);
    append_shown(out, body);
    if (message.body.size() < message.body_bytes || (message.decoded && !message.decoded_whole))
        out += " ...";
}

/// What only HTTP/2 has, behind what was asked for.
void append_http2(std::string& out, const Transaction& transaction) {
    out += " HTTP/2";
    if (transaction.pushed)
        out += " (pushed)";
    if (const auto& grpc = transaction.grpc) {
        out += " grpc ";
        const std::string_view name = grpc->status ? grpc_status_name(*grpc->status) : "?";
        if (name.empty())
            append_number(out, *grpc->status);
        else
            out += name;
        out += ' ';
        const auto count = [&](const std::optional<std::uint64_t>& messages, const char* what) {
            if (messages)
                append_number(out, *messages);
            else
                out += '?';
            out += what;
        };
        count(grpc->sent, " sent, ");
        count(grpc->received, " got");
        if (!grpc->message.empty()) {
            out += ": ";
            append_shown(out, grpc->message);
        }
    }
    if (const auto& reset = transaction.reset) {
        out += reset->goaway ? " (refused, as the " : " (reset by the ";
        out += reset->by_server ? "server" : "client";
        out += reset->goaway ? " goes away: " : ": ";
        const std::string_view name = reset->code ? reset_name(*reset->code) : "?";
        if (name.empty())
            append_number(out, *reset->code);
        else
            out += name;
        out += ')';
    }
}

void append_unknown_fields(std::string& out, char mark, const Message& message) {
    if (message.unknown_fields > 0 && !message.fields.empty())
        fmt::format_to(std::back_inserter(out), "\n  {} ({} more not known)", mark,
                       message.unknown_fields);
}

void append_json_or_null(std::string& out, std::string_view text) {
    if (text.empty())
        out += "null";
    else
        append_json_string(out, text);
}

/// The members that only HTTP/2 has something in.
void append_http2_json(std::string& out, const Transaction& transaction) {
    if (!transaction.stream) {
        out += R"(,"stream":null,"pushed":false,"reset":null,"grpc":null)";
        return;
    }
    const auto number_or_null = [&](std::string_view member, const auto& value) {
        out += member;
        if (value)
            append_number(out, *value);
        else
            out += "null";
    };
    number_or_null(R"(,"stream":)", transaction.stream);
    out += transaction.pushed ? R"(,"pushed":true)" : R"(,"pushed":false)";
    if (const auto& reset = transaction.reset) {
        out += reset->by_server ? R"(,"reset":{"by":"server")" : R"(,"reset":{"by":"client")";
        number_or_null(R"(,"code":)", reset->code);
        out += R"(,"name":)";
        append_json_or_null(out, reset->code ? reset_name(*reset->code) : "");
        out += reset->goaway ? R"(,"goaway":true})" : R"(,"goaway":false})";
    } else {
        out += R"(,"reset":null)";
    }
    const auto& grpc = transaction.grpc;
    if (!grpc) {
        out += R"(,"grpc":null)";
        return;
    }
    number_or_null(R"(,"grpc":{"status":)", grpc->status);
    out += R"(,"name":)";
    append_json_or_null(out, grpc->status ? grpc_status_name(*grpc->status) : "");
    out += R"(,"message":)";
    append_json_or_null(out, grpc->message);
    number_or_null(R"(,"messages_sent":)", grpc->sent);
    number_or_null(R"(,"messages_received":)", grpc->received);
    out += R"(,"deadline_us":)";
    if (grpc->deadline != 0)
        append_thousandths(out, grpc->deadline);
    else
        out += "null";
    out += '}';
}

void append_message_json(std::string& out, const Message& message) {
    if (message.http2) {
        out += R"({"version":"HTTP/2)";
    } else {
        out += R"({"version":"HTTP/1.)";
        append_number(out, static_cast<unsigned>(message.version_minor));
    }
    out += R"(","bytes":)";
    append_number(out, message.wire_bytes);
    out += R"(,"head_bytes":)";
    append_number(out, message.head_bytes);
    out += R"(,"body_bytes":)";
    append_number(out, message.body_bytes);
    out += R"(,"end":")";
    out += end_name(message.end);
    out += '"';
    out +=
        message.absurd ? R"(,"absurd":true,"content_type":)" : R"(,"absurd":false,"content_type":)";
    append_json_or_null(out, message.content_type);
    if (!message.fields.empty())
        append_fields_json(out, R"(,"headers":[)", message.fields);
    if (!message.trailers.empty())
        append_fields_json(out, R"(,"trailers":[)", message.trailers);
    if (message.unknown_fields > 0) {
        out += R"(,"headers_unknown":)";
        append_number(out, message.unknown_fields);
    }
    if (!message.body.empty()) {
        out += R"(,"body":)";
        append_json_string(out, message.decoded ? *message.decoded : message.body);
        out += message.decoded ? R"(,"decoded":true)" : R"(,"decoded":false)";
    }
    out += '}';
}

void append_process_json(std::string& out, const char* key, const Process& process) {
    out += ",\"";
    out += key;
    if (process.pid == 0) {
        out += R"(":null)";
        return;
    }
    out += R"(":{"pid":)";
    append_number(out, process.pid);
    out += R"(,"comm":)";
    append_json_string(out, process.name);
    if (!process.container) {
        out += R"(,"container":null})";
        return;
    }
    const Container& container = *process.container;
    const auto member = [&](std::string_view key, const std::string& value) {
        out += key;
        append_json_or_null(out, value);
    };
    member(R"(,"container":{"runtime":)", container.runtime);
    member(R"(,"id":)", container.id);
    member(R"(,"name":)", container.name);
    member(R"(,"image":)", container.image);
    out += "}}";
}

} // namespace

void append_fields_json(std::string& out, std::string_view member,
                        const std::vector<HeaderField>& fields) {
    out += member;
    for (const HeaderField& field : fields) {
        if (&field != &fields.front())
            out += ',';
        out += R"({"name":)";
        append_json_string(out, field.name);
        out += R"(,"value":)";
        append_json_string(out, field.value);
        out += '}';
    }
    out += ']';
}

std::string iso_time(Time time) {
    char text[40];
    Cursor at(text);
    const std::tm& day = calendar(time, false);
    at.digits(static_cast<unsigned>(day.tm_year) + 1900, 4);
    at.character('-');
    at.digits(static_cast<unsigned>(day.tm_mon) + 1, 2);
    at.character('-');
    at.digits(static_cast<unsigned>(day.tm_mday), 2);
    at.character('T');
    write_time_of_day(at, day, time);
    at.character('Z');
    return std::string(at.text());
}

Text text_header() {
    return Text::format("{:<15} {:<21} {:<21} {:<18} {:>6} {:>7} {:>7} {:>9} {:>9}  {}\n", "TIME",
                        "CLIENT", "SERVER", "PROCESS", "STATUS", "SENT", "GOT", "LATENCY", "TOTAL",
                        "REQUEST");
}

void append_text(Text& text, const Transaction& transaction) {
    std::string& out = text.trusted_bytes();
    char buffer[160];
    Cursor time(buffer);
    const Time start = transaction.start();
    write_time_of_day(time, calendar(start, true), start);
    time.character(' ');
    out += time.text();
    out += columns_of(transaction);

    char status_buffer[24];
    Cursor status(status_buffer);
    if (transaction.status)
        status.number(static_cast<unsigned>(transaction.status));
    else if (transaction.response.seen)
        status.character('?'); // HTTP/2 joined late
    else
        status.text(transaction.waiting  ? "waits"
                    : transaction.closed ? "closed"
                    : transaction.reset  ? "reset"
                                         : "lost");
    if (transaction.response.seen && transaction.response.end != MessageEnd::complete)
        status.character('*');
    if (transaction.guessed)
        status.character('?');
    Cursor at(buffer);
    at.right(status.text(), 6);
    at.character(' ');
    write_size(at, transaction.request.wire_bytes, 7);
    at.character(' ');
    write_size(at, transaction.response.wire_bytes, 7);
    at.character(' ');
    write_duration(at, transaction.latency(), 9);
    at.character(' ');
    write_duration(at, transaction.duration(), 9);
    at.text("  ");
    out += at.text();
    append_shown(out, transaction.method.empty() ? "?" : transaction.method);
    out += ' ';
    if (path_of(transaction.target).data() == transaction.target.data() &&
        transaction.method != "CONNECT") {
        if (transaction.tls)
            out += "https://";
        append_shown(out, transaction.host);
    }
    append_shown(out, transaction.target.empty() ? "?" : transaction.target);
    if (transaction.stream)
        append_http2(out, transaction);
    if (transaction.request.absurd || transaction.response.absurd)
        out += transaction.stream ? " (head not whole)" : " (absurd head)";
    append_fields(out, '>', transaction.request.fields);
    append_unknown_fields(out, '>', transaction.request);
    append_body(out, '>', transaction.request);
    append_fields(out, '>', transaction.request.trailers);
    append_fields(out, '<', transaction.response.fields);
    append_unknown_fields(out, '<', transaction.response);
    append_body(out, '<', transaction.response);
    append_fields(out, '<', transaction.response.trailers);
    out += '\n';
}

void append_json(Text& text, const Transaction& transaction) {
    std::string& out = text.trusted_bytes();
    out += R"({"time":")";
    out += iso_time(transaction.start());
    if (!transaction.placed) {
        out += R"(","client":null,"server":null)";
    } else if (transaction.unix_path) {
        out += R"(","client":"unix","server":)";
        append_json_string(out, transaction.server_name());
    } else {
        out += R"(","client":")";
        append_endpoint(out, transaction.client);
        out += R"(","server":")";
        append_endpoint(out, transaction.server);
        out += '"';
    }
    append_process_json(out, "client_process", transaction.client_process);
    append_process_json(out, "server_process", transaction.server_process);
    out += transaction.client_view ? R"(,"view":"client")" : R"(,"view":"server")";
    out += transaction.tls ? R"(,"tls":true)" : R"(,"tls":false)";
    append_http2_json(out, transaction);
    if (transaction.request.seen) {
        out += R"(,"method":)";
        append_json_or_null(out, transaction.method);
        out += R"(,"host":)";
        append_json_or_null(out, host_of(transaction));
        out += R"(,"target":)";
        append_json_or_null(out, transaction.target);
    } else {
        out += R"(,"method":null,"host":null,"target":null)";
    }
    if (transaction.response.seen) {
        out += R"(,"status":)";
        if (transaction.status != 0)
            append_number(out, static_cast<unsigned>(transaction.status));
        else
            out += "null";
        out += R"(,"reason":)";
        append_json_string(out, transaction.reason);
    } else {
        out += R"(,"status":null,"reason":null)";
    }
    out += R"(,"interim":)";
    append_number(out, static_cast<unsigned>(transaction.interim));
    const auto flag = [&](std::string_view member, bool set) {
        out += member;
        out += set ? "true" : "false";
    };
    flag(R"(,"closed":)", transaction.closed);
    flag(R"(,"waiting":)", transaction.waiting);
    flag(R"(,"stalled":)", transaction.stalled);
    flag(R"(,"guessed":)", transaction.guessed);
    out += R"(,"latency_us":)";
    if (transaction.latency() != 0)
        append_thousandths(out, transaction.latency());
    else
        out += "null";
    out += R"(,"duration_us":)";
    append_thousandths(out, transaction.duration());
    out += R"(,"request":)";
    if (transaction.request.seen)
        append_message_json(out, transaction.request);
    else
        out += "null";
    out += R"(,"response":)";
    if (transaction.response.seen)
        append_message_json(out, transaction.response);
    else
        out += "null";
    out += "}\n";
}

} // namespace netctl::trace
