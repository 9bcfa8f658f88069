// SPDX-License-Identifier: GPL-2.0-only
//
// A packet filter at one attachment point: attaching, commits of rules under traffic, log and
// simulation, the same at every hook. A hook derives from it and says what it does its own way.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/transaction.hpp"
#include "datapath/filter.hpp"
#include "datapath/generation.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "datapath/rule_command.hpp"
#include "sys/netlink.hpp"

namespace netctl::datapath {

/// Settings that a later attach may leave as they are.
struct FilterSettings {
    std::optional<nc_verdict> default_verdict{};  ///< for what no rule matches
    std::optional<nc_verdict> unparsed_verdict{}; ///< for what cannot be parsed; first attach: drop
    std::optional<std::uint32_t> log_rate{};      ///< events a second; first attach: 10,000
    std::optional<std::vector<Rule>> rules{};     ///< attach: in force from the first moment
    bool any() const { return default_verdict || unparsed_verdict || log_rate; }
    void apply_to(nc_point& point) const;
};

/// A generation with the skeleton whose maps it has.
struct LoadedFilter {
    std::shared_ptr<const void> skeleton;
    bpf::Object object;
    Generation generation;
};

/// Packets of rules with `log` that the log does not have.
struct UnloggedPackets {
    std::uint64_t lost = 0;     ///< the buffer was full
    std::uint64_t left_out = 0; ///< above the log's rate
};

class FilterPoint : public RuleEditor {
  public:
    const std::string& interface() const { return interface_; }
    Hook hook() const { return hook_; }
    /// Whether its packets leave.
    virtual bool is_egress() const { return false; }
    /// "xdp ingress", "tc egress".
    std::string direction() const;
    /// Also what would cut off the ssh session that this process comes from.
    void dare() { dared_ = true; }
    /// Called once all is loaded and filled, right before the step that puts it in force; an error leaves all as it was.
    void when_ready(std::function<Result<>()> ready) { ready_ = std::move(ready); }
    Result<> ready() const { return ready_ ? ready_() : Result<>(); }
    /// The directory of its pins, by the name of the interface.
    virtual bpf::PinDir dir(const Root& root) const = 0;
    /// Where its pins are for a reader: an interface that was renamed is found by its new name, too.
    Result<bpf::PinDir> find(const Root& root) const;

    /// What is pinned; an error that says how to attach if nothing is.
    Result<LivePoint> open(const Root& root) const;
    Result<std::vector<RuleStatus>> rules() override;
    /// In the point's network namespace.
    Result<CommitReport> commit(const Edit& edit, Scope scope) override;
    /// See datapath::follow_log.
    Result<> follow_log(const HandleEvent& handle, const std::function<bool()>& idle) const;
    /// Counted since the first attachment; an error if it is attached no more.
    Result<UnloggedPackets> unlogged() const;
    /// Runs the rules over frames, without touching traffic or counters.
    Result<> simulate(const nc_told& told, const NextFrame& next,
                      const HandleSimulated& handle) const;

    // ---- attaching, step by step; in the point's network namespace ----

    /// Names points after what their interfaces are called now, and tells of each.
    Result<> follow(const LockedRoot& root, std::vector<std::string>& notes) const;
    /// What an attachment that was lost has left; nothing for a first one. Refuses a point that is
    /// attached. One whose interface is in another namespace now gives way, and is told of.
    Result<std::optional<LivePoint>> left_behind(const LockedRoot& root,
                                                 std::vector<std::string>& notes) const;
    /// The state to attach with: that of `left`, or a new one, with the settings given.
    Result<PointState> next_state(const Root& root, const std::optional<LivePoint>& left,
                                  const FilterSettings& settings,
                                  const sys::Interface& interface) const;
    /// Verifies and loads the program for `state`. Redirect targets are looked up in the current
    /// namespace.
    virtual Result<LoadedFilter> load(const Root& root, PointState& state,
                                      const LivePoint* previous, bool simulate) const = 0;
    /// Makes the directory of the pins; it goes again unless the transaction is committed.
    static Result<> make_dir(const bpf::PinDir& dir, Transaction& transaction);
    /// Pins the link, in the place of one whose interface is gone if there is one: the commit of an
    /// attachment. Until then nothing is attached once this process ends.
    static Result<> pin_link(const bpf::PinDir& dir, const bpf::Link& link,
                             Transaction& transaction);
    /// Takes away the pins beside the link, which detaching does not need; they are made again unless
    /// the transaction is committed.
    static Result<> take_pins(const bpf::PinDir& dir, const LivePoint& live,
                              Transaction& transaction);

    /// What is pinned in `dir`, whatever stands in its maps: of what is not a link or cannot be read, there is
    /// only `trouble`. An error: what may pass, as without a link the program has to tell where it is.
    Result<LivePoint> open_to_detach(const bpf::PinDir& dir) const;
    /// Takes the link's pins away, and so the filter off: the commit. False if there is no link.
    static Result<bool> unpin_link(const bpf::PinDir& dir);

    virtual Error not_attached() const = 0;
    /// What a first attachment does with what no rule matches.
    virtual nc_verdict first_default() const = 0;

  protected:
    /// `root` is the path of the root, `netns` a name or path, or empty. Nothing is touched yet.
    FilterPoint(Hook hook, RootOptions root, std::string netns, std::string interface)
        : hook_(hook),
          root_(std::move(root)),
          netns_(std::move(netns)),
          interface_(std::move(interface)) {}

    const std::string& netns() const { return netns_; }
    /// How the user names the point.
    virtual std::string title() const { return interface_; }
    virtual Error attached_already() const = 0;
    /// Refuses a change of rules, since the kernel takes no program for an attachment that is lost.
    virtual Error lost() const = 0;
    /// Refuses a change of what is in another network namespace.
    Error moved() const;
    /// Fills in what an attachment knows of itself, where settings could not be read.
    virtual void complete(nc_point& /*point*/, const LivePoint& /*live*/) const {}
    /// Checks and completes what an edit has made.
    virtual Result<> prepare(PointState&) const { return {}; }
    /// Puts a program in the place of the present one, in one step: the commit.
    virtual Result<> swap(const LivePoint& live, const bpf::Program& program) const;
    /// Makes the pins lead to the program that is in force.
    virtual Result<> publish(const bpf::PinDir& dir, const bpf::Program& program) const;
    /// Adds what the user should know about a commit.
    virtual void tell(const PointState& /*before*/, const PointState& /*after*/,
                      std::vector<std::string>& /*notes*/) const {}
    /// Runs a simulating program over a frame.
    virtual Result<> run(const bpf::Program& program,
                         std::span<const std::uint8_t> frame) const = 0;

  private:
    /// Refuses what would cut off the ssh session, unless dared.
    Result<> check_session(const Root& root, const PointState* before, const PointState& state,
                           bool ether) const;
    Result<> check_netns(const PointState& state, const bpf::PinDir& dir) const;
    /// The state that an edit begins with; for one that is about all rules also if it cannot be read.
    Result<PointState> state_to_edit(const LivePoint& live, Scope scope,
                                     std::vector<std::string>& notes) const;

    Hook hook_;
    RootOptions root_;
    std::string netns_, interface_;
    bool dared_ = false;
    std::function<Result<>()> ready_;
};

} // namespace netctl::datapath
