// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tcp/connections.hpp"

#include <cctype>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "bpf/object.hpp"
#include "bpf/probe.hpp"
#include "netctl/abi/trace_rtt.h"
#include "tcp_connections.skel.h"

namespace netctl::trace::tcp {

namespace {

std::map<std::uint32_t, std::string> names_of(const bpf::KernelTypes& types,
                                              const std::string& type, std::string_view prefix) {
    std::map<std::uint32_t, std::string> names = types.enum_names(type);
    for (auto& [value, name] : names) {
        if (name.starts_with(prefix))
            name.erase(0, prefix.size());
        for (char& c : name)
            c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return names;
}

} // namespace

Result<Connections> trace_connections(const ConnectionsRequest& request, OnEvent on_event) {
    bpf::capture_libbpf_messages();
    auto skeleton = NETCTL_TRY(bpf::Skeleton<tcp_connections>::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(object.set_autocreate("groups", false));
    const std::uint32_t wanted = 1u << request.kind;
    NETCTL_TRY(object.set_constant("wanted", std::span(&wanted, 1)));
    NETCTL_TRY(object.set_rodata("min_ns", std::as_bytes(std::span(&request.min_ns, 1))));
    InstrumentPlan plan;
    plan.ring_bytes = request.ring_bytes;
    std::map<std::uint32_t, std::string> reasons;
    if (request.kind == NC_TCP_CLOSE || request.kind == NC_TCP_RESET) {
        const auto types = NETCTL_TRY(bpf::KernelTypes::load());
        const bool reasoned = types.tracepoint_arguments("tcp_send_reset").value_or(0) > 2;
        plan.programs = {"tcp_reset_in", reasoned ? "tcp_reset_why" : "tcp_reset_out"};
        if (reasoned)
            reasons = names_of(types, "sk_rst_reason", "SK_RST_REASON_");
    } else if (request.kind == NC_TCP_RETRANSMIT) {
        plan.programs = {"tcp_again", "tcp_again_synack"};
    } else if (request.kind == NC_TCP_DROP) {
        plan.programs = {"tcp_drop"};
        reasons =
            names_of(NETCTL_TRY(bpf::KernelTypes::load()), "skb_drop_reason", "SKB_DROP_REASON_");
    }
    // Whoever is asked about: it is what takes down the owners.
    plan.programs.emplace_back("tcp_state");
    // An attempt that is older than the tracer has no beginning, and is not told.
    if (request.kind != NC_TCP_CONNECT)
        plan.iterators = {"tcp_owners"};
    auto instrument = NETCTL_TRY(
        Instrument::start(object, request.selection, plan,
                          [on_event = std::move(on_event)](std::span<const std::byte> bytes) {
                              nc_tcp_event event;
                              if (bytes.size() < sizeof event)
                                  return;
                              std::memcpy(&event, bytes.data(), sizeof event);
                              on_event(event);
                          }));
    return Connections{std::move(instrument), std::move(reasons)};
}

Result<RoundTrips> count_round_trips(const Selection& selection, std::uint32_t by) {
    bpf::capture_libbpf_messages();
    auto skeleton = NETCTL_TRY(bpf::Skeleton<tcp_connections>::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(object.set_constant("group_by", std::span(&by, 1)));
    InstrumentPlan plan;
    plan.ring_bytes = 64 * 1024; // in which nothing comes
    plan.programs = {"tcp_state", "tcp_rtt"};
    plan.iterators = {"tcp_owners"};
    auto instrument =
        NETCTL_TRY(Instrument::start(object, selection, plan, [](std::span<const std::byte>) {}));
    return RoundTrips{std::move(instrument), NETCTL_TRY(object.map("groups"))};
}

Result<Instrument> look_at_listeners(const Selection& selection,
                                     std::function<void(const nc_tcp_listener&)> on_listener) {
    bpf::capture_libbpf_messages();
    auto skeleton = NETCTL_TRY(bpf::Skeleton<tcp_connections>::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(object.set_autocreate("groups", false));
    InstrumentPlan plan;
    plan.ring_bytes = 4 * 1024 * 1024;
    plan.iterators = {"tcp_listeners"};
    return Instrument::start(
        object, selection, plan,
        [on_listener = std::move(on_listener)](std::span<const std::byte> bytes) {
            nc_tcp_listener listener;
            if (bytes.size() < sizeof listener)
                return;
            std::memcpy(&listener, bytes.data(), sizeof listener);
            on_listener(listener);
        });
}

} // namespace netctl::trace::tcp
