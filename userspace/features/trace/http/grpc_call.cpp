// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/grpc_call.hpp"

#include <algorithm>
#include <charconv>

namespace netctl::trace {

namespace {

constexpr std::array<std::string_view, 17> status_names = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

bool parse_number(std::string_view text, std::uint32_t& value) {
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    return status == std::errc{} && end == text.data() + text.size();
}

} // namespace

bool is_grpc_type(std::string_view content_type) {
    constexpr std::string_view type = "application/grpc";
    if (!content_type.starts_with(type))
        return false;
    content_type.remove_prefix(type.size());
    return content_type.empty() || content_type[0] == '+' || content_type[0] == ';';
}

std::string_view grpc_status_name(std::uint32_t status) {
    return status < status_names.size() ? status_names[status] : std::string_view();
}

std::optional<std::uint32_t> parse_grpc_status(std::string_view text) {
    std::uint32_t value = 0;
    if (parse_number(text, value))
        return value;
    const auto found = std::find(status_names.begin(), status_names.end(), text);
    if (text.empty() || found == status_names.end())
        return std::nullopt;
    return static_cast<std::uint32_t>(found - status_names.begin());
}

Time parse_grpc_timeout(std::string_view text) {
    std::uint32_t value = 0;
    constexpr std::size_t most_digits = 8;
    if (text.size() < 2 || text.size() > most_digits + 1 ||
        !parse_number(text.substr(0, text.size() - 1), value))
        return 0;
    switch (text.back()) {
    case 'H': return value * 3600 * second;
    case 'M': return value * 60 * second;
    case 'S': return value * second;
    case 'm': return value * (second / 1000);
    case 'u': return value * (second / 1000'000);
    case 'n': return value;
    default: return 0;
    }
}

std::string decode_grpc_message(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        if (text[i] == '%' && i + 2 < text.size()) {
            const auto [end, status] =
                std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
            if (status == std::errc{} && end == text.data() + i + 3) {
                out += static_cast<char>(value);
                i += 2;
                continue;
            }
        }
        out += text[i];
    }
    return out;
}

void GrpcMessages::data(std::string_view content) {
    while (known_ && !content.empty()) {
        if (left_ > 0) {
            const std::size_t take = std::min<std::uint64_t>(left_, content.size());
            left_ -= take;
            content.remove_prefix(take);
            continue;
        }
        const std::size_t take = std::min(prefix_size - have_, content.size());
        std::copy_n(content.begin(), take, prefix_.begin() + static_cast<std::ptrdiff_t>(have_));
        have_ += take;
        content.remove_prefix(take);
        // The flags say whether it is compressed, and nothing else.
        known_ = prefix_[0] <= 1;
        if (have_ < prefix_size)
            return;
        have_ = 0;
        ++count_;
        left_ = std::uint64_t{prefix_[1]} << 24 | prefix_[2] << 16 | prefix_[3] << 8 | prefix_[4];
    }
}

void GrpcMessages::skip(std::uint64_t length) {
    if (length <= left_)
        left_ -= length;
    else
        known_ = false;
}

} // namespace netctl::trace
