// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/http_parser.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <strings.h>
#include <utility>

namespace netctl::trace {
namespace {

/// Methods that are known at once: IANA's registry, and PURGE, which caches use. Any other token is one
/// if the line ends as a request's does.
constexpr std::array<std::string_view, 41> methods = {
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "LABEL",
    "LINK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "ORDERPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "PURGE",
    "SOURCE",
};

/// Trailer sections and chunk extensions have no use here; this bounds a sender that never ends one.
constexpr std::size_t chunk_line_limit = 16 * 1024;

constexpr auto make_token_table() {
    std::array<bool, 256> table{};
    for (int c = '0'; c <= '9'; ++c)
        table[c] = true;
    for (int c = 'A'; c <= 'Z'; ++c)
        table[c] = table[c + 32] = true;
    for (char c : std::string_view("!#$%&'*+-.^_`|~"))
        table[static_cast<unsigned char>(c)] = true;
    return table;
}
constexpr std::array<bool, 256> token_table = make_token_table();

/// What the names that parse_field() knows begin with.
constexpr auto make_field_table() {
    std::array<bool, 256> table{};
    for (char c : std::string_view("hecut"))
        table[static_cast<unsigned char>(c)] = table[static_cast<unsigned char>(c) - 32] = true;
    return table;
}
constexpr std::array<bool, 256> field_table = make_field_table();

bool is_token(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](unsigned char c) { return token_table[c]; });
}

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

/// `name` is in lower case.
bool same_name(std::string_view text, std::string_view name) {
    return text.size() == name.size() && strncasecmp(text.data(), name.data(), name.size()) == 0;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
        text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
        text.remove_suffix(1);
    return text;
}

/// Calls `element` for each element of a comma-separated list.
template <class Function> void for_each_element(std::string_view list, Function element) {
    while (!list.empty()) {
        const std::size_t comma = list.find(',');
        const std::string_view one = trim(list.substr(0, comma));
        if (!one.empty())
            element(one);
        if (comma == std::string_view::npos)
            break;
        list.remove_prefix(comma + 1);
    }
}

/// Digits only, and no overflow.
std::optional<std::uint64_t> parse_length(std::string_view text) {
    if (text.empty())
        return std::nullopt;
    std::uint64_t value = 0;
    for (char c : text) {
        if (c < '0' || c > '9' || __builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
            __builtin_add_overflow(value, static_cast<std::uint64_t>(c - '0'), &value))
            return std::nullopt;
    }
    return value;
}

bool is_http1(std::string_view version) {
    return version.size() == 8 && version.substr(0, 7) == "HTTP/1." && version[7] >= '0' &&
           version[7] <= '9';
}

/// `TOKEN SP target SP HTTP/1.x` with any token.
StartGuess guess_line(std::string_view data) {
    const std::size_t end = data.find('\n');
    std::string_view line = data.substr(0, end);
    const std::size_t method = std::min(line.find(' '), line.size());
    constexpr std::size_t method_limit = 64;
    if (method == 0 || method > method_limit ||
        (method < line.size() || end != std::string_view::npos ? !is_token(line.substr(0, method))
                                                               : !is_token(line)))
        return StartGuess::no;
    if (end == std::string_view::npos) {
        const bool text = std::all_of(line.begin(), line.end(), [](unsigned char c) {
            return c >= 0x20 || c == '\r' || c == '\t';
        });
        return text && data.size() < start_limit ? StartGuess::maybe : StartGuess::no;
    }
    if (!line.empty() && line.back() == '\r')
        line.remove_suffix(1);
    line = trim(line);
    const std::size_t version = line.rfind(' ');
    return version != std::string_view::npos && version > method &&
                   is_http1(line.substr(version + 1))
               ? StartGuess::request
               : StartGuess::no;
}

} // namespace

void Head::clear() {
    method.clear();
    target.clear();
    reason.clear();
    host.clear();
    content_type.clear();
    content_encoding.clear();
    static_cast<HeadNumbers&>(*this) = {};
    fields.clear();
}

Framing request_framing(const Head& head) {
    if (head.transfer_coded)
        return head.chunked ? Framing::chunked : Framing::until_close;
    if (head.content_length && *head.content_length > 0)
        return Framing::length;
    return Framing::none;
}

