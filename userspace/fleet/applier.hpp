// SPDX-License-Identifier: GPL-2.0-only
//
// What puts a release in force on this host: the command netctl, by its own contract (netctl-apply(8)).
#pragma once

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "fleet/release.hpp"

namespace netctl::fleet {

struct AppliedRelease {
    std::string id;              ///< to confirm by; empty: there was nothing to change
    std::set<std::string> added; ///< objects that were not there before
};

/// A seam: the simulation has another.
class Applier {
  public:
    virtual ~Applier() = default;
    /// Puts it in force until the time is up. `absent` are objects that go. Errors left all as it was; of kind usage or
    /// unsupported, the same will not work later either.
    virtual Result<AppliedRelease> apply(const Rendered& rendered,
                                         const std::set<std::string>& absent,
                                         std::chrono::seconds confirm) = 0;
    virtual Result<> confirm(const std::string& id) = 0;
    virtual Result<> roll_back(const std::string& id) = 0;
    /// What was confirmed is kept: for the next boot, and for reapply().
    virtual Result<> keep() = 0;
    /// Puts in force again what was kept.
    virtual Result<> reapply() = 0;
    virtual Result<> probe(const Probe& probe) = 0;
};

struct NetctlOptions {
    std::string program = "netctl";
    std::vector<std::string> options{}; ///< --root and its like
    std::string folder;                 ///< state: what is applied and kept is written there
    std::string saved; ///< file of `netctl save`; empty: nothing is saved for the next boot
};

class NetctlApplier : public Applier {
  public:
    explicit NetctlApplier(NetctlOptions options) : options_(std::move(options)) {}

    Result<AppliedRelease> apply(const Rendered& rendered, const std::set<std::string>& absent,
                                 std::chrono::seconds confirm) override;
    Result<> confirm(const std::string& id) override;
    Result<> roll_back(const std::string& id) override;
    Result<> keep() override;
    Result<> reapply() override;
    Result<> probe(const Probe& probe) override;

  private:
    /// What netctl prints. Errors: its own, with the kind that its exit status tells.
    Result<std::string> netctl(const std::vector<std::string>& words) const;

    NetctlOptions options_;
};

} // namespace netctl::fleet
