// SPDX-License-Identifier: GPL-2.0-only
//
// Histograms of spans of time as instruments show them.
#pragma once

#include <cstdint>
#include <string>

#include "core/json.hpp"
#include "core/text.hpp"
#include "features/trace/histogram.hpp"

namespace netctl::trace {

/// `812ns`, `12.3us`, `4.567ms`, `1.234s`.
std::string span_text(std::uint64_t ns);
/// Its bars, in the unit that its values ask for; the histogram is of nanoseconds.
Text span_bars(const Histogram& histogram);
/// `p50_ns` to `max_ns` and `histogram`, a list of `from_ns`, `below_ns` and `calls`.
void add_spans(Json& json, const Histogram& histogram);

} // namespace netctl::trace
