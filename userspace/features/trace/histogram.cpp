// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <string>

namespace netctl::trace {

std::size_t Histogram::slot_of(std::uint64_t value) {
    if (value < 1u << bits)
        return static_cast<std::size_t>(value);
    const unsigned power = static_cast<unsigned>(std::bit_width(value)) - 1;
    const std::size_t slot = (std::size_t{power - bits + 1} << bits) +
                             static_cast<std::size_t>(value >> (power - bits) & ((1u << bits) - 1));
    return std::min(slot, slot_count - 1);
}

std::uint64_t Histogram::begin_of(std::size_t slot) {
    if (slot < 1u << bits)
        return slot;
    const std::size_t shift = (slot >> bits) - 1;
    return ((std::uint64_t{1} << bits) + (slot & ((1u << bits) - 1))) << shift;
}

void Histogram::add(std::span<const std::uint32_t> counts) {
    for (std::size_t i = 0; i < std::min(counts.size(), slot_count); ++i)
        counts_[i] += counts[i];
}

void Histogram::add(const Histogram& other) {
    for (std::size_t i = 0; i < slot_count; ++i)
        counts_[i] += other.counts_[i];
}

void Histogram::subtract(const Histogram& earlier) {
    for (std::size_t i = 0; i < slot_count; ++i)
        counts_[i] -= std::min(counts_[i], earlier.counts_[i]);
}

std::uint64_t Histogram::count() const {
    return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
}

std::uint64_t Histogram::quantile(double part) const {
    const std::uint64_t all = count();
    if (all == 0)
        return 0;
    const auto wanted = std::max<std::uint64_t>(
        1, static_cast<std::uint64_t>(std::ceil(part * static_cast<double>(all))));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < slot_count; ++i) {
        seen += counts_[i];
        if (seen >= wanted)
            return begin_of(i + 1) - 1;
    }
    return begin_of(slot_count) - 1;
}

std::vector<Histogram::Slot> Histogram::slots() const {
    std::vector<Slot> slots;
    for (std::size_t i = 0; i < slot_count; ++i)
        if (counts_[i] != 0)
            slots.push_back({begin_of(i), begin_of(i + 1), counts_[i]});
    return slots;
}

Text Histogram::bars(double scale, const char* unit) const {
    Text text;
    const std::uint64_t most = *std::max_element(counts_.begin(), counts_.end());
    if (most == 0)
        return text;
    const auto used = [](std::uint64_t value) { return value != 0; };
    const auto first = std::find_if(counts_.begin(), counts_.end(), used) - counts_.begin();
    const auto last = counts_.rend() - std::find_if(counts_.rbegin(), counts_.rend(), used);
    constexpr std::uint64_t width = 40;
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
        // What is there at all has a bar.
        const std::uint64_t length = (counts_[i] * width + most - 1) / most;
        text += Text::format("{:>10.3f} - {:>10.3f} {} {:>10}  {}\n",
                             static_cast<double>(begin_of(i)) / scale,
                             static_cast<double>(begin_of(i + 1)) / scale, unit, counts_[i],
                             std::string(length, '#'));
    }
    return text;
}

} // namespace netctl::trace
