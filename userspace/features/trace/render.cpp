// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/render.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>

#include <fmt/format.h>

#include "features/trace/filter.hpp"

namespace netctl::trace {

namespace {

double milliseconds(Time time) {
    return static_cast<double>(time) / 1e6;
}

std::tm calendar(Time time, bool local) {
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

/// The length of the UTF-8 sequence at the beginning, or 0 (RFC 3629).
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

void append_shown(std::string& out, std::string_view text) {
    while (!text.empty()) {
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

std::string size_text(std::uint64_t bytes) {
    if (bytes < 10000)
        return fmt::format("{}B", bytes);
    if (bytes < 10'000'000)
        return fmt::format("{:.1f}K", static_cast<double>(bytes) / 1024);
    return fmt::format("{:.1f}M", static_cast<double>(bytes) / 1048576);
}

std::string time_text(Time time) {
    if (time == 0)
        return "-";
    if (time < 10'000'000)
        return fmt::format("{:.3f}ms", milliseconds(time));
    if (time < 10 * second)
        return fmt::format("{:.1f}ms", milliseconds(time));
    return fmt::format("{:.1f}s", static_cast<double>(time) / 1e9);
}

std::string process_text(const Process& process) {
    return process.pid == 0 ? std::string("-") : fmt::format("{}[{}]", process.name, process.pid);
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
    fmt::format_to(
        std::back_inserter(out),
        R"({{"version":"HTTP/1.{}","bytes":{},"head_bytes":{},"body_bytes":{},"end":"{}")",
        message.version_minor, message.wire_bytes, message.head_bytes, message.body_bytes,
        end_name(message.end));
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
    fmt::format_to(std::back_inserter(out), R"(,"{}":{{"pid":{},"comm":)", key, process.pid);
    append_json_string(out, process.name);
    out += '}';
}

void append_har_fields(std::string& out, const std::vector<HeaderField>& fields) {
    out += R"("cookies":[],"headers":[)";
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

int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = utf8_length(text);
        if (length == 0)
            return false;
        text.remove_prefix(length);
    }
    return true;
}

void append_base64(std::string& out, std::string_view bytes) {
    constexpr std::string_view digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const std::size_t some = std::min<std::size_t>(3, bytes.size() - at);
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 3; ++i)
            group = group << 8 | (i < some ? static_cast<unsigned char>(bytes[at + i]) : 0u);
        for (std::size_t i = 0; i < 4; ++i)
            out += i <= some ? digits[group >> (18 - 6 * i) & 63] : '=';
    }
}

/// Of a message that was cut, the head may be all that is known.
long long body_on_wire(const Message& message) {
    return message.wire_bytes > message.head_bytes
               ? static_cast<long long>(message.wire_bytes - message.head_bytes)
               : 0;
}

std::string decode_query(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '+') {
            out += ' ';
        } else if (text[i] == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 &&
                   hex_value(text[i + 2]) >= 0) {
            out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
            i += 2;
        } else {
            out += text[i];
        }
    }
    return out;
}

} // namespace

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
    const std::tm day = calendar(time, false);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", day.tm_year + 1900,
                       day.tm_mon + 1, day.tm_mday, day.tm_hour, day.tm_min, day.tm_sec,
                       time % second / 1000);
}

std::string text_header() {
    return fmt::format("{:<15} {:<21} {:<21} {:<18} {:>6} {:>7} {:>7} {:>9} {:>9}  {}", "TIME",
                       "CLIENT", "SERVER", "PROCESS", "STATUS", "SENT", "GOT", "LATENCY", "TOTAL",
                       "REQUEST");
}

