// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/transaction.hpp"

#include <array>

namespace netctl::trace {

std::string_view reset_name(std::uint32_t code) {
    constexpr std::array<std::string_view, 14> names = {
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    };
    return code < names.size() ? names[code] : std::string_view();
}

std::string Transaction::client_name() const {
    if (!placed)
        return "-";
    return unix_path ? "unix" : client.to_string();
}

std::string Transaction::server_name() const {
    if (!placed)
        return "-";
    if (!unix_path)
        return server.to_string();
    const bool abstract = unix_path->starts_with('\0');
    return (abstract ? "unix:@" : "unix:") + unix_path->substr(abstract ? 1 : 0);
}

void count_told(ParserCounters& counters, const Transaction& transaction) {
    if (!transaction.request.seen)
        ++counters.unasked;
    if (transaction.waiting)
        ++counters.unfinished;
    else if (!transaction.response.seen)
        ++counters.unanswered;
    if (transaction.guessed)
        ++counters.guessed;
    ++counters.transactions;
}

} // namespace netctl::trace
