// SPDX-License-Identifier: GPL-2.0-only
//
// Captures at an XDP filter: programs that look on as it is entered and left.
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "features/xdp/controller.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "xdp_capture.skel.h"

namespace netctl::xdp {

using datapath::Capture;
using datapath::LivePoint;
using datapath::Root;

namespace {

constexpr const char* filter = "xdp_filter"; // the program's function, whichever object it is of

/// Looks on at the filter in force, and at the next one once a commit has put that in its place. Holds the programs, and
/// not the link: that would keep the filter attached.
class LookingOn : public Capture::Attachment {
  public:
    LookingOn(RootOptions root, std::string netns, std::string interface,
              datapath::CaptureRequest request)
        : root_(std::move(root)),
          netns_(std::move(netns)),
          interface_(std::move(interface)),
          request_(std::move(request)) {}

    /// Begins; returns the object that has the maps.
    Result<bpf::OwnedObject> begin() {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
        const Root root = NETCTL_TRY(Root::open(root_));
        const LivePoint live = NETCTL_TRY(open(root));
        ifindex_ = live.link_info.ifindex;
        NETCTL_TRY(aim(root, live));
        stats_ = NETCTL_TRY(live.program.map("stats"));
        attached_at_ = NETCTL_TRY(read_stats());
        return *first_;
    }

    Result<> look_after() override {
        if (NETCTL_TRY(query()).program_id == program_id_)
            return {};
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
        const Root root = NETCTL_TRY(Root::open(root_));
        const LivePoint live = NETCTL_TRY(open(root));
        if (live.link_info.program_id == program_id_)
            return {};
        NETCTL_TRY(count_unseen());
        return aim(root, live);
    }

    void detach() override {
        if (const auto occupant = query(); occupant && occupant->program_id != program_id_)
            (void)count_unseen(); // what cannot be read any more cannot be told
        links_.clear();
    }

  private:
    using Stats = std::vector<nc_stats>;
    Result<Stats> read_stats() const {
        return bpf::lookup_per_cpu<std::uint32_t, nc_stats>(stats_, 0);
    }

    Result<bpf::XdpOccupant> query() const {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
        return bpf::query_xdp(ifindex_);
    }

    /// Counts what the next filter has seen so far. Nobody else counts: the one that is looked at is not in force.
    Result<> count_unseen() {
        const std::uint32_t zero = 0;
        const bpf::RawMap map = NETCTL_TRY(first_->object.map("capture_counts"));
        auto counts = NETCTL_TRY((bpf::lookup_per_cpu<std::uint32_t, nc_capture_counts>(map, 0)));
        const Stats now = NETCTL_TRY(read_stats());
        for (std::size_t cpu = 0; cpu < counts.size(); cpu++) {
            nc_capture_counts& own = counts[cpu];
            // Where none was seen, none had come when the stats were read first.
            const std::uint64_t until = own.begun != 0 ? own.seen_until : attached_at_[cpu].packets;
            own.unseen += now[cpu].packets - until;
            own.seen_until = now[cpu].packets;
            own.begun = 1;
        }
        return map.update(&zero, counts.data());
    }

    Result<LivePoint> open(const Root& root) const {
        LivePoint live = NETCTL_TRY(Controller(root_, netns_).point(interface_)->open(root));
        if (live.link_info.ifindex == 0)
            return Error::failed(fmt::format("{} is gone, and its filter with it", interface_));
        return live;
    }

    Result<> aim(const Root& root, const LivePoint& live) {
        auto skeleton = std::make_shared<const bpf::Skeleton<xdp_capture>>(
            NETCTL_TRY(bpf::Skeleton<xdp_capture>::open()));
        for (bpf_program* const program :
             {(*skeleton)->progs.xdp_capture_enter, (*skeleton)->progs.xdp_capture_leave})
            NETCTL_TRY(bpf::look_on(program, live.program, filter));
        bpf::OwnedObject next{skeleton, skeleton->object()};
        NETCTL_TRY(next.object.reuse("filter_stats", NETCTL_TRY(live.program.map("stats"))));
        if (first_)
            for (const char* const map : {"captured", "capture_counts", "held"})
                NETCTL_TRY(next.object.reuse(map, NETCTL_TRY(first_->object.map(map))));
        if (auto loaded = datapath::load_capture(next.object, root, request_); !loaded)
            return refused(std::move(loaded).error());
        std::vector<bpf::Link> links;
        for (const char* const name : programs) {
            auto link = next.object.attach_to_target(name, 0);
            if (!link)
                return refused(std::move(link).error());
            links.push_back(std::move(*link));
        }
        links_ = std::move(links);
        program_id_ = live.link_info.program_id;
        if (!first_)
            first_ = std::move(next);
        return {};
    }

    static Error refused(Error error) {
        if (error.code != EPERM && error.code != EINVAL && error.code != EOPNOTSUPP)
            return error;
        error.kind = ErrorKind::unsupported;
        error.hint =
            "`netctl tc capture IFACE ingress` has what XDP lets pass, and `netctl xdp log "
            "--write FILE` what rules with `log` match";
        return std::move(error).within(
            "this kernel lets no program look on at an XDP program (fentry, fexit)");
    }

    // What sees the end goes first, and so has nothing to do until the other is there as well.
    static constexpr const char* programs[] = {"xdp_capture_leave", "xdp_capture_enter"};

    RootOptions root_;
    std::string netns_, interface_;
    datapath::CaptureRequest request_;
    std::optional<bpf::OwnedObject> first_; ///< has the maps
    std::vector<bpf::Link> links_;
    bpf::RawMap stats_; ///< the filter's, which commits hand on
    Stats attached_at_;
    std::uint32_t ifindex_ = 0, program_id_ = 0;
};

} // namespace

Result<Capture> Controller::capture(const std::string& interface,
                                    const datapath::CaptureRequest& request) const {
    for (const Key key : {Key::socket, Key::ct, Key::ct_mark})
        if (request.rule.find(key) != nullptr)
            return Error::unsupported(
                fmt::format(
                    "a capture in xdp cannot ask for '{}': who looks on at a filter may not "
                    "ask the kernel for it",
                    to_string(key)),
                "`netctl tc capture` can, of what XDP lets pass");
    auto attachment = std::make_unique<LookingOn>(root_, netns_, interface, request);
    bpf::OwnedObject object = NETCTL_TRY(attachment->begin());
    return Capture(std::move(object), std::move(attachment), true);
}

} // namespace netctl::xdp
