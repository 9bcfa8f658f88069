// SPDX-License-Identifier: GPL-2.0-only
//
// The XDP packet filter of an interface: attaching, rules, counters, log, simulation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bpf/xdp.hpp"
#include "core/result.hpp"
#include "datapath/capture.hpp"
#include "datapath/filter_point.hpp"
#include "netctl/abi/rule.h"

namespace netctl::xdp {

/// Which of an interface's two XDP hooks to take.
enum class ModeChoice {
    automatic, ///< native if the driver can, else generic, and says why
    native,    ///< in the driver, before the kernel makes an skb
    generic,   ///< in the network stack: any interface, slower
};

struct AttachRequest {
    std::string interface;
    bool dared = false;                ///< also if it cuts off the ssh session
    std::function<Result<>()> ready{}; ///< see FilterPoint::when_ready()
    ModeChoice mode = ModeChoice::automatic;
    datapath::FilterSettings settings; ///< default verdict of a first attach: pass
    bool replace = false;              ///< take the interface from another program
};

struct AttachReport {
    bpf::XdpMode mode = bpf::XdpMode::none;
    std::uint32_t program_id = 0;
    std::size_t rules = 0;          ///< kept from an attachment whose interface had vanished
    std::vector<std::string> notes; ///< fallbacks, mounts
};

struct Status : datapath::FilterStatus {
    bpf::XdpMode mode = bpf::XdpMode::none;
};

class Controller {
  public:
    /// `root` is the bpffs directory; `netns` a name or path, or empty. Nothing is touched yet.
    Controller(RootOptions root, std::string netns)
        : root_(std::move(root)), netns_(std::move(netns)) {}

    Result<AttachReport> attach(const AttachRequest& request) const;
    /// Takes the program off and removes all pins of the point.
    /// Whatever stands in its maps. Returns notes.
    Result<std::vector<std::string>> detach(const std::string& interface) const;
    /// One interface, or all points under the root.
    Result<Status> status(const std::string& interface) const;
    Result<std::vector<Status>> status_of_all() const;

    /// An interface's rules, log and simulation.
    std::unique_ptr<datapath::FilterPoint> point(const std::string& interface) const;

    /// Copies of the packets that a rule matches at a filter, as they came to it, with what it answered. Commits of rules are
    /// followed. Errors of kind unsupported: the kernel, or a key that cannot be asked for.
    Result<datapath::Capture> capture(const std::string& interface,
                                      const datapath::CaptureRequest& request) const;

  private:
    Status read_status(const bpf::PinDir& dir) const;

    RootOptions root_;
    std::string netns_;
};

using datapath::to_string;
std::string to_string(bpf::XdpMode mode);

} // namespace netctl::xdp
