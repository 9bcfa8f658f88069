// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/map_count.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include <bpf/bpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

Result<std::size_t> count_keys(const RawMap& map) {
    const MapInfo info = NETCTL_TRY(map_info(map.fd()));
    constexpr std::uint32_t at_once = 4096; // more than a bucket of a hash has
    std::vector<std::uint8_t> keys(std::size_t{info.key_size} * at_once);
    std::vector<std::uint8_t> values(std::size_t{info.value_size} * at_once);
    // Where the next batch begins: a bucket's number or a key, as the kind of map has it.
    std::vector<std::uint8_t> at(std::max<std::size_t>(info.key_size, 4)), next(at.size());
    std::size_t total = 0;
    for (bool first = true;; first = false) {
        std::uint32_t got = at_once;
        const int failed = bpf_map_lookup_batch(map.fd(), first ? nullptr : at.data(), next.data(),
                                                keys.data(), values.data(), &got, nullptr);
        if (failed != 0 && failed != -ENOENT)
            return Error::system(-failed, fmt::format("cannot read map {}", map.name()));
        total += got;
        if (failed != 0 || total > info.max_entries) // it changes faster than it is read
            return std::min<std::size_t>(total, info.max_entries);
        at.swap(next);
    }
}

} // namespace netctl::bpf
