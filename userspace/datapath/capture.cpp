// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/capture.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "bpf/per_cpu_sum.hpp"
#include "bpf/ring_buffer.hpp"
#include "classifier/engine.hpp"
#include "datapath/base_store.hpp"
#include "datapath/conntrack.hpp"
#include "datapath/generation.hpp"
#include "datapath/rule_action.hpp"

namespace netctl::datapath {

namespace {

/// The packet of a record, with the tag that the kernel had taken out where it was; `room` has its bytes then.
std::optional<CapturedPacket> packet_of(std::span<const std::byte> record,
                                        std::vector<std::uint8_t>& room) {
    nc_captured head;
    if (record.size() < sizeof head)
        return {};
    std::memcpy(&head, record.data(), sizeof head);
    const auto* const start = reinterpret_cast<const std::uint8_t*>(record.data() + sizeof head);
    std::span<const std::uint8_t> bytes(
        start, std::min<std::size_t>(head.bytes, record.size() - sizeof head));
    const auto answer = head.answer == NC_CAPTURE_NO_ANSWER ? std::optional<std::int32_t>()
                                                            : std::optional(head.answer);
    constexpr std::size_t addresses = 12, tag = 4;
    if (head.vlan_proto == 0 || bytes.size() < addresses)
        return CapturedPacket{head.time_ns, head.len, bytes, answer};
    room.assign(bytes.begin(), bytes.end());
    std::array<std::uint8_t, tag> inserted{};
    std::memcpy(inserted.data(), &head.vlan_proto, sizeof head.vlan_proto);
    inserted[2] = static_cast<std::uint8_t>(head.vlan_tci >> 8);
    inserted[3] = static_cast<std::uint8_t>(head.vlan_tci);
    room.insert(room.begin() + addresses, inserted.begin(), inserted.end());
    return CapturedPacket{head.time_ns, head.len + static_cast<std::uint32_t>(tag), room, answer};
}

} // namespace

Result<> load_capture(const bpf::Object& object, const Root& root, const CaptureRequest& request) {
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile({&request.rule, 1}));
    const OpenedSets sets = NETCTL_TRY(open_sets(root, compiled.set_uses));
    NETCTL_TRY(set_classifier(object, compiled, sets));
    const std::uint32_t wanted = wanted_fields(request.rule);
    NETCTL_TRY(object.set_constant("wanted", {&wanted, 1}));
    NETCTL_TRY(object.set_constant("snaplen", {&request.snaplen, 1}));
    if (!sets.sets.empty())
        NETCTL_TRY(NETCTL_TRY(BaseStore::open(root)).share(object));
    if (auto loaded = object.load(); !loaded) {
        if (asks_conntrack(request.rule))
            NETCTL_TRY(try_conntrack()); // which says it better
        return std::move(loaded).error();
    }
    return fill_sets(object, sets);
}

Result<> Capture::follow(const Handle& handle, const std::function<bool()>& go_on,
                         const std::function<bool()>& idle) {
    constexpr int wait_ms = 100, tries = 100;
    bool enough = false, ending = false;
    std::uint64_t handled = 0;
    std::vector<std::uint8_t> room;
    auto buffer = NETCTL_TRY(bpf::RingBuffer::open(NETCTL_TRY(object_.object.map("captured")),
                                                   [&](std::span<const std::byte> record) {
                                                       const auto packet = packet_of(record, room);
                                                       handled += packet.has_value();
                                                       enough = packet && !handle(*packet);
                                                       return !enough && (ending || go_on());
                                                   }));
    Result<> there;
    while (NETCTL_TRY(buffer.poll(wait_ms)) && idle() && go_on())
        if (there = attachment_->look_after(); !there)
            break;
    attachment_->detach();
    ending = true;
    // A kernel may detach a little later, and programs may be under way: until what matched is accounted for.
    for (int i = 0; i < tries; i++) {
        if (!enough)
            NETCTL_TRY(buffer.consume());
        final_ = NETCTL_TRY(read_counts());
        if (enough || handled + final_->lost == final_->matched)
            break;
        NETCTL_TRY(buffer.poll(wait_ms / 10));
    }
    return there;
}

Result<nc_capture_counts> Capture::counts() const {
    return final_ ? *final_ : read_counts();
}

Result<nc_capture_counts> Capture::read_counts() const {
    return bpf::sum_per_cpu<nc_capture_counts>(NETCTL_TRY(object_.object.map("capture_counts")));
}

} // namespace netctl::datapath