void append_text(std::string& out, const Transaction& transaction) {
    const Time start = transaction.start();
    const std::tm day = calendar(start, true);
    const Process& process =
        transaction.client_view ? transaction.client_process : transaction.server_process;
    std::string status = transaction.status   ? std::to_string(transaction.status)
                         : transaction.closed ? "closed"
                                              : "lost";
    if (transaction.response.seen && transaction.response.end != MessageEnd::complete)
        status += '*';
    std::string name;
    append_shown(name, process_text(process));
    fmt::format_to(std::back_inserter(out),
                   "{:02}:{:02}:{:02}.{:06} {:<21} {:<21} {:<18} {:>6} {:>7} {:>7} {:>9} {:>9}  ",
                   day.tm_hour, day.tm_min, day.tm_sec, start % second / 1000,
                   transaction.client.to_string(), transaction.server.to_string(), name, status,
                   size_text(transaction.request.wire_bytes),
                   size_text(transaction.response.wire_bytes), time_text(transaction.latency()),
                   time_text(transaction.duration()));
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
    out += transaction.client.to_string();
    out += R"(","server":")";
    out += transaction.server.to_string();
    out += '"';
    append_process_json(out, "client_process", transaction.client_process);
    append_process_json(out, "server_process", transaction.server_process);
    fmt::format_to(std::back_inserter(out), R"(,"view":"{}")",
                   transaction.client_view ? "client" : "server");
    if (transaction.request.seen) {
        out += R"(,"method":)";
        append_json_string(out, transaction.method);
        out += R"(,"host":)";
        append_json_string(out, host_of(transaction));
        out += R"(,"target":)";
        append_json_string(out, transaction.target);
    }
    if (transaction.response.seen) {
        fmt::format_to(std::back_inserter(out), R"(,"status":{},"reason":)", transaction.status);
        append_json_string(out, transaction.reason);
    }
    if (transaction.interim)
        fmt::format_to(std::back_inserter(out), R"(,"interim":{})", transaction.interim);
    if (transaction.closed)
        out += R"(,"closed":true)";
    if (transaction.latency() != 0)
        fmt::format_to(std::back_inserter(out), R"(,"latency_us":{:.3f})",
                       static_cast<double>(transaction.latency()) / 1e3);
    fmt::format_to(std::back_inserter(out), R"(,"duration_us":{:.3f})",
                   static_cast<double>(transaction.duration()) / 1e3);
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

std::string har_begin(const std::string& version) {
    std::string out = R"({"log":{"version":"1.2","creator":{"name":"netctl","version":)";
    append_json_string(out, version);
    return out + "},\"pages\":[],\"entries\":[\n";
}

std::string har_end() {
    return "\n]}}\n";
}

void append_har_entry(std::string& out, const Transaction& transaction) {
    const Message& request = transaction.request;
    const Message& response = transaction.response;
    const auto span = [](Time from, Time to) { return to > from ? milliseconds(to - from) : 0.0; };
    const double send = span(request.first_byte, request.last_byte);
    const double wait =
        request.seen && response.seen ? span(request.last_byte, response.first_byte) : 0.0;
    const double receive = span(response.first_byte, response.last_byte);
    std::string url;
    if (transaction.target.find("://") != std::string::npos && transaction.target[0] != '/') {
        url = transaction.target;
    } else {
        url = "http://";
        url += transaction.host.empty() ? transaction.server.to_string() : transaction.host;
        if (transaction.target.empty() || transaction.target[0] != '/')
            url += '/';
        url += transaction.target;
    }
    fmt::format_to(std::back_inserter(out),
                   R"({{"startedDateTime":"{}","time":{:.6f},"request":{{"method":)",
                   iso_time(transaction.start()), send + wait + receive);
    append_json_string(out, transaction.method.empty() ? "?" : transaction.method);
    out += R"(,"url":)";
    append_json_string(out, url);
    fmt::format_to(std::back_inserter(out), R"(,"httpVersion":"HTTP/1.{}",)",
                   request.version_minor);
    append_har_fields(out, request.fields);
    out += R"(,"queryString":[)";
    const std::size_t question = transaction.target.find('?');
    std::string_view query;
    if (question != std::string::npos)
        query = std::string_view(transaction.target).substr(question + 1);
    for (bool first = true; !query.empty(); first = false) {
        const std::size_t ampersand = query.find('&');
        const std::string_view pair = query.substr(0, ampersand);
        const std::size_t equals = pair.find('=');
        if (!first)
            out += ',';
        out += R"({"name":)";
        append_json_string(out, decode_query(pair.substr(0, equals)));
        out += R"(,"value":)";
        append_json_string(out, equals == std::string_view::npos
                                    ? std::string()
                                    : decode_query(pair.substr(equals + 1)));
        out += '}';
        if (ampersand == std::string_view::npos)
            break;
        query.remove_prefix(ampersand + 1);
    }
    out += ']';
    if (request.body_bytes > 0) {
        out += R"(,"postData":{"mimeType":)";
        append_json_string(out, request.content_type);
        out += R"(,"params":[],"text":)";
        append_json_string(out, request.body);
        out += '}';
    }
    fmt::format_to(std::back_inserter(out),
                   R"(,"headersSize":{},"bodySize":{}}},"response":{{"status":{},"statusText":)",
                   request.seen ? static_cast<long long>(request.head_bytes) : -1,
                   request.seen ? body_on_wire(request) : -1, transaction.status);
    append_json_string(out, transaction.reason);
    fmt::format_to(std::back_inserter(out), R"(,"httpVersion":"HTTP/1.{}",)",
                   response.version_minor);
    append_har_fields(out, response.fields);
    fmt::format_to(std::back_inserter(out), R"(,"content":{{"size":{},"mimeType":)",
                   response.body_bytes);
    append_json_string(out, response.content_type.empty() ? "x-unknown" : response.content_type);
    if (!response.body.empty() && is_utf8(response.body)) {
        out += R"(,"text":)";
        append_json_string(out, response.body);
    } else if (!response.body.empty()) { // compressed, or an image
        out += R"(,"encoding":"base64","text":")";
        append_base64(out, response.body);
        out += '"';
    }
    std::string location;
    for (const HeaderField& field : response.fields)
        if (field.name == "Location" || field.name == "location")
            location = field.value;
    out += R"(},"redirectURL":)";
    append_json_string(out, location);
    fmt::format_to(
        std::back_inserter(out),
        R"(,"headersSize":{},"bodySize":{}}},"cache":{{}},"timings":{{"send":{:.6f},"wait":{:.6f},"receive":{:.6f}}})",
        response.seen ? static_cast<long long>(response.head_bytes) : -1,
        response.seen ? body_on_wire(response) : -1, send, wait, receive);
    std::string server = transaction.server.address.to_string();
    fmt::format_to(std::back_inserter(out), R"(,"serverIPAddress":"{}","connection":"{}"}})",
                   server, transaction.client.port);
}

} // namespace netctl::trace
