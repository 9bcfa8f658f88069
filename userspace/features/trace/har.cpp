// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/har.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <iterator>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "core/text.hpp"
#include "features/trace/render.hpp"

namespace netctl::trace {

namespace {

double milliseconds(Time time) {
    return static_cast<double>(time) / 1e6;
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

Result<HarFile> HarFile::create(const std::string& path) {
    Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!fd)
        return Error::system(errno, fmt::format("cannot write {}", path));
    HarFile har(path, std::move(fd));
    har.pending_ = har_begin(NETCTL_VERSION);
    NETCTL_TRY(har.flush());
    return har;
}

void HarFile::add(const Transaction& transaction) {
    if (written_ + waiting_ > 0)
        pending_ += ",\n";
    append_har_entry(pending_, transaction);
    ++waiting_;
}

int HarFile::write_at(off_t position, std::string_view text) const {
    while (!text.empty()) {
        const ssize_t size = pwrite(fd_.get(), text.data(), text.size(), position);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return errno;
        position += size;
        text.remove_prefix(static_cast<std::size_t>(size));
    }
    return 0;
}

Result<> HarFile::flush() {
    if (pending_.empty())
        return {};
    const std::string end = har_end();
    const std::string text = std::exchange(pending_, {}) + end;
    const std::uint64_t entries = std::exchange(waiting_, 0);
    const int code = write_at(position_, text);
    if (code == 0) {
        position_ += static_cast<off_t>(text.size() - end.size());
        written_ += entries;
        return {};
    }
    unwritten_ += entries;
    // The end was there before, so it has its place on a full disk.
    const auto size = position_ + static_cast<off_t>(end.size());
    if (position_ > 0 && write_at(position_, end) == 0 && ftruncate(fd_.get(), size) != 0)
        return Error::system(errno, fmt::format("cannot cut {}", path_));
    return Error::system(code, fmt::format("cannot write {}", path_));
}

} // namespace netctl::trace
