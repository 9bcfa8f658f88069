// SPDX-License-Identifier: GPL-2.0-only
//
// The XDP packet filter of an interface: attaching, rules, counters, log, simulation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/xdp.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/filter.hpp"
#include "datapath/point.hpp"
#include "datapath/rule_command.hpp"
#include "netctl/abi/rule.h"

namespace netctl::xdp {

/// Which of an interface's two XDP hooks to take.
enum class ModeChoice {
    automatic, ///< native if the driver can, else generic, and says why
    native,    ///< in the driver, before the kernel makes an skb
    generic,   ///< in the network stack: any interface, slower
};

/// Settings that a later attach may leave as they are.
struct AttachRequest {
    std::string interface;
    ModeChoice mode = ModeChoice::automatic;
    std::optional<nc_verdict> default_verdict;  ///< for what no rule matches; first attach: pass
    std::optional<nc_verdict> unparsed_verdict; ///< for what cannot be parsed; first attach: drop
    std::optional<std::uint32_t> log_rate;      ///< events a second; first attach: 10,000
    bool replace = false;                       ///< take the interface from another program
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
    Controller(std::string root, std::string netns)
        : root_(std::move(root)), netns_(std::move(netns)) {}

    Result<AttachReport> attach(const AttachRequest& request) const;
    /// Takes the program off and removes all pins of the point.
    Result<> detach(const std::string& interface) const;
    /// One interface, or all points under the root.
    Result<Status> status(const std::string& interface) const;
    Result<std::vector<Status>> status_of_all() const;

    Result<std::unique_ptr<datapath::RuleEditor>> edit(const std::string& interface) const;

    /// See datapath::follow_log.
    Result<> follow_log(const std::string& interface, const datapath::HandleEvent& handle,
                        const std::function<bool()>& idle) const;

    /// Runs the interface's rules over frames, without touching traffic or counters.
    Result<> simulate(const std::string& interface, const datapath::NextFrame& next,
                      const datapath::HandleSimulated& handle) const;

  private:
    bpf::PinDir point_dir(const datapath::Root& root, const std::string& interface) const;
    Result<datapath::LivePoint> open_live(const datapath::Root& root,
                                          const std::string& interface) const;
    Result<Status> read_status(const bpf::PinDir& dir) const;

    std::string root_;
    std::string netns_;
};

using datapath::to_string;
std::string to_string(bpf::XdpMode mode);

} // namespace netctl::xdp