Framing response_framing(const Head& head, std::string_view method) {
    if (head.status == 101 || (method == "CONNECT" && head.status / 100 == 2))
        return Framing::tunnel;
    if (method == "HEAD" || head.status / 100 == 1 || head.status == 204 || head.status == 304)
        return Framing::none;
    if (head.transfer_coded)
        return head.chunked ? Framing::chunked : Framing::until_close;
    if (head.content_length)
        return *head.content_length > 0 ? Framing::length : Framing::none;
    return Framing::until_close;
}

StartGuess guess_start(std::string_view data) {
    if (data.empty())
        return StartGuess::maybe;
    if (data[0] == 'P' && (data.size() == 1 || data[1] == 'R')) {
        const std::size_t common = std::min(data.size(), http2_preface.size());
        if (data.substr(0, common) == http2_preface.substr(0, common))
            return common == http2_preface.size() ? StartGuess::http2 : StartGuess::maybe;
    }
    if (data[0] == 'H' && (data.size() == 1 || data[1] == 'T')) {
        constexpr std::string_view version = "HTTP/1.";
        const std::size_t common = std::min(data.size(), version.size());
        if (data.substr(0, common) != version.substr(0, common))
            return StartGuess::no;
        return common == version.size() ? StartGuess::response : StartGuess::maybe;
    }
    for (std::string_view method : methods) {
        if (method[0] != data[0])
            continue;
        const std::size_t common = std::min(data.size(), method.size());
        if (std::memcmp(data.data(), method.data(), common) != 0)
            continue;
        if (data.size() <= method.size())
            return StartGuess::maybe;
        if (data[method.size()] == ' ')
            return StartGuess::request;
    }
    return guess_line(data);
}

/// Takes one line, without its end, out of `data`. A line that began in an earlier call is put
/// together in line_; release_line() must follow before the next one is taken.
MessageParser::Line MessageParser::take_line(std::string_view& data, std::string_view& line) {
    const void* newline = std::memchr(data.data(), '\n', data.size());
    const std::size_t length =
        newline ? static_cast<std::size_t>(static_cast<const char*>(newline) - data.data())
                : data.size();
    if (newline && !line_held_) {
        line = data.substr(0, std::min(length, head_limit));
        line_cut_ = length - line.size();
    } else {
        const std::size_t room = head_limit - std::min(head_limit, line_.size());
        line_.append(data.substr(0, std::min(length, room)));
        line_cut_ += length - std::min(length, room);
        line_held_ = true;
        line = line_;
    }
    wire_ += length + (newline ? 1 : 0);
    data.remove_prefix(length + (newline ? 1 : 0));
    if (!newline)
        return Line::partial;
    if (!line.empty() && line.back() == '\r' && line_cut_ == 0)
        line.remove_suffix(1);
    return Line::whole;
}

void MessageParser::release_line() {
    if (line_held_) {
        line_.clear();
        line_held_ = false;
    }
    line_cut_ = 0;
}

bool MessageParser::parse_start(std::string_view line) {
    head_.clear();
    head_.kind = kind_;
    if (kind_ == MessageKind::response) {
        // "HTTP/1.1 200 OK"; the reason may be missing, and its space with it.
        if (line.size() < 12 || !is_http1(line.substr(0, 8)) || line[8] != ' ')
            return false;
        for (int i = 9; i < 12; ++i) {
            if (line[i] < '0' || line[i] > '9')
                return false;
            head_.status = head_.status * 10 + (line[i] - '0');
        }
        if (head_.status < 100 || (line.size() > 12 && line[12] != ' '))
            return false;
        head_.version_minor = line[7] - '0';
        if (line.size() > 13)
            head_.reason = line.substr(13);
        return true;
    }
    const std::size_t method_end = line.find(' ');
    if (method_end == std::string_view::npos || !is_token(line.substr(0, method_end)))
        return false;
    // More than one space is an error that servers forgive (RFC 9112 3).
    const std::string_view rest = trim(line.substr(method_end + 1));
    if (line_cut_ > 0) { // a target that alone is longer than a head may be
        head_.target = rest;
        head_.absurd = true;
    } else {
        const std::size_t target_end = rest.rfind(' ');
        if (target_end == std::string_view::npos || target_end == 0 ||
            !is_http1(rest.substr(target_end + 1)))
            return false;
        head_.version_minor = rest.back() - '0';
        head_.target = trim(rest.substr(0, target_end));
        if (head_.target.find(' ') != std::string::npos)
            return false;
    }
    head_.method = line.substr(0, method_end);
    return true;
}

