// SPDX-License-Identifier: GPL-2.0-only
//
// Where a connection's requests began, by which its two ends know each other.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace netctl::trace {

/// Sequence numbers of requests' first bytes: those of the first ones are remembered for good, and of the latest.
class RequestNumbers {
  public:
    void remember(std::uint32_t at) {
        constexpr std::size_t half = remembered / 2;
        const std::uint64_t number = count_++;
        at_[number < remembered ? number : half + number % half] = at;
    }
    bool has(std::uint32_t at) const {
        const auto end =
            at_.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(count_, remembered));
        return std::find(at_.begin(), end, at) != end;
    }

  private:
    static constexpr std::size_t remembered = 32;

    std::array<std::uint32_t, remembered> at_{};
    std::uint64_t count_ = 0;
};

} // namespace netctl::trace
