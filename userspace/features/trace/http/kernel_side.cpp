// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/kernel_side.hpp"

#include <utility>

#include "bpf/per_cpu_sum.hpp"
#include "core/abi_version.hpp"

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
    config.abi_version = abi_version();
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
    Counters counters;
    counters.kernel = NETCTL_TRY(bpf::sum_per_cpu<nc_http_counters>(counters_));
    counters.received = reader_->received();
    return counters;
}

} // namespace netctl::trace
