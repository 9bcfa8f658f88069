// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/rtt.hpp"

#include <cstring>
#include <span>
#include <utility>

#include "features/trace/tcp/connections.hpp"

namespace netctl::trace::tcp {

void RttValues::add(const RttValues& other) {
    samples += other.samples;
    sum_us += other.sum_us;
    deviation_sum_us += other.deviation_sum_us;
    if (other.min_us != 0 && (min_us == 0 || other.min_us < min_us))
        min_us = other.min_us;
    histogram.add(other.histogram);
}

void RttValues::subtract(const RttValues& earlier) {
    samples -= earlier.samples;
    sum_us -= earlier.sum_us;
    deviation_sum_us -= earlier.deviation_sum_us;
    histogram.subtract(earlier.histogram);
}

bool RttOrder::operator()(const nc_rtt_group& a, const nc_rtt_group& b) const {
    return std::memcmp(&a, &b, sizeof a) < 0;
}

Result<RttTrace> RttTrace::start(const Selection& selection, std::uint32_t by) {
    // A selected container is found by its cgroup.
    if (!selection.container.empty())
        by |= NC_RTT_BY_CGROUP;
    auto [instrument, groups] = NETCTL_TRY(count_round_trips(selection, by));
    return RttTrace(std::move(instrument), std::move(groups));
}

Result<RttGroups> RttTrace::read() const {
    RttGroups groups;
    const bpf::MapKeys keys = NETCTL_TRY(groups_.keys());
    for (const std::uint8_t* bytes : keys) {
        nc_rtt_group key;
        std::memcpy(&key, bytes, sizeof key);
        RttValues sum;
        const auto cpus =
            NETCTL_TRY((bpf::lookup_per_cpu<nc_rtt_group, nc_rtt_values>(groups_, key)));
        for (const nc_rtt_values& cpu : cpus) {
            RttValues one{cpu.samples, cpu.sum_us, cpu.deviation_sum_us, cpu.min_us, {}};
            one.histogram.add(cpu.slots);
            sum.add(one);
        }
        groups.emplace(key, sum);
    }
    return groups;
}

} // namespace netctl::trace::tcp
