// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "bpf/map.hpp"

namespace netctl::bpf {

/// One entry of a per-CPU map of counters, summed over the CPUs. All members of Counters are 64 bits wide.
template <class Counters> Result<Counters> sum_per_cpu(const RawMap& map, std::uint32_t key = 0) {
    static_assert(std::is_trivially_copyable_v<Counters> && sizeof(Counters) % 8 == 0);
    using Words = std::array<std::uint64_t, sizeof(Counters) / 8>;
    const std::vector<Words> cpus = NETCTL_TRY((lookup_per_cpu<std::uint32_t, Words>(map, key)));
    Words sum{};
    for (const Words& cpu : cpus)
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] += cpu[i];
    Counters counters;
    std::memcpy(&counters, sum.data(), sizeof counters);
    return counters;
}

} // namespace netctl::bpf
