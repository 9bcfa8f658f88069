// SPDX-License-Identifier: GPL-2.0-only
//
// The tc classifier of an interface's ingress or egress: attaching, rules, counters, log, simulation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bpf/tc.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/capture.hpp"
#include "datapath/filter_point.hpp"
#include "netctl/abi/rule.h"
#include "sys/netlink.hpp"
#include "sys/qdisc.hpp"

namespace netctl::tc {

using Direction = bpf::TcDirection;

/// How a classifier is attached; the numbers of nc_point::mode.
enum class Mode : std::uint32_t { none = 0, tcx = 1, clsact = 2 };

/// Where among the others, as the user says it.
struct Place {
    bpf::TcxPlace::Where where = bpf::TcxPlace::Where::last;
    std::string neighbour; ///< before and after: a program's id or name
};

struct AttachRequest {
    std::string interface;
    bool dared = false;                ///< also if it cuts off the ssh session
    std::function<Result<>()> ready{}; ///< see FilterPoint::when_ready()
    Direction direction = Direction::ingress;
    std::optional<Mode> mode; ///< nothing: tcx if the kernel has it, else clsact, and says so
    std::optional<Place> place;
    std::optional<std::uint32_t> priority; ///< clsact; first attach: chosen by the place
    datapath::FilterSettings settings;     ///< default verdict of a first attach: next
    bool setup_fq = false; ///< egress: put fq on the interface, so that rates delay, not drop
};

struct AttachReport {
    Mode mode = Mode::none;
    std::uint32_t program_id = 0;
    std::size_t rules = 0;          ///< kept from an attachment that was lost
    std::vector<std::string> notes; ///< fallbacks, mounts
};

struct DetachReport {
    std::vector<std::string> notes; ///< what was left in place, and why
};

struct Status : datapath::FilterStatus {
    Direction direction = Direction::ingress;
    Mode mode = Mode::none;
    bool has_tcx = false;
    std::vector<bpf::TcxProgram> chain;     ///< of tcx, in the order in which they run
    std::vector<sys::ClsactFilter> filters; ///< of clsact, which runs behind tcx
    std::string qdisc;                      ///< egress: kind at the root
    bool fq_missing = false;                ///< rates count on departure times, and fq is gone
};

class Controller {
  public:
    /// `root` is the bpffs directory; `netns` a name or path, or empty. Nothing is touched yet.
    Controller(RootOptions root, std::string netns)
        : root_(std::move(root)), netns_(std::move(netns)) {}

    Result<AttachReport> attach(const AttachRequest& request) const;
    /// Takes the classifier off, removes all pins of the point, and what netctl added to the
    /// interface as soon as nobody else uses it. Whatever stands in its maps.
    Result<DetachReport> detach(const std::string& interface, Direction direction) const;
    Result<Status> status(const std::string& interface, Direction direction) const;
    /// All points under the root; of one interface, if it is given.
    Result<std::vector<Status>> status_of_all(const std::string& interface = {}) const;

    /// The rules, log and simulation of one direction of an interface.
    std::unique_ptr<datapath::FilterPoint> point(const std::string& interface,
                                                 Direction direction) const;

    /// Copies of the packets that a rule matches: in front of all programs of tcx, where they are as they came, whether a
    /// classifier is attached or not. Errors of kind unsupported: the kernel has no tcx.
    Result<datapath::Capture> capture(const std::string& interface, Direction direction,
                                      const datapath::CaptureRequest& request) const;

    /// Whether packets of the point have an Ethernet header.
    Result<bool> has_ether(const std::string& interface, Direction direction) const;

  private:
    Status read_status(const bpf::PinDir& dir) const;
    Result<> read_neighbours(Status& status) const;

    RootOptions root_;
    std::string netns_;
};

/// Whether what a rule asks for can be had of `interface` in this direction.
Result<> check_keys(const Rule& rule, const sys::Interface& interface, Direction direction);
/// Whether the rules are something that `interface` can do in this direction. Targets of redirect and
/// mirror are looked up in the current namespace.
Result<> check_rules(const std::vector<Rule>& rules, const sys::Interface& interface,
                     Direction direction);

using datapath::to_string;
std::string to_string(Direction direction);
std::string to_string(Mode mode);

} // namespace netctl::tc