void MessageParser::parse_field(std::string_view line) {
    if (line_cut_ > 0 || wire_ > head_limit)
        head_.absurd = true;
    if (line[0] == ' ' || line[0] == '\t') { // folded, RFC 9112 5.2
        if (fold_ && !head_.fields.empty() && wire_ <= head_limit) {
            head_.fields.back().value += ' ';
            head_.fields.back().value += trim(line);
        }
        return;
    }
    fold_ = false;
    if (!keep_fields_ && !field_table[static_cast<unsigned char>(line[0])])
        return;
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0)
        return;
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = trim(line.substr(colon + 1));
    switch (name.size()) {
    case 4:
        if (same_name(name, "host") && head_.host.empty())
            head_.host = value;
        break;
    case 6:
        if (same_name(name, "expect"))
            head_.expect_continue = same_name(value, "100-continue");
        break;
    case 7:
        if (same_name(name, "upgrade")) {
            head_.upgrade = true;
            for_each_element(value, [&](std::string_view protocol) {
                head_.upgrade_h2c |= same_name(protocol, "h2c");
            });
        }
        break;
    case 10:
        if (same_name(name, "connection")) {
            for_each_element(value, [&](std::string_view option) {
                head_.close |= same_name(option, "close");
                head_.keep_alive |= same_name(option, "keep-alive");
            });
        }
        break;
    case 12:
        if (same_name(name, "content-type") && head_.content_type.empty())
            head_.content_type = value;
        break;
    case 14:
        if (same_name(name, "content-length")) {
            // The same length said twice is one length (RFC 9110 8.6); two lengths are an attack or
            // a bug. The first is taken, and the message marked.
            for_each_element(value, [&](std::string_view one) {
                const std::optional<std::uint64_t> length = parse_length(one);
                if (!length || (head_.content_length && head_.content_length != length))
                    head_.absurd = true;
                else
                    head_.content_length = length;
            });
        }
        break;
    case 16:
        if (same_name(name, "content-encoding")) {
            if (!head_.content_encoding.empty())
                head_.content_encoding += ',';
            head_.content_encoding += value;
        }
        break;
    case 17:
        if (same_name(name, "transfer-encoding")) {
            head_.transfer_coded = true;
            for_each_element(value, [&](std::string_view coding) {
                head_.chunked = same_name(trim(coding.substr(0, coding.find(';'))), "chunked");
            });
        }
        break;
    default: break;
    }
    if (keep_fields_ && wire_ <= head_limit) {
        head_.fields.push_back({std::string(name), std::string(value)});
        kept_ += sizeof(HeaderField) + line.size();
        fold_ = true;
    }
}

void MessageParser::finish_head(Time now) {
    head_.bytes = wire_;
    if (wire_ > head_limit || (head_.transfer_coded && head_.content_length))
        head_.absurd = true;
    const std::optional<std::uint64_t> length = head_.content_length;
    announced_ = true;
    tentative_ = loss_told_ = noise_told_ = false;
    fold_ = false;
    body_ = 0;
    kept_ = 0;
    switch (sink_->on_head(head_, begin_, now)) {
    case Framing::none: finish(MessageEnd::complete, now); break;
    case Framing::length:
        remaining_ = length.value_or(0);
        state_ = State::length;
        if (remaining_ == 0)
            finish(MessageEnd::complete, now);
        break;
    case Framing::chunked: state_ = State::chunk_size; break;
    case Framing::until_close: state_ = State::until_close; break;
    case Framing::tunnel:
        finish(MessageEnd::complete, now);
        state_ = State::tunnel;
        break;
    }
}

