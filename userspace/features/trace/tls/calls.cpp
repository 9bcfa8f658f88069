// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tls/calls.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/object.hpp"
#include "bpf/probe.hpp"
#include "features/trace/tcp/tcp_render.hpp"
#include "tls_handshakes.skel.h"

namespace netctl::trace::tls {

namespace {

Process process_of(const nc_trace_owner& owner) {
    return {owner.pid, std::string(owner.comm, strnlen(owner.comm, sizeof owner.comm)), nullptr};
}

HandshakeReader::Side side_of(const nc_tls_record& record) {
    return record.direction == NC_TLS_SENT ? HandshakeReader::a : HandshakeReader::b;
}

} // namespace

void CallHandshakes::record(std::span<const std::byte> bytes) {
    nc_tls_record record;
    if (bytes.size() < sizeof record)
        return;
    std::memcpy(&record, bytes.data(), sizeof record);
    bytes = bytes.subspan(sizeof record);
    const Time now = last_ = record.time_ns + clock_offset_;
    if (record.kind == NC_TLS_DTLS || record.kind == NC_TLS_QUIC) {
        const auto protocol =
            record.kind == NC_TLS_DTLS ? Undecoded::Protocol::dtls : Undecoded::Protocol::quic;
        const nc_trace_ends& ends = record.ends;
        undecoded_.add(protocol, tcp::end_of(ends.family, ends.local, ends.local_port),
                       tcp::end_of(ends.family, ends.remote, ends.remote_port),
                       process_of(record.owner));
        return;
    }
    if (record.kind == NC_TLS_DATA) {
        const std::size_t size = std::min<std::size_t>(record.captured, bytes.size());
        data(record, {reinterpret_cast<const char*>(bytes.data()), size}, now);
        return;
    }
    const auto found = connections_.find(record.cookie);
    if (found == connections_.end())
        return;
    if (record.kind == NC_TLS_GONE) {
        found->second->gone = now;
        gone_.emplace_back(now, record.cookie);
        return;
    }
    found->second->reader.close(side_of(record), now);
    if (found->second->reader.over())
        connections_.erase(found);
}

void CallHandshakes::tick(Time now) {
    constexpr Time patience = 1'000'000'000;
    for (; !gone_.empty() && gone_.front().first + patience < now; gone_.pop_front()) {
        const auto found = connections_.find(gone_.front().second);
        if (found == connections_.end())
            continue;
        found->second->reader.close(gone_.front().first);
        connections_.erase(found);
    }
}

void CallHandshakes::data(const nc_tls_record& record, std::string_view bytes, Time now) {
    const auto found = connections_.find(record.cookie);
    Connection* connection = found != connections_.end() ? found->second.get() : nullptr;
    if (!connection) {
        // What comes behind a handshake that was told is of no interest.
        if (record.position != 0)
            return;
        if (connections_.size() >= limit)
            forget();
        auto fresh = std::make_unique<Connection>(
            [this, cookie = record.cookie](const Handshake& handshake) {
                tell(*connections_.at(cookie), handshake);
            });
        connection = fresh.get();
        connections_.emplace(record.cookie, std::move(fresh));
    }
    connection->latest = record;
    const auto side = side_of(record);
    std::uint64_t& position = connection->position[side];
    if (record.position > position)
        connection->reader.gap(side, record.position - position, now);
    position = record.position + record.length;
    connection->reader.data(side, bytes, now);
    connection->reader.gap(side, record.length - bytes.size(), now);
    // Nothing more comes of it.
    if ((record.flags & NC_TLS_LAST) != 0)
        connection->reader.abandon(now);
    if (connection->reader.over() ||
        ((record.flags & NC_TLS_LAST) != 0 && !connection->reader.begun()))
        connections_.erase(record.cookie);
}

void CallHandshakes::tell(const Connection& connection, const Handshake& handshake) const {
    const nc_tls_record& record = connection.latest;
    const nc_trace_ends& ends = record.ends;
    Event event;
    event.handshake = handshake;
    event.client = tcp::end_of(ends.family, ends.local, ends.local_port);
    event.server = tcp::end_of(ends.family, ends.remote, ends.remote_port);
    event.by_server = connection.reader.client() == HandshakeReader::b;
    if (*event.by_server)
        std::swap(event.client, event.server);
    event.process = process_of(record.owner);
    event.cgroup_id = record.cgroup_id;
    event.cookie = record.cookie;
    event.netns = record.netns;
    on_event_(event);
}

/// Those that were quiet for longest.
void CallHandshakes::forget() {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ages;
    ages.reserve(connections_.size());
    for (const auto& [cookie, connection] : connections_)
        ages.emplace_back(connection->latest.time_ns, cookie);
    const std::size_t count = ages.size() / 4;
    std::nth_element(ages.begin(), ages.begin() + static_cast<std::ptrdiff_t>(count), ages.end());
    for (std::size_t i = 0; i < count; ++i) {
        ++forgotten_;
        connections_.at(ages[i].second)->reader.abandon(last_);
        connections_.erase(ages[i].second);
    }
}

void CallHandshakes::finish() {
    for (auto& [cookie, connection] : connections_)
        if (connection->gone != 0)
            connection->reader.close(connection->gone);
        else
            connection->reader.abandon(last_);
    gone_.clear();
    connections_.clear();
}

Result<Instrument> trace_handshakes(const Selection& selection, std::uint32_t ring_bytes,
                                    RecordReader::Handler on_record) {
    bpf::capture_libbpf_messages();
    auto skeleton = NETCTL_TRY(bpf::Skeleton<tls_handshakes>::open());
    const auto types = NETCTL_TRY(bpf::KernelTypes::load());
    InstrumentPlan plan;
    plan.ring_bytes = ring_bytes;
    // Who sees an answer has to have seen the hello.
    if (types.tracepoint_arguments("sock_send_length"))
        plan.programs = {"tls_recv", "tls_send", "tls_state"};
    else
        plan.programs = {"tls_recv4", "tls_recv6", "tls_send4", "tls_send6", "tls_state"};
    return Instrument::start(skeleton.object(), selection, plan, std::move(on_record));
}

} // namespace netctl::trace::tls
