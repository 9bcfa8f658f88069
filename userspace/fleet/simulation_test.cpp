// SPDX-License-Identifier: GPL-2.0-only
//
// Many hosts in one process: the code that hosts and operators run, over a source in memory and hosts without a kernel.
#include <memory>
#include <random>

#include "fleet/test_fleet.hpp"

namespace netctl::fleet {

namespace {

using testing::must;

struct Simulation {
    TestFleet fleet;
    std::vector<std::unique_ptr<TestHost>> hosts;

    explicit Simulation(std::size_t count, std::size_t canaries) {
        for (std::size_t i = 0; i < count; i++)
            hosts.push_back(std::make_unique<TestHost>(
                fmt::format("host{}", i), Labels{{"role", i < canaries ? "canary" : "web"}},
                fleet));
    }
    void step_all() {
        for (const auto& host : hosts)
            host->step();
    }
    std::size_t ever_had(const std::string& text) const {
        std::size_t count = 0;
        for (const auto& host : hosts)
            for (const std::string& one : host->applier.ever)
                if (one.find(text) != std::string::npos) {
                    count++;
                    break;
                }
        return count;
    }
    /// Drives as an operator does, until the roll-out has ended one way or the other.
    Decision::Kind roll_out() {
        for (int i = 0; i < 1000; i++) {
            step_all();
            const FleetView view = fleet.view();
            if (view.decision.kind == Decision::Kind::finished)
                return view.decision.kind;
            must(drive(fleet.source, view));
            if (view.decision.kind == Decision::Kind::halt)
                return view.decision.kind;
        }
        ADD_FAILURE() << "the roll-out does not end: " << fleet.view().decision.why;
        return Decision::Kind::wait;
    }
};

constexpr const char* staged =
    "rollout: {canary: [role=canary], stages: [10%, 50%, 100%], soak: 2s, max-failed: 1%}\n";

TEST(FleetSimulation, AThousandHostsTakeAReleaseInStages) {
    Simulation simulation(1000, 5);
    simulation.fleet.publish(release_text(1, staged));
    simulation.step_all();
    EXPECT_EQ(simulation.ever_had("dport 1 deny"), 5U);
    EXPECT_EQ(simulation.roll_out(), Decision::Kind::finished);
    for (const auto& host : simulation.hosts)
        EXPECT_EQ(host->saved.release, 1U) << host->name;
}

TEST(FleetSimulation, ACanaryThatFailsEndsItForAll) {
    Simulation simulation(1000, 5);
    simulation.fleet.publish(release_text(1, staged));
    ASSERT_EQ(simulation.roll_out(), Decision::Kind::finished);
    simulation.fleet.publish(release_text(2, staged));
    simulation.hosts[3]->applier.probe_error = "no connection";
    EXPECT_EQ(simulation.roll_out(), Decision::Kind::halt);
    for (int i = 0; i < 10; i++)
        simulation.step_all();
    EXPECT_EQ(simulation.ever_had("dport 2 deny"), 5U);
    // The way back is a release of its own, for all at once.
    PublishOptions options;
    options.keys = {simulation.fleet.key};
    options.trusted = simulation.fleet.trusted;
    EXPECT_EQ(must(publish_former(simulation.fleet.source, 0, options)).release, 3U);
    simulation.hosts[3]->applier.probe_error.clear();
    for (int i = 0; i < 5; i++)
        simulation.step_all();
    for (const auto& host : simulation.hosts) {
        EXPECT_EQ(host->saved.release, 3U) << host->name << host->agent->error();
        EXPECT_NE(host->applier.in_force.find("dport 1 deny"), std::string::npos) << host->name;
    }
}

TEST(FleetSimulation, OneHostInAHundredMayFailAndNoMore) {
    for (const std::size_t failing : {10U, 11U}) {
        Simulation simulation(1000, 0);
        simulation.fleet.publish(
            release_text(1, "rollout: {stages: [100%], soak: 2s, max-failed: 1%}\n"));
        for (std::size_t i = 0; i < failing; i++)
            simulation.hosts[i * 7]->applier.probe_error = "no connection";
        EXPECT_EQ(simulation.roll_out(),
                  failing == 10 ? Decision::Kind::finished : Decision::Kind::halt);
    }
}

/// What must be so at any moment, whatever has happened.
void check_history(const Simulation& simulation, std::uint64_t last, unsigned seed) {
    for (const auto& host : simulation.hosts) {
        const AgentState& state = host->saved;
        ASSERT_LE(state.release, last) << seed << " " << host->name;
        ASSERT_LE(state.release, state.highest) << seed << " " << host->name;
        // In force is what the release says, unless another is being tried.
        if (host->applier.waiting.empty() && state.release != 0) {
            ASSERT_NE(host->applier.in_force.find(fmt::format("dport {} deny", state.release)),
                      std::string::npos)
                << seed << " " << host->name << " " << state.release;
        }
    }
}

TEST(FleetSimulation, RandomHistoriesNeitherGetStuckNorGoWhereTheyMustNot) {
    for (unsigned seed = 1; seed <= 200; seed++) {
        std::mt19937 random(seed);
        const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
        Simulation simulation(6, 2);
        TestFleet& fleet = simulation.fleet;
        std::uint64_t last = 0;
        std::vector<std::string> heads;
        for (int i = 0; i < 60; i++) {
            if (!fleet.source.lost && (last == 0 || chance(5))) {
                last = fleet.publish(release_text(static_cast<unsigned>(last) + 1, staged)).release;
                heads.push_back(fleet.source.files["head"]);
            }
            if (chance(20) &&
                !fleet.source.lost) { // two operators, one of whom looks before the other has acted
                const FleetView one = fleet.view(), other = fleet.view();
                must(drive(fleet.source, one));
                (void)drive(fleet.source, other);
            }
            if (!heads.empty() && chance(3)) // an old head is played again for a while
                fleet.source.files["head"] = heads[random() % heads.size()];
            if (!heads.empty() && chance(20))
                fleet.source.files["head"] = heads.back();
            fleet.source.lost = chance(5);
            for (const auto& host : simulation.hosts) {
                host->applier.probe_error = chance(4) ? "no connection" : "";
                host->now.time += chance(3) ? static_cast<std::int64_t>(random() % 7200) - 3600 : 0;
                if (chance(3))
                    host->kill_and_start();
                if (chance(80))
                    host->step();
            }
            check_history(simulation, last, seed);
            if (HasFatalFailure())
                return;
        }
        // And when all is well again, a new release reaches everybody.
        fleet.source.lost = false;
        fleet.source.files["head"] = heads.back();
        for (const auto& host : simulation.hosts)
            host->applier.probe_error.clear();
        last = fleet.publish(release_text(static_cast<unsigned>(last) + 1, staged)).release;
        ASSERT_EQ(simulation.roll_out(), Decision::Kind::finished) << seed;
        for (const auto& host : simulation.hosts)
            ASSERT_EQ(host->saved.release, last) << seed << " " << host->name;
    }
}

} // namespace
} // namespace netctl::fleet
