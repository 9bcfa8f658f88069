// SPDX-License-Identifier: GPL-2.0-only
//
// What operators do with a fleet: publish, drive, halt, go back, look.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fleet/head.hpp"
#include "fleet/release.hpp"
#include "fleet/rollout.hpp"
#include "fleet/source.hpp"

namespace netctl::fleet {

struct TrustedKeys {
    std::vector<PublicKey> keys;
    unsigned threshold = 1;
};

/// `alice@host1 (4711)`: who drives or halts, for others to read.
std::string operator_name();

struct PublishOptions {
    std::vector<SecretKey> keys;            ///< that sign
    TrustedKeys trusted;                    ///< by which the present head is believed
    std::optional<std::uint64_t> release{}; ///< in the place of the present one + 1
    std::int64_t valid_s = 0;               ///< to be taken within so long; 0: for ever
    bool at_once = false;
    bool compressed = false; ///< the body is stored so, whatever the source prefers
    std::string prepare{};   ///< a file for the head, which is not published
};
/// Puts a release's file into the source, and a signed head for it.
Result<Head> publish(Source& source, const std::string& text, const Release& release,
                     const PublishOptions& options);
/// Puts a head into the source that was prepared before, and whose body is there.
Result<Head> publish_prepared(Source& source, const std::string& file, const TrustedKeys& trusted);
/// Publishes what release `to` was (0: the one before the present) as a new release for all at once.
Result<Head> publish_former(Source& source, std::uint64_t to, const PublishOptions& options);

/// A fleet as it is now.
struct FleetView {
    Head head;
    Release release;
    RolloutState rollout;
    std::vector<Report> reports;
    Decision decision; ///< what a driver would do
};
Result<FleetView> view_fleet(Source& source, const TrustedKeys& trusted, std::int64_t silent_after);
/// What is in force at the source, with its text.
struct PublishedRelease {
    Head head;
    std::string text;
    Release release;
};
Result<PublishedRelease> read_published(Source& source, const TrustedKeys& trusted);

/// Takes the one step that is due: the next stage, or a halt. The state is changed only if it is still what `view` has.
Result<> drive(Source& source, const FleetView& view);
/// The next stage, whatever the hosts report.
Result<> next_stage(Source& source, const FleetView& view);
Result<> halt(Source& source, const FleetView& view, const std::string& why);
/// Ends a halt; the stage begins anew.
Result<> resume(Source& source, const FleetView& view);

} // namespace netctl::fleet
