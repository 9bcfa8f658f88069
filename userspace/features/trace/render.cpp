// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/render.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>
#include <iterator>

#include <fmt/format.h>

#include "features/trace/filter.hpp"

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

void append_shown(std::string& out, std::string_view text) {
    while (!text.empty()) {
        // Most text is plain: take it in runs.
        std::size_t plain = 0;
        while (plain < text.size() && text[plain] >= 0x20 && text[plain] < 0x7f)
            ++plain;
        out.append(text.substr(0, plain));
        text.remove_prefix(plain);
        if (text.empty())
            break;
        const std::size_t length = utf8_length(text);
        const auto first = static_cast<unsigned char>(text[0]);
        // C1 controls are two bytes of UTF-8.
        const bool control =
            first < 0x20 || first == 0x7f ||
            (length == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
        if (length == 0 || control) {
            fmt::format_to(std::back_inserter(out), "\\x{:02x}", first);
            text.remove_prefix(1);
            continue;
        }
        out.append(text.substr(0, length));
        text.remove_prefix(length);
    }
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
}

/// The columns that are the same for all transactions of a connection.
const std::string& columns_of(const Transaction& transaction) {
    struct Columns {
        Endpoint client, server;
        Process process;
        std::string text;
    };
    static thread_local std::array<Columns, 1024> cache;
    const Process& process =
        transaction.client_view ? transaction.client_process : transaction.server_process;
    Columns& columns = cache[(transaction.client.port ^ transaction.server.port) % cache.size()];
    if (!columns.text.empty() && columns.client == transaction.client &&
        columns.server == transaction.server && columns.process.pid == process.pid &&
        columns.process.name == process.name)
        return columns.text;
    columns.client = transaction.client;
    columns.server = transaction.server;
    columns.process = process;
    std::string& text = columns.text;
    text.clear();
    const auto pad = [&](std::size_t begin, std::size_t width) {
        if (text.size() - begin < width)
            text.append(width - (text.size() - begin), ' ');
        text += ' ';
    };
    append_endpoint(text, transaction.client);
    pad(0, 21);
    std::size_t begin = text.size();
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
    if (message.body.empty())
        return;
    fmt::format_to(std::back_inserter(out), "\n  {} ", mark);
    append_shown(out, message.body);
    if (message.body.size() < message.body_bytes)
        out += " ...";
}

void append_message_json(std::string& out, const Message& message) {
    out += R"({"version":"HTTP/1.)";
    append_number(out, static_cast<unsigned>(message.version_minor));
    out += R"(","bytes":)";
    append_number(out, message.wire_bytes);
    out += R"(,"head_bytes":)";
    append_number(out, message.head_bytes);
    out += R"(,"body_bytes":)";
    append_number(out, message.body_bytes);
    out += R"(,"end":")";
    out += end_name(message.end);
    out += '"';
    if (message.absurd)
        out += R"(,"absurd":true)";
    if (!message.content_type.empty()) {
        out += R"(,"content_type":)";
        append_json_string(out, message.content_type);
    }
    if (!message.fields.empty()) {
        out += R"(,"headers":[)";
        for (const HeaderField& field : message.fields) {
            if (&field != &message.fields.front())
                out += ',';
            out += R"({"name":)";
            append_json_string(out, field.name);
            out += R"(,"value":)";
            append_json_string(out, field.value);
            out += '}';
        }
        out += ']';
    }
    if (!message.body.empty()) {
        out += R"(,"body":)";
        append_json_string(out, message.body);
    }
    out += '}';
}

void append_process_json(std::string& out, const char* key, const Process& process) {
    if (process.pid == 0)
        return;
    out += ",\"";
    out += key;
    out += R"(":{"pid":)";
    append_number(out, process.pid);
    out += R"(,"comm":)";
    append_json_string(out, process.name);
    out += '}';
}

} // namespace

