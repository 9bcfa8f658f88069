// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/har.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <iterator>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "core/text.hpp"
#include "features/trace/http/render.hpp"

namespace netctl::trace {

namespace {

constexpr std::string_view har_headers = R"("cookies":[],"headers":[)";

double milliseconds(Time time) {
    return static_cast<double>(time) / 1e6;
}

void append_version(std::string& out, const Message& message) {
    if (message.http2)
        out += R"(,"httpVersion":"HTTP/2",)";
    else
        fmt::format_to(std::back_inserter(out), R"(,"httpVersion":"HTTP/1.{}",)",
                       message.version_minor);
}

int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
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

/// Decodes one name or value of a query or a form.
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

/// `name=value&…` as a list of names and values.
void append_pairs(std::string& out, std::string_view pairs) {
    out += '[';
    for (bool first = true; !pairs.empty(); first = false) {
        const std::size_t ampersand = pairs.find('&');
        const std::string_view pair = pairs.substr(0, ampersand);
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
        pairs.remove_prefix(ampersand + 1);
    }
    out += ']';
}

bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// With what no URL has in it (RFC 3986) percent-encoded.
void append_url_part(std::string& out, std::string_view text) {
    for (const char c : text) {
        if (is_alphanumeric(c) ||
            std::string_view("-._~:/?#[]@!$&'()*+,;=%").find(c) != std::string_view::npos)
            out += c;
        else
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
}

/// Whether it may stand between the slashes of a URL.
bool is_authority(std::string_view host) {
    return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
        return is_alphanumeric(c) ||
               std::string_view("-._~:[]!$&'()*+,;=%").find(c) != std::string_view::npos;
    });
}

std::string url_of(const Transaction& transaction) {
    const std::string_view target = transaction.target;
    std::string url;
    if (target.find("://") != std::string_view::npos && target[0] != '/') {
        append_url_part(url, target);
        return url;
    }
    url = transaction.tls ? "https://" : "http://";
    if (transaction.method == "CONNECT" && is_authority(target))
        return url + std::string(target) + '/';
    url += is_authority(transaction.host) ? transaction.host
           : transaction.unix_path        ? "localhost"
           : !transaction.placed          ? "unknown.invalid" // RFC 2606: nobody's
                                          : transaction.server.to_string();
    if (target.empty() || target[0] != '/')
        url += '/';
    append_url_part(url, target);
    return url;
}

bool is_form(std::string_view content_type) {
    constexpr std::string_view form = "application/x-www-form-urlencoded";
    const std::string_view type = content_type.substr(0, form.size());
    return std::equal(type.begin(), type.end(), form.begin(), form.end(),
                      [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; }) &&
           (content_type.size() == form.size() || content_type[form.size()] == ';' ||
            content_type[form.size()] == ' ');
}

bool is_kept_whole(const Message& message) {
    return message.end == MessageEnd::complete && message.body.size() == message.body_bytes;
}

/// A body as text, or in base64, which `encoding` tells; and what is missing of it, as a comment.
void append_body(std::string& out, const Message& message, const char* encoding) {
    const std::string& body = message.decoded ? *message.decoded : message.body;
    if (is_utf8(body)) {
        out += R"(,"text":)";
        append_json_string(out, body);
    } else {
        fmt::format_to(std::back_inserter(out), R"(,"{}":"base64","text":")", encoding);
        append_base64(out, body);
        out += '"';
    }
    std::string comment;
    if (message.end != MessageEnd::complete)
        comment = fmt::format("{} bytes were seen, and its end was not", message.body_bytes);
    if (message.body.size() < message.body_bytes)
        comment += fmt::format("{}{} of {} bytes were kept", comment.empty() ? "" : "; ",
                               message.body.size(), message.body_bytes);
    if (message.decoded && !message.decoded_whole)
        comment += fmt::format("{}decoded to its first {} bytes", comment.empty() ? "" : "; ",
                               body.size());
    if (!comment.empty())
        fmt::format_to(std::back_inserter(out), R"(,"comment":"{}")", comment);
}

} // namespace

