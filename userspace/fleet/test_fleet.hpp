// SPDX-License-Identifier: GPL-2.0-only
//
// A fleet in memory, for tests: a source that can be spoiled, and an applier that does as it is told.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "fleet/agent.hpp"
#include "fleet/bytes.hpp"
#include "fleet/operate.hpp"
#include "testing/must.hpp"

namespace netctl::fleet {

class MemorySource : public Source {
  public:
    std::map<std::string, std::string> files;
    std::map<std::string, StatusEntry> reports;
    bool lost = false;

    Result<std::optional<std::string>> read(const std::string& name, std::size_t most) override {
        if (lost)
            return Error::failed("nobody answers");
        const auto found = files.find(name);
        if (found == files.end())
            return std::optional<std::string>();
        if (found->second.size() > most)
            return Error::failed(Text::format("{} is larger than {} bytes", name, most));
        return std::optional(found->second);
    }
    Result<> write(const std::string& name, std::string_view bytes) override {
        files[name] = bytes;
        return {};
    }
    Result<> update(const std::string& name, std::size_t most, const Change& change) override {
        auto changed = NETCTL_TRY(change(NETCTL_TRY(read(name, most))));
        if (changed)
            files[name] = std::move(*changed);
        return {};
    }
    Result<Held> hold(const std::string&, const std::string&) override { return Held(); }
    Result<> write_status(const std::string& host, std::string_view text) override {
        if (lost)
            return Error::failed("nobody answers");
        reports[host] = {host, std::string(text), 0};
        return {};
    }
    Result<std::vector<StatusEntry>> statuses() override {
        std::vector<StatusEntry> all;
        for (const auto& [host, entry] : reports)
            all.push_back(entry);
        return all;
    }
    bool wait(unsigned) override { return true; }
    void watch_statuses() override {}
    std::string name() const override { return "memory"; }
};

/// A host's datapath as far as a release is concerned: a text in force, and one that waits to be confirmed.
class FakeApplier : public Applier {
  public:
    std::string in_force, before, kept;
    std::string waiting; ///< id of the apply that waits; empty: none
    std::set<std::string> absent;
    std::vector<std::string> ever; ///< all texts that were in force for a moment
    std::optional<Error> apply_error{}, confirm_error{};
    std::string probe_error;
    unsigned applies = 0;

    Result<AppliedRelease> apply(const Rendered& rendered, const std::set<std::string>& gone,
                                 std::chrono::seconds) override {
        applies++;
        if (apply_error)
            return *apply_error;
        if (!waiting.empty())
            return Error::failed("an apply waits to be confirmed");
        absent = gone;
        candidate_ = rendered.text();
        if (candidate_ == in_force)
            return AppliedRelease{};
        before = in_force;
        in_force = candidate_;
        ever.push_back(in_force);
        waiting = fmt::format("id{}", applies);
        return AppliedRelease{waiting, rendered.titles};
    }
    Result<> confirm(const std::string& id) override {
        if (confirm_error)
            return *confirm_error;
        if (id != waiting)
            return Error::failed("it does not wait");
        waiting.clear();
        return {};
    }
    Result<> roll_back(const std::string& id) override {
        if (id != waiting || id.empty())
            return Error::failed("it does not wait");
        in_force = before;
        waiting.clear();
        return {};
    }
    Result<> keep() override {
        kept = in_force;
        return {};
    }
    Result<> reapply() override {
        in_force = kept;
        return {};
    }
    Result<> probe(const Probe&) override {
        if (!probe_error.empty())
            return Error::failed(probe_error);
        return {};
    }

  private:
    std::string candidate_;
};

/// A release for all hosts, with a policy that names `port`.
inline std::string release_text(unsigned port, const std::string& rollout = "") {
    return fmt::format("fleet: prod\n{}probes: [tcp 192.0.2.1:22]\n---\npolicy:\n  rules:\n    - "
                       "dport {} deny\n",
                       rollout, port);
}

struct TestFleet {
    MemorySource source;
    SecretKey key = testing::must(make_key());
    TrustedKeys trusted{{{"a.pub", key.number, key.key}}, 1};

    Head publish(const std::string& text, bool at_once = false) {
        PublishOptions options;
        options.keys = {key};
        options.trusted = trusted;
        options.at_once = at_once;
        return testing::must(fleet::publish(
            source, text, testing::must(parse_release("release.yaml", text)), options));
    }
    FleetView view() { return testing::must(view_fleet(source, trusted, 300)); }
};

/// An agent with all that it stands on. It may be killed, and started anew from what it had written.
struct TestHost {
    std::string name;
    Labels labels;
    TestFleet& fleet;
    FakeApplier applier{};
    AgentState saved{};
    Moment now{0, 1'800'000'000};
    std::optional<Agent> agent{};

    TestHost(std::string called, Labels with, TestFleet& of)
        : name(std::move(called)), labels(std::move(with)), fleet(of) {
        start();
    }
    void start() {
        agent.emplace(AgentOptions{"prod", name, labels, fleet.trusted.keys, 1, 60}, saved,
                      fleet.source, applier, [this](const AgentState& state) -> Result<> {
                          saved = state;
                          return {};
                      });
        agent->begin();
    }
    void kill_and_start() {
        agent.reset();
        start();
    }
    void step(std::int64_t seconds = 1) {
        now.monotonic_ms += seconds * 1000;
        now.time += seconds;
        agent->step(now);
    }
    /// Steps until it is in this state; fails if that takes longer than two minutes.
    bool reaches(const std::string& state) {
        for (int i = 0; i < 120; i++) {
            step();
            if (agent->state_name() == state)
                return true;
        }
        ADD_FAILURE() << name << " is " << agent->state_name() << ", not " << state << ": "
                      << agent->error();
        return false;
    }
};

} // namespace netctl::fleet