void MessageParser::finish(MessageEnd end, Time now) {
    const std::uint64_t wire = wire_;
    state_ = State::start;
    begun_ = false;
    wire_ = 0;
    remaining_ = 0;
    kept_ = 0;
    release_line();
    line_.clear();
    if (announced_) {
        announced_ = false;
        sink_->on_end(kind_, end, wire, std::exchange(body_, 0), now);
    }
}

void MessageParser::malformed(Time now) {
    const bool counted = !tentative_ || (!loss_told_ && !noise_told_ && sink_->is_due(kind_));
    if (announced_)
        finish(MessageEnd::unframed, now);
    release_line();
    begun_ = tentative_ = false;
    wire_ = 0;
    kept_ = 0;
    state_ = State::lost;
    noise_told_ |= counted;
    if (counted)
        sink_->on_malformed(kind_, now);
}

void MessageParser::lose(Time now) {
    if (announced_)
        finish(MessageEnd::unframed, now);
    release_line();
    line_.clear();
    begun_ = tentative_ = false;
    wire_ = 0;
    kept_ = 0;
    state_ = State::lost;
    loss_told_ = true;
    sink_->on_lost(kind_, now);
}

void MessageParser::forget(Time now) {
    if (state_ != State::tunnel)
        lose(now);
}

void MessageParser::body(std::string_view data) {
    wire_ += data.size();
    body_ += data.size();
    sink_->on_body(kind_, data);
}

void MessageParser::parse_chunk_size(std::string_view line, Time now) {
    std::uint64_t size = 0;
    std::size_t digits = 0;
    for (; digits < line.size(); ++digits) {
        const char c = lower(line[digits]);
        const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value < 0)
            break;
        if (size >> 60 != 0)
            return malformed(now);
        size = size << 4 | static_cast<std::uint64_t>(value);
    }
    const std::string_view rest = trim(line.substr(digits));
    if (digits == 0 || (!rest.empty() && rest[0] != ';'))
        return malformed(now);
    remaining_ = size;
    state_ = size > 0 ? State::chunk_data : State::trailers;
}

void MessageParser::data(std::string_view data, const Moment& moment) {
    const Time now = moment.time;
    const char* const first = data.data();
    rest_ = 0;
    const auto is_mine = [&](StartGuess guess) {
        return guess ==
               (kind_ == MessageKind::request ? StartGuess::request : StartGuess::response);
    };
    // A response has but one way to begin.
    const auto may_be_mine = [&](std::string_view text) {
        const StartGuess guess = guess_start(text);
        return is_mine(guess) ||
               (guess == StartGuess::maybe && (kind_ == MessageKind::request || text.size() < 7));
    };
    if (data.empty())
        return;
    switch (state_) {
    case State::lost: {
        data.remove_prefix(std::min(data.find_first_not_of("\r\n"), data.size()));
        if (data.empty())
            return;
        if (!may_be_mine(data)) {
            if (!loss_told_ && !noise_told_ && sink_->is_due(kind_)) {
                noise_told_ = true;
                sink_->on_malformed(kind_, now);
            }
            return;
        }
        state_ = State::start;
        tentative_ = true;
        break;
    }
    case State::unframed:
        if (is_mine(guess_start(data))) {
            finish(MessageEnd::unframed, last_);
            tentative_ = true;
            break;
        }
        last_ = now;
        wire_ += data.size();
        body_ += data.size();
        if (data.ends_with("\r\n0\r\n\r\n") || data == "0\r\n\r\n")
            finish(MessageEnd::unframed, now);
        return;
    case State::until_close:
        if (kind_ == MessageKind::response && is_mine(guess_start(data)) && sink_->awaits_another())
            finish(MessageEnd::cut, now);
        break;
    default: break;
    }
    std::string_view line;
    while (!data.empty()) {
        switch (state_) {
        case State::start:
            if (!begun_) {
                // Empty lines before a request are to be ignored (RFC 9112 2.2); some clients sent
                // them after a body.
                if (data[0] == '\r' || data[0] == '\n') {
                    data.remove_prefix(1);
                    continue;
                }
                begun_ = true;
                begin_ = moment;
                begin_.at += static_cast<std::uint32_t>(data.data() - first);
                wire_ = 0;
            }
            if (take_line(data, line) == Line::partial) {
                // A stream of something else may never have a line.
                if (tentative_ && !may_be_mine(line_))
                    malformed(now);
                return;
            }
            if (!parse_start(line))
                return malformed(now);
            release_line();
            state_ = State::fields;
            break;
        case State::fields:
            if (take_line(data, line) == Line::partial)
                return;
            if (line.empty() && line_cut_ == 0) {
                release_line();
                finish_head(now);
            } else {
                parse_field(line);
                release_line();
            }
            break;
        case State::length: {
            const std::size_t take = std::min<std::uint64_t>(remaining_, data.size());
            body(data.substr(0, take));
            data.remove_prefix(take);
            remaining_ -= take;
            if (remaining_ == 0)
                finish(MessageEnd::complete, now);
            break;
        }
        case State::chunk_size:
            if (take_line(data, line) == Line::partial) {
                if (line_.size() > chunk_line_limit)
                    malformed(now);
                return;
            }
            parse_chunk_size(line, now);
            if (state_ == State::lost)
                return;
            release_line();
            break;
        case State::chunk_data: {
            const std::size_t take = std::min<std::uint64_t>(remaining_, data.size());
            body(data.substr(0, take));
            data.remove_prefix(take);
            remaining_ -= take;
            if (remaining_ == 0)
                state_ = State::chunk_end;
            break;
        }
        case State::chunk_end:
            if (take_line(data, line) == Line::partial) {
                if (line_.size() > 1 || line_ != "\r")
                    malformed(now);
                return;
            }
            if (!line.empty())
                return malformed(now);
            release_line();
            state_ = State::chunk_size;
            break;
        case State::trailers: {
            if (take_line(data, line) == Line::partial)
                return;
            const bool last = line.empty() && line_cut_ == 0;
            release_line();
            if (last)
                finish(MessageEnd::complete, now);
            break;
        }
        case State::until_close: body(data); return;
        case State::tunnel: rest_ = data.size(); return;
        case State::lost:
        case State::unframed: return;
        }
    }
}

