// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/kernel_side.hpp"

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

namespace netctl::trace {

namespace {

Result<> fill_settings(const bpf::Object& object, const nc_http_config& config,
                       const Request& request) {
    const std::uint8_t one = 1;
    const bpf::RawMap ports = NETCTL_TRY(object.map("ports"));
    for (const std::uint32_t port : request.ports)
        NETCTL_TRY(ports.update(&port, &one));
    const std::uint32_t zero = 0;
    return NETCTL_TRY(object.map("settings")).update(&zero, &config);
}

} // namespace

Result<KernelSide> KernelSide::load(const bpf::Object& object, nc_http_config config,
                                    std::span<const char* const> pinned, const Request& request,
                                    const RootOptions& root, RecordReader::Handler handler) {
    config.abi_version = NC_ABI_VERSION;
    if (!request.ports.empty())
        config.select |= NC_HTTP_SELECT_PORT;
    if (request.ring_bytes != 0)
        NETCTL_TRY(object.set_max_entries("events", request.ring_bytes));
    NETCTL_TRY(object.load());
    NETCTL_TRY(fill_settings(object, config, request));
    bpf::RawMap counters = NETCTL_TRY(object.map("counters"));
    auto reader =
        NETCTL_TRY(RecordReader::open(NETCTL_TRY(object.map("events")), std::move(handler)));
    TracerPins pins = NETCTL_TRY(TracerPins::make(root, object, pinned));
    return KernelSide(std::move(counters), std::move(reader), std::move(pins));
}

Result<Counters> KernelSide::counters() const {
    // All members are of one type: add them up as an array.
    using Words = std::array<__u64, sizeof(nc_http_counters) / sizeof(__u64)>;
    Words sum{};
    const std::vector<Words> cpus =
        NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, Words>(counters_, 0)));
    for (const Words& cpu : cpus)
        for (std::size_t i = 0; i < sum.size(); ++i)
            sum[i] += cpu[i];
    Counters counters;
    std::memcpy(&counters.kernel, sum.data(), sizeof counters.kernel);
    counters.received = reader_->received();
    return counters;
}

} // namespace netctl::trace
