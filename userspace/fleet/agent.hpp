// SPDX-License-Identifier: GPL-2.0-only
//
// What a host does about its fleet's releases: sees a head, believes it or not, waits for its turn, puts the release in
// force, looks whether it can live with it, and confirms or goes back.
//
// A state machine that is asked to take a step; it never sleeps. So a thousand of them fit into one process, and the
// simulation runs the code that hosts run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fleet/applier.hpp"
#include "fleet/head.hpp"
#include "fleet/release.hpp"
#include "fleet/source.hpp"

namespace netctl::fleet {

/// What a host remembers over a restart. Written before anything is done that it tells of.
struct AgentState {
    std::uint64_t highest = 0;     ///< release that was seen, signed; older ones are refused
    std::string highest_sha256;    ///< of its body
    std::int64_t published = 0;    ///< the latest; time was never earlier than this
    std::uint64_t release = 0;     ///< in force; 0: none
    std::string rendered_sha256;   ///< of what of it is for this host
    std::set<std::string> objects; ///< that releases have brought: gone from the file, they go here
    std::uint64_t attempt = 0;     ///< release that is being tried; 0: none
    std::string attempt_id;        ///< of its apply
    unsigned tries = 0;            ///< of that release
    std::uint64_t failed = 0;      ///< release that is not tried again; 0: none
    std::string failed_state, failed_error;

    bool operator==(const AgentState&) const = default;
};
std::string agent_state_text(const AgentState& state);
Result<AgentState> parse_agent_state(std::string_view text);

struct AgentOptions {
    std::string fleet, host;
    Labels labels;
    std::vector<PublicKey> keys;
    unsigned threshold = 1;
    std::int64_t heartbeat = 60; ///< seconds between reports where nothing changes
    /// A body is fetched after a time by chance, up to so many milliseconds for each 64 KiB of it: not by all at once.
    std::int64_t spread_ms = 0;
};

struct Moment {
    std::int64_t monotonic_ms = 0;
    std::int64_t time = 0; ///< of day, seconds since 1970; may jump
};

class Agent {
  public:
    using Save = std::function<Result<>(const AgentState&)>;

    Agent(AgentOptions options, AgentState state, Source& source, Applier& applier, Save save);

    /// Takes back what was tried when this host's agent ended, and puts in force again what was kept.
    void begin();
    /// Does what is due, and reports. Returns in how many milliseconds it wants to be asked again; earlier, if the
    /// source changes.
    unsigned step(const Moment& now);
    /// Ends in order: what is being tried is taken back, and tried anew at the next start.
    void end();

    /// One of `empty` (no release yet), `waiting` (for its turn, or for something that is missing), `soaking`, `in-force`,
    /// `failed` (could not be put in force), `rolled-back` (could not be lived with), `refused` (is not believed),
    /// `source-lost`.
    const std::string& state_name() const { return state_name_; }
    const std::string& error() const { return error_; }
    const AgentState& state() const { return state_; }
    bool soaking() const { return trial_.has_value(); }
    /// Whether it waits for nothing but time to go by.
    bool retries() const { return retry_ms_ > now_.monotonic_ms; }

  private:
    struct Trial {
        Head head;
        Release release;
        Rendered rendered;
        AppliedRelease applied;
        std::set<std::string> absent;
        std::int64_t until_ms = 0;
        unsigned failures = 0; ///< rounds of probes, in a row
        std::string why;       ///< the last of them
    };

    void look();
    Result<Head> open(const std::string& bytes);
    Result<> believe(const Head& head) const;
    void consider(const Head& head);
    void attempt(const Head& head, const Release& release, Rendered rendered);
    void soak();
    void take_in_force(const Head& head, const Rendered& rendered,
                       const std::set<std::string>& added, const std::set<std::string>& absent);
    void go_back(const std::string& state, const std::string& why);
    void fail_for_good(std::uint64_t release, const std::string& state, const std::string& why);
    Result<const Release*> fetch(const Head& head);
    void become(const std::string& name, std::uint64_t candidate, const std::string& error);
    bool save();
    void report();

    AgentOptions options_;
    AgentState state_;
    Source& source_;
    Applier& applier_;
    Save save_;
    Moment now_;
    std::optional<Trial> trial_;
    std::int64_t retry_ms_ = 0; ///< not before that
    bool owes_reapply_ = false; ///< what was kept could not be put in force again yet

    std::string state_name_ = "empty", error_, stage_;
    std::uint64_t candidate_ = 0;
    Labels labels_;
    std::vector<SkippedDocument> skipped_;
    std::int64_t since_ = 0;
    std::string reported_; ///< what was, without its time
    std::int64_t reported_ms_ = 0;
    std::string delayed_sha256_; ///< of the body that was waited for, by chance
    std::string opened_bytes_;   ///< of the head that was verified last
    Head opened_;
    std::string fetched_sha256_; ///< of what `fetched_` was read from
    std::optional<Release> fetched_;
};

} // namespace netctl::fleet
