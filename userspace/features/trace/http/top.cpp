// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/top.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <vector>

#include <fmt/format.h>

#include "features/trace/http/filter.hpp"

namespace netctl::trace {

namespace {

std::string duration_text(Time time) {
    const double ms = static_cast<double>(time) / 1e6;
    return ms < 10    ? fmt::format("{:.2f}", ms)
           : ms < 100 ? fmt::format("{:.1f}", ms)
                      : fmt::format("{:.0f}", ms);
}

std::string bytes_text(std::uint64_t bytes) {
    double value = static_cast<double>(bytes);
    for (const char* unit : {"", "K", "M", "G"}) {
        if (value < 1000)
            return fmt::format("{:.{}f}{}", value, value < 10 && *unit ? 1 : 0, unit);
        value /= 1024;
    }
    return fmt::format("{:.0f}T", value);
}

} // namespace

void Durations::add(Time duration) {
    const std::uint64_t us = std::max<std::uint64_t>(duration / 1000, 1);
    const unsigned width = static_cast<unsigned>(std::bit_width(us));
    unsigned index = 0;
    if (width <= sub_bits)
        index = static_cast<unsigned>(us);
    else
        index = ((width - sub_bits) << sub_bits) |
                (static_cast<unsigned>(us >> (width - 1 - sub_bits)) & ((1u << sub_bits) - 1));
    ++counts_[std::min(index, buckets - 1)];
    ++count_;
}

Time Durations::quantile(double part) const {
    if (count_ == 0)
        return 0;
    const auto rank = static_cast<std::uint64_t>(part * static_cast<double>(count_ - 1)) + 1;
    std::uint64_t seen = 0;
    for (unsigned i = 0; i < buckets; ++i) {
        seen += counts_[i];
        if (seen < rank)
            continue;
        if (i < (1u << sub_bits))
            return Time{i} * 1000;
        const unsigned shift = (i >> sub_bits) - 1;
        const std::uint64_t mantissa = (i & ((1u << sub_bits) - 1)) + (1u << sub_bits);
        return ((mantissa + 1) << shift) * 1000;
    }
    return 0;
}

std::string route_of(std::string_view target) {
    std::string_view path = path_of(target);
    path = path.substr(0, path.find_first_of("?#"));
    std::string route;
    while (!path.empty()) {
        const bool slash = path[0] == '/';
        if (slash) {
            route += '/';
            path.remove_prefix(1);
        }
        const std::string_view segment = path.substr(0, path.find('/'));
        path.remove_prefix(segment.size());
        const auto all = [&](auto test) {
            return !segment.empty() && std::all_of(segment.begin(), segment.end(), test);
        };
        const bool number = all([](unsigned char c) { return std::isdigit(c) != 0; });
        const bool identifier = segment.size() >= 16 && all([](unsigned char c) {
                                    return std::isxdigit(c) != 0 || c == '-';
                                });
        route += number || identifier ? std::string_view(":id") : segment;
    }
    return route;
}

void RouteTable::add(const Transaction& transaction) {
    std::string host(host_of(transaction));
    if (host.empty())
        host = transaction.server_name();
    std::string path = transaction.method.empty() ? "?" : route_of(transaction.target);
    std::string key = host + '\0' + path;
    if (routes_.size() >= route_limit && !routes_.contains(key)) {
        host = "(others)";
        path = "";
        key = host;
    }
    Route& route = routes_[key];
    if (route.requests == 0) {
        route.host = std::move(host);
        route.path = std::move(path);
    }
    ++route.requests;
    if (transaction.status >= 500 || !transaction.response.seen)
        ++route.errors;
    route.bytes += transaction.request.wire_bytes + transaction.response.wire_bytes;
    if (transaction.request.seen && transaction.response.seen)
        route.durations.add(transaction.duration());
}

std::vector<Text> RouteTable::render(unsigned columns, unsigned rows, TopOrder order, Time now,
                                     const Text& title) {
    const double seconds =
        rendered_ != 0 && now > rendered_ ? static_cast<double>(now - rendered_) / 1e9 : 0.0;
    struct Row {
        const Route* route;
        double rate;
        Time p50, p95, p99;
    };
    std::vector<Row> sorted;
    for (auto& [key, route] : routes_) {
        const double rate =
            seconds > 0 ? static_cast<double>(route.requests - route.before) / seconds : 0.0;
        route.before = route.requests;
        sorted.push_back({&route, rate, route.durations.quantile(0.5),
                          route.durations.quantile(0.95), route.durations.quantile(0.99)});
    }
    rendered_ = now;
    constexpr unsigned least_columns = 64, least_rows = 4;
    if (columns < least_columns || rows < least_rows)
        return {Text("the terminal is too small").first_columns(columns)};
    std::sort(sorted.begin(), sorted.end(), [&](const Row& a, const Row& b) {
        const auto key = [&](const Row& row) -> double {
            switch (order) {
            case TopOrder::requests:
                return row.rate * 1e12 + static_cast<double>(row.route->requests);
            case TopOrder::errors: return static_cast<double>(row.route->errors);
            case TopOrder::p50: return static_cast<double>(row.p50);
            case TopOrder::p95: return static_cast<double>(row.p95);
            case TopOrder::p99: return static_cast<double>(row.p99);
            case TopOrder::bytes: return static_cast<double>(row.route->bytes);
            case TopOrder::route: return 0;
            }
            return 0;
        };
        const double x = key(a), y = key(b);
        if (x != y)
            return x > y;
        return std::tie(a.route->host, a.route->path) < std::tie(b.route->host, b.route->path);
    });
    std::vector<Text> lines{title.first_columns(columns)};
    const auto mark = [&](TopOrder one, const char* name) {
        return order == one ? std::string("*") + name : std::string(name);
    };
    Text head =
        Text::format("{:>9} {:>9} {:>7} {:>8} {:>8} {:>8} {:>6}  ",
                     mark(TopOrder::requests, "req/s"), "total", mark(TopOrder::errors, "errors"),
                     mark(TopOrder::p50, "p50 ms"), mark(TopOrder::p95, "p95 ms"),
                     mark(TopOrder::p99, "p99 ms"), mark(TopOrder::bytes, "bytes"));
    head += mark(TopOrder::route, "route");
    lines.push_back(head.first_columns(columns));
    const std::size_t shown = std::min<std::size_t>(sorted.size(), rows - 3);
    for (std::size_t i = 0; i < shown; ++i) {
        const Row& row = sorted[i];
        Text line = Text::format("{:>9.1f} {:>9} {:>7} {:>8} {:>8} {:>8} {:>6}  ", row.rate,
                                 row.route->requests, row.route->errors, duration_text(row.p50),
                                 duration_text(row.p95), duration_text(row.p99),
                                 bytes_text(row.route->bytes));
        line += Text::format("{}{}", row.route->host, row.route->path);
        lines.push_back(line.first_columns(columns));
    }
    if (shown < sorted.size())
        lines.push_back(Text::format("{} more", sorted.size() - shown));
    return lines;
}

} // namespace netctl::trace