std::string har_begin(const std::string& version, Time start) {
    std::string out = R"({"log":{"version":"1.2","creator":{"name":"netctl","version":)";
    append_json_string(out, version);
    return out + R"(},"pages":[{"startedDateTime":")" + iso_time(start) +
           R"(","id":"page_1","title":"netctl trace http","pageTimings":{"onContentLoad":-1,"onLoad":-1}}],"entries":[)" +
           "\n";
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
    fmt::format_to(
        std::back_inserter(out),
        R"({{"pageref":"page_1","startedDateTime":"{}","time":{:.6f},"request":{{"method":)",
        iso_time(transaction.start()), send + wait + receive);
    append_json_string(out, transaction.method.empty() ? "?" : transaction.method);
    out += R"(,"url":)";
    append_json_string(out, url_of(transaction));
    append_version(out, request);
    append_fields_json(out, har_headers, request.fields);
    out += R"(,"queryString":)";
    const std::size_t question = transaction.target.find('?');
    append_pairs(out, question == std::string::npos
                          ? std::string_view()
                          : std::string_view(transaction.target).substr(question + 1));
    if (request.body_bytes > 0) {
        out += R"(,"postData":{"mimeType":)";
        append_json_string(out, request.content_type);
        // A form that is cut may be cut within a name.
        const bool form = is_form(request.content_type) && is_kept_whole(request) &&
                          (!request.decoded || request.decoded_whole);
        out += R"(,"params":)";
        append_pairs(out, !form             ? std::string_view()
                          : request.decoded ? *request.decoded
                                            : request.body);
        append_body(out, request, "_encoding");
        out += '}';
    }
    fmt::format_to(std::back_inserter(out),
                   R"(,"headersSize":{},"bodySize":{}}},"response":{{"status":{},"statusText":)",
                   request.seen ? static_cast<long long>(request.head_bytes) : -1,
                   request.seen ? body_on_wire(request) : -1, transaction.status);
    append_json_string(out, transaction.reason);
    append_version(out, response);
    append_fields_json(out, har_headers, response.fields);
    // The size is the content's, and how much compression saves can be told of what is decoded whole.
    const bool decoded = response.decoded && response.decoded_whole && is_kept_whole(response);
    const auto size = decoded ? response.decoded->size() : response.body_bytes;
    fmt::format_to(std::back_inserter(out), R"(,"content":{{"size":{},)", size);
    if (decoded)
        fmt::format_to(std::back_inserter(out), R"("compression":{},)",
                       static_cast<long long>(size) - static_cast<long long>(response.body_bytes));
    out += R"("mimeType":)";
    append_json_string(out, response.content_type.empty() ? "x-unknown" : response.content_type);
    if (!response.body.empty())
        append_body(out, response, "encoding");
    else if (response.body_bytes > 0)
        out += R"(,"comment":"its body was not kept")";
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
    if (transaction.unix_path) {
        out += R"(,"_socket":)";
        append_json_string(out, transaction.server_name());
        out += '}';
        return;
    }
    if (!transaction.placed) {
        out += '}';
        return;
    }
    fmt::format_to(std::back_inserter(out), R"(,"serverIPAddress":"{}","connection":"{}"}})",
                   transaction.server.address.to_string(), transaction.client.port);
}

Result<HarFile> HarFile::create(const std::string& path) {
    Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!fd)
        return Error::system(errno, fmt::format("cannot write {}", path));
    HarFile har(path, std::move(fd));
    const auto now = static_cast<Time>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                           std::chrono::system_clock::now().time_since_epoch())
                                           .count());
    har.pending_ = har_begin(NETCTL_VERSION, now);
    har.page_start_ = static_cast<off_t>(har.pending_.find(iso_time(now)));
    NETCTL_TRY(har.flush());
    return har;
}

void HarFile::add(const Transaction& transaction) {
    if (written_ + waiting_ > 0)
        pending_ += ",\n";
    // The page begins with the first entry, which in a capture file was long ago.
    if (!std::exchange(page_begun_, true))
        write_at(page_start_, iso_time(transaction.start()));
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