std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || text.size() < length)
        return 0;
    for (std::size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
        (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f))
        return 0;
    return length;
}

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    while (!text.empty()) {
        // Most text is plain: take it in runs.
        std::size_t plain = 0;
        while (plain < text.size() && static_cast<signed char>(text[plain]) >= 0x20 &&
               text[plain] != '"' && text[plain] != '\\' && text[plain] != 0x7f)
            ++plain;
        out.append(text.substr(0, plain));
        text.remove_prefix(plain);
        if (text.empty())
            break;
        const auto first = static_cast<unsigned char>(text[0]);
        std::size_t length = 1;
        if (first == '"' || first == '\\') {
            out += '\\';
            out += text[0];
        } else if (first < 0x80) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", first);
        } else if ((length = utf8_length(text)) != 0) {
            out.append(text.substr(0, length));
        } else {
            length = 1;
            out += static_cast<char>(0xc0 | first >> 6);
            out += static_cast<char>(0x80 | (first & 0x3f));
        }
        text.remove_prefix(length);
    }
    out += '"';
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

std::string text_header() {
    return fmt::format("{:<15} {:<21} {:<21} {:<18} {:>6} {:>7} {:>7} {:>9} {:>9}  {}", "TIME",
                       "CLIENT", "SERVER", "PROCESS", "STATUS", "SENT", "GOT", "LATENCY", "TOTAL",
                       "REQUEST");
}

void append_text(std::string& out, const Transaction& transaction) {
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
    else
        status.text(transaction.waiting ? "waits" : transaction.closed ? "closed" : "lost");
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
        transaction.method != "CONNECT")
        append_shown(out, transaction.host);
    append_shown(out, transaction.target.empty() ? "?" : transaction.target);
    if (transaction.request.absurd || transaction.response.absurd)
        out += " (absurd head)";
    append_fields(out, '>', transaction.request.fields);
    append_body(out, '>', transaction.request);
    append_fields(out, '<', transaction.response.fields);
    append_body(out, '<', transaction.response);
}

void append_json(std::string& out, const Transaction& transaction) {
    out += R"({"time":")";
    out += iso_time(transaction.start());
    out += R"(","client":")";
    append_endpoint(out, transaction.client);
    out += R"(","server":")";
    append_endpoint(out, transaction.server);
    out += '"';
    append_process_json(out, "client_process", transaction.client_process);
    append_process_json(out, "server_process", transaction.server_process);
    out += transaction.client_view ? R"(,"view":"client")" : R"(,"view":"server")";
    if (transaction.request.seen) {
        out += R"(,"method":)";
        append_json_string(out, transaction.method);
        if (const std::string_view host = host_of(transaction); !host.empty()) {
            out += R"(,"host":)";
            append_json_string(out, host);
        }
        out += R"(,"target":)";
        append_json_string(out, transaction.target);
    }
    if (transaction.response.seen) {
        out += R"(,"status":)";
        append_number(out, static_cast<unsigned>(transaction.status));
        out += R"(,"reason":)";
        append_json_string(out, transaction.reason);
    }
    if (transaction.interim)
        fmt::format_to(std::back_inserter(out), R"(,"interim":{})", transaction.interim);
    if (transaction.closed)
        out += R"(,"closed":true)";
    if (transaction.waiting)
        out += R"(,"waiting":true)";
    if (transaction.stalled)
        out += R"(,"stalled":true)";
    if (transaction.guessed)
        out += R"(,"guessed":true)";
    if (transaction.latency() != 0) {
        out += R"(,"latency_us":)";
        append_thousandths(out, transaction.latency());
    }
    out += R"(,"duration_us":)";
    append_thousandths(out, transaction.duration());
    if (transaction.request.seen) {
        out += R"(,"request":)";
        append_message_json(out, transaction.request);
    }
    if (transaction.response.seen) {
        out += R"(,"response":)";
        append_message_json(out, transaction.response);
    }
    out += '}';
}

} // namespace netctl::trace
