// SPDX-License-Identifier: GPL-2.0-only
//
// Transactions summed up by host and route, and the live table of them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

/// Counts of durations in buckets whose width is an eighth of their value: quantiles are at most
/// 12.5% off, from 1 us to hours, in half a kilobyte.
class Durations {
  public:
    void add(Time duration);
    /// The upper end of the bucket with the given part, 0 to 1, of the durations at or below it;
    /// 0 if there are none.
    Time quantile(double part) const;
    std::uint64_t count() const { return count_; }

  private:
    static constexpr unsigned sub_bits = 3;
    static constexpr unsigned buckets = 40 << sub_bits;
    std::array<std::uint32_t, buckets> counts_{};
    std::uint64_t count_ = 0;
};

/// The path without its query, and with `:id` for segments that are numbers, UUIDs or long
/// hexadecimal strings.
std::string route_of(std::string_view target);

enum class TopOrder { requests, errors, p50, p95, p99, bytes, route };

class RouteTable {
  public:
    /// Beyond these, routes are summed up as one.
    static constexpr std::size_t route_limit = 5000;

    void add(const Transaction& transaction);
    /// The table as lines for a terminal of that size. Rates are those
    /// since the previous call; `now` is in nanoseconds on any clock.
    std::vector<Text> render(unsigned columns, unsigned rows, TopOrder order, Time now,
                             const Text& title);

  private:
    struct Route {
        std::string host;
        std::string path;
        std::uint64_t requests = 0;
        std::uint64_t before = 0; ///< requests at the previous render
        std::uint64_t errors = 0; ///< 5xx, and no answer
        std::uint64_t bytes = 0;
        Durations durations;
    };
    std::unordered_map<std::string, Route> routes_;
    Time rendered_ = 0;
};

} // namespace netctl::trace
