// SPDX-License-Identifier: GPL-2.0-only
//
// Which transactions a user wants to see, by what is only known of whole ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

/// An inclusive range of status codes: `404`, `5xx`, `400-499`.
struct StatusRange {
    int low = 0;
    int high = 0;
};

/// `404,5xx,200-299`. The error says what a list holds.
Result<std::vector<StatusRange>> parse_status_list(std::string_view text);

/// Statuses of gRPC: `5,NOT_FOUND`, or, with an exclamation mark before the list, all but these.
struct GrpcStatuses {
    std::vector<std::uint32_t> statuses;
    bool others = false;

    /// A call that ended without a status has none of them.
    bool matches(const Transaction& transaction) const;
};
/// The error says what a list holds.
Result<GrpcStatuses> parse_grpc_statuses(std::string_view text);

struct Filter {
    std::string host;        ///< exact, port and case left aside; empty: any
    std::string path_prefix; ///< of the path, also of targets in absolute form
    std::vector<std::string> methods;
    std::vector<StatusRange> statuses;
    std::optional<GrpcStatuses> grpc; ///< also leaves out what is no gRPC
    std::string
        container; ///< of either process, see Container::is_called; `any`; empty: also those of none
    Time min_latency = 0; ///< nanoseconds to the response's first byte

    bool matches(const Transaction& transaction) const;
};

/// The target's path with its query: of `http://host/path` and `*`, too.
std::string_view path_of(std::string_view target);
/// The host asked for: the Host field, or that of a target in absolute form.
std::string_view host_of(const Transaction& transaction);

} // namespace netctl::trace
