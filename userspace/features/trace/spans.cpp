// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/spans.hpp"

#include <fmt/format.h>

namespace netctl::trace {

std::string span_text(std::uint64_t ns) {
    const auto value = static_cast<double>(ns);
    if (ns < 1'000)
        return fmt::format("{}ns", ns);
    if (ns < 1'000'000)
        return fmt::format("{:.1f}us", value / 1e3);
    if (ns < 1'000'000'000)
        return fmt::format("{:.3f}ms", value / 1e6);
    return fmt::format("{:.3f}s", value / 1e9);
}

Text span_bars(const Histogram& histogram) {
    const std::uint64_t most = histogram.quantile(1);
    if (most < 1'000'000)
        return histogram.bars(1e3, "us");
    return most < 10'000'000'000 ? histogram.bars(1e6, "ms") : histogram.bars(1e9, "s");
}

void add_spans(Json& json, const Histogram& histogram) {
    json["p50_ns"] = histogram.quantile(0.5);
    json["p90_ns"] = histogram.quantile(0.9);
    json["p99_ns"] = histogram.quantile(0.99);
    json["max_ns"] = histogram.quantile(1);
    json["histogram"] = Json::array();
    for (const Histogram::Slot& slot : histogram.slots())
        json["histogram"].push_back(
            {{"from_ns", slot.from}, {"below_ns", slot.below}, {"calls", slot.count}});
}

} // namespace netctl::trace
