// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/filter.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "features/trace/container.hpp"
#include "features/trace/http/grpc_call.hpp"
#include "features/trace/number_list.hpp"

namespace netctl::trace {

namespace {

bool same_without_case(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view without_port(std::string_view host) {
    if (!host.empty() && host[0] == '[')
        return host.substr(0, host.find(']') + 1);
    return host.substr(0, host.find(':'));
}

} // namespace

Result<std::vector<StatusRange>> parse_status_list(std::string_view text) {
    std::vector<StatusRange> ranges;
    for (std::string_view part : split_list(text)) {
        StatusRange range;
        if (part.size() == 3 && part[0] >= '1' && part[0] <= '5' && part.substr(1) == "xx") {
            range.low = (part[0] - '0') * 100;
            range.high = range.low + 99;
        } else if (!parse_range(part, 100, 999, range.low, range.high)) {
            return Error::usage(fmt::format("'{}' is no status", part),
                                "404, 5xx, 400-403, or several with commas between them");
        }
        ranges.push_back(range);
    }
    return ranges;
}

Result<GrpcStatuses> parse_grpc_statuses(std::string_view text) {
    GrpcStatuses wanted;
    wanted.others = text.starts_with('!');
    if (wanted.others)
        text.remove_prefix(1);
    for (const std::string_view part : split_list(text)) {
        const auto status = parse_grpc_status(part);
        if (!status)
            return Error::usage(fmt::format("'{}' is no status of gRPC", part),
                                "0, NOT_FOUND, several with commas between them, or !0 for all "
                                "others");
        wanted.statuses.push_back(*status);
    }
    return wanted;
}

bool GrpcStatuses::matches(const Transaction& transaction) const {
    if (!transaction.grpc)
        return false;
    const auto& status = transaction.grpc->status;
    const bool listed =
        status && std::find(statuses.begin(), statuses.end(), *status) != statuses.end();
    return listed != others;
}

std::string_view path_of(std::string_view target) {
    const std::size_t scheme = target.find("://");
    if (scheme == std::string_view::npos || target[0] == '/')
        return target;
    const std::size_t slash = target.find('/', scheme + 3);
    return slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
}

std::string_view host_of(const Transaction& transaction) {
    const std::string_view target = transaction.target;
    const std::size_t scheme = target.find("://");
    if (scheme == std::string_view::npos || target[0] == '/')
        return transaction.host;
    const std::string_view rest = target.substr(scheme + 3);
    return rest.substr(0, rest.find('/'));
}

bool Filter::matches(const Transaction& transaction) const {
    const Process* const processes[] = {&transaction.client_process, &transaction.server_process};
    const auto in_container = [&](const Process* process) {
        return process->container &&
               (container == "any" || process->container->is_called(container));
    };
    if (!host.empty()) {
        const std::string_view asked = host_of(transaction);
        if (!same_without_case(asked, host) && !same_without_case(without_port(asked), host))
            return false;
    }
    if (!path_prefix.empty() && !path_of(transaction.target).starts_with(path_prefix))
        return false;
    if (!methods.empty() &&
        std::find(methods.begin(), methods.end(), transaction.method) == methods.end())
        return false;
    if (!container.empty() &&
        std::none_of(std::begin(processes), std::end(processes), in_container))
        return false;
    if (!statuses.empty() &&
        std::none_of(statuses.begin(), statuses.end(), [&](const StatusRange& range) {
            return range.low <= transaction.status && transaction.status <= range.high;
        }))
        return false;
    if (grpc && !grpc->matches(transaction))
        return false;
    return transaction.latency() >= min_latency;
}

} // namespace netctl::trace
