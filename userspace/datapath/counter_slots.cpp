// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/counter_slots.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <span>

#include "bpf/standalone.hpp"
#include "netctl/abi/rule.h"

namespace netctl::datapath {

void assign_slots(std::vector<InstalledRule>& rules, const std::vector<InstalledRule>* previous) {
    std::vector<bool> used;
    const auto mark = [&](const InstalledRule& installed) {
        if (installed.slot >= NC_COUNTER_CHUNK * NC_COUNTER_CHUNKS)
            return; // none yet
        if (used.size() <= installed.slot)
            used.resize(std::size_t{installed.slot} + 1);
        used[installed.slot] = true;
    };
    std::for_each(rules.begin(), rules.end(), mark);
    if (previous)
        std::for_each(previous->begin(), previous->end(), mark);
    std::uint32_t candidate = 0;
    for (InstalledRule& installed : rules) {
        if (installed.slot != not_installed)
            continue;
        while (candidate < used.size() && used[candidate])
            candidate++;
        installed.slot = candidate++;
    }
}

namespace {

/// Makes those chunks of counters that are not there, all in one write: each one waits for a grace period.
/// Returns their numbers, sorted.
Result<std::vector<std::uint32_t>> add_chunks(const bpf::RawMap& counters,
                                              const std::set<std::uint32_t>& wanted,
                                              const CounterKind& kind) {
    std::vector<std::uint32_t> missing;
    for (const std::uint32_t number : wanted) {
        std::uint32_t id = 0;
        if (number >= NC_COUNTER_CHUNKS)
            return Error::failed("there are no more counters for rules");
        if (!NETCTL_TRY(counters.lookup(&number, &id)))
            missing.push_back(number);
    }
    const std::vector<bpf::RawMap> chunks =
        NETCTL_TRY(bpf::create_standalone(kind.chunk, NC_COUNTER_CHUNK, missing.size()));
    std::vector<int> fds;
    for (const bpf::RawMap& chunk : chunks)
        fds.push_back(chunk.fd());
    NETCTL_TRY(counters.update_batch(missing.data(), fds.data(),
                                     static_cast<std::uint32_t>(fds.size()), sizeof missing[0],
                                     sizeof fds[0]));
    return missing;
}

} // namespace

Result<> prepare_counters(const bpf::RawMap& counters, const std::vector<InstalledRule>& rules,
                          const std::vector<InstalledRule>* previous, const CounterKind& kind) {
    std::vector<std::uint32_t> kept;
    if (previous)
        for (const InstalledRule& installed : *previous)
            kept.push_back(installed.slot);
    std::sort(kept.begin(), kept.end());
    // By chunk, the slots that rules get and none had.
    std::map<std::uint32_t, std::vector<std::uint32_t>> taken;
    std::set<std::uint32_t> wanted;
    for (const InstalledRule& installed : rules) {
        const std::uint32_t number = installed.slot / NC_COUNTER_CHUNK;
        wanted.insert(number);
        if (!std::binary_search(kept.begin(), kept.end(), installed.slot))
            taken[number].push_back(installed.slot % NC_COUNTER_CHUNK);
    }
    const std::vector<std::uint32_t> fresh = NETCTL_TRY(add_chunks(counters, wanted, kind));
    const std::vector<std::byte> zeroes(bpf::possible_cpus() * kind.size);
    for (const auto& [number, slots] : taken) {
        if (std::binary_search(fresh.begin(), fresh.end(), number))
            continue; // all zeroes
        std::uint32_t id = 0;
        NETCTL_TRY(counters.lookup(&number, &id));
        const bpf::RawMap chunk = NETCTL_TRY(bpf::RawMap::open_id(id));
        for (const std::uint32_t slot : slots)
            NETCTL_TRY(chunk.update(&slot, zeroes.data()));
    }
    return {};
}

} // namespace netctl::datapath
