// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/profile.hpp"

#include <cstddef>
#include <cstring>
#include <vector>

#include "bpf/clock.hpp"
#include "profile.skel.h"
#include "sys/clock.hpp"

namespace netctl::trace::profile {

namespace {

using Skeleton = bpf::Skeleton<::profile>;

/// Hands out a record of the ring, or a value of `waiting`; what does not hold together is left out.
void hand_out(std::span<const std::byte> bytes, const ProfileTrace::OnSample& on_sample) {
    Sample sample;
    if (bytes.size() < sizeof sample.head)
        return;
    std::memcpy(&sample.head, bytes.data(), sizeof sample.head);
    const std::size_t kernel = sample.head.kernel_bytes / 8, user = sample.head.user_bytes / 8;
    if (bytes.size() < sizeof sample.head + 8 * (kernel + user))
        return;
    std::vector<std::uint64_t> frames(kernel + user);
    if (!frames.empty())
        std::memcpy(frames.data(), bytes.data() + sizeof sample.head, 8 * frames.size());
    sample.kernel = std::span(frames).first(kernel);
    sample.user = std::span(frames).subspan(kernel);
    on_sample(sample);
}

} // namespace

Result<ProfileTrace> ProfileTrace::start(const Request& request, const OnSample& on_sample) {
    bpf::capture_libbpf_messages();
    const auto skeleton = NETCTL_TRY(Skeleton::open());
    const bpf::Object object = skeleton.object();
    InstrumentPlan plan;
    plan.ring_bytes = request.ring_bytes;
    if (request.off_cpu)
        plan.programs = {"on_switch"};
    else {
        plan.probes = {"on_clock"};
        NETCTL_TRY(object.set_max_entries("waiting", 1));
    }
    ProfileTrace trace(NETCTL_TRY(Instrument::start(object, request.selection, plan,
                                                    [on_sample](std::span<const std::byte> bytes) {
                                                        hand_out(bytes, on_sample);
                                                    })),
                       on_sample);
    trace.off_cpu_ = request.off_cpu;
    trace.waiting_ = NETCTL_TRY(object.map("waiting"));
    if (!request.off_cpu)
        for (bpf::Link& link :
             NETCTL_TRY(bpf::attach_clock(NETCTL_TRY(object.program("on_clock")), request.hertz)))
            trace.instrument_.keep(std::move(link));
    return trace;
}

Result<std::uint64_t> ProfileTrace::stop() {
    NETCTL_TRY(instrument_.stop());
    if (!off_cpu_)
        return std::uint64_t{0};
    const auto now = static_cast<std::uint64_t>(sys::monotonic_now());
    const bpf::MapKeys keys = NETCTL_TRY(waiting_.keys());
    std::uint64_t count = 0;
    for (const std::uint8_t* key : keys) {
        nc_profile_stack stack{};
        if (!NETCTL_TRY(waiting_.lookup(key, &stack)))
            continue;
        stack.sample.amount = now - stack.sample.amount;
        hand_out(std::as_bytes(std::span(&stack, 1)), on_sample_);
        ++count;
    }
    return count;
}

} // namespace netctl::trace::profile
