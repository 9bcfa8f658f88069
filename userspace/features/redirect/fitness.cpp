// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>

#include <fmt/format.h>

#include "features/redirect/controller.hpp"
#include "features/redirect/selftest.hpp"

namespace netctl::redirect {

Result<> check_cases(const std::vector<std::string>& force) {
    const std::vector<std::string> known = selftest_names();
    for (const std::string& name : force)
        if (name != "all" && std::find(known.begin(), known.end(), name) == known.end())
            return Error::usage(fmt::format("--force: the self-test has no case '{}'", name),
                                fmt::format("one of: all, {}", fmt::join(known, ", ")));
    return {};
}

Result<Fitness> prove_fit(const EnableOptions& options) {
    NETCTL_TRY(check_cases(options.force));
    Fitness fitness;
    const bool untested =
        std::find(options.force.begin(), options.force.end(), "all") != options.force.end();
    bool forced = untested, never_pass = false;
    std::vector<SelftestCase> outcomes;
    if (!untested)
        outcomes = NETCTL_TRY(run_selftest(options.cross_netns ? NC_RD_CROSS_NETNS : 0));
    for (const SelftestCase& one : outcomes) {
        if (one.passed)
            continue;
        const bool forces =
            std::find(options.force.begin(), options.force.end(), one.name) != options.force.end();
        if (!forces && one.avoided && !options.allow_blocking) {
            never_pass = true;
            continue;
        }
        if (!forces && one.mended) {
            fitness.tuning.mend_fionread = true;
            continue;
        }
        if (!forces)
            return Error::unsupported(
                fmt::format("this kernel would break applications: {}: {}: {}", one.name, one.about,
                            one.detail),
                fmt::format("netctl redirect selftest shows all; if no application minds: "
                            "--force {}",
                            one.name));
        forced = true;
        fitness.notes.push_back(fmt::format("forced although {} failed: {}", one.name, one.about));
    }

    Tuning& tuning = fitness.tuning;
    tuning.allow_blocking = options.allow_blocking;
    if (options.allow_blocking) // a recv that began before joining must be over
        tuning.grace_ns = 5'000'000;
    if (options.allow_blocking)
        fitness.flags |= NC_RD_ALLOW_BLOCKING;
    if (options.cross_netns)
        fitness.flags |= NC_RD_CROSS_NETNS;
    if (forced)
        fitness.flags |= NC_RD_FORCED;
    if (never_pass)
        fitness.flags |= NC_RD_NEVER_PASS;
    if (tuning.mend_fionread) {
        fitness.flags |= NC_RD_MENDS_FIONREAD;
        fitness.notes.push_back(
            "this kernel's FIONREAD does not count redirected bytes: two programs "
            "behind ioctl() add them, of which the kernel's log has a warning");
    }
    return fitness;
}

} // namespace netctl::redirect