void MessageParser::gap(std::uint64_t length, Time now) {
    if (length == 0)
        return;
    last_ = now;
    switch (state_) {
    case State::length:
    case State::chunk_data: {
        const std::uint64_t take = std::min(length, remaining_);
        const bool sized = state_ == State::length;
        wire_ += take;
        body_ += take;
        remaining_ -= take;
        length -= take;
        if (remaining_ == 0) {
            if (sized)
                finish(MessageEnd::complete, now);
            else
                state_ = State::chunk_end;
        }
        if (length == 0)
            return;
        if (sized)
            return lose(now);
        wire_ += length;
        body_ += length;
        state_ = State::unframed;
        sink_->on_unframed(kind_);
        return;
    }
    case State::chunk_size:
    case State::chunk_end:
    case State::trailers:
        release_line();
        wire_ += length;
        body_ += length;
        state_ = State::unframed;
        sink_->on_unframed(kind_);
        return;
    case State::until_close:
    case State::unframed:
        wire_ += length;
        body_ += length;
        return;
    case State::lost:
        // It was said when the place was lost; but a direction begins without one.
        if (!std::exchange(loss_told_, true))
            sink_->on_lost(kind_, now);
        return;
    case State::tunnel: return;
    case State::start:
    case State::fields: return lose(now);
    }
}

void MessageParser::end_unframed() {
    if (state_ == State::unframed)
        finish(MessageEnd::unframed, last_);
}

void MessageParser::end_unframed_before(Time before) {
    if (last_ < before)
        end_unframed();
}

void MessageParser::abandon_body(Time now) {
    if (body_untouched())
        finish(MessageEnd::complete, now);
}

void MessageParser::close(Time now) {
    switch (state_) {
    case State::until_close: finish(MessageEnd::complete, now); break;
    case State::unframed: finish(MessageEnd::unframed, last_); break;
    case State::start:
    case State::fields:
        if (begun_ && !tentative_)
            malformed(now);
        break;
    default:
        if (announced_)
            finish(MessageEnd::cut, now);
        break;
    }
    state_ = State::tunnel;
}

} // namespace netctl::trace
