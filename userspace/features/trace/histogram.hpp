// SPDX-License-Identifier: GPL-2.0-only
//
// How often values of each size came, in slots that are at most an eighth of their values wide.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/text.hpp"

namespace netctl::trace {

/// Whole numbers from 0 on: values below 8 have a slot each, and each power of two above has 8, as the kernel
/// side counts them (abi/trace_rtt.h, abi/trace_func.h), which may have fewer. Quantiles are told by the upper end of their slot, so at most 12.5 % too high.
class Histogram {
  public:
    static constexpr unsigned bits = 3;
    static constexpr std::size_t slot_count = (40 - bits + 1) << bits;

    struct Slot {
        std::uint64_t from = 0;  ///< the least value in it
        std::uint64_t below = 0; ///< the least value above it
        std::uint64_t count = 0;
    };

    /// Values too large for the last slot are counted there.
    static std::size_t slot_of(std::uint64_t value);
    static std::uint64_t begin_of(std::size_t slot);

    /// Counts of the first slots, as read from the kernel.
    void add(std::span<const std::uint32_t> counts);
    void add(const Histogram& other);
    /// Takes away what was there before; of counts that only grow.
    void subtract(const Histogram& earlier);

    std::uint64_t count() const;
    /// The greatest value of the slot in which the part, 0 to 1, of all values is reached; 0 if there are none.
    std::uint64_t quantile(double part) const;
    /// The slots that are not empty, by their values.
    std::vector<Slot> slots() const;
    /// Lines with a bar for each slot between the first and the last that are not empty; `scale` divides values
    /// for `unit`.
    Text bars(double scale, const char* unit) const;

  private:
    std::array<std::uint64_t, slot_count> counts_{};
};

} // namespace netctl::trace
