// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/test_fleet.hpp"

namespace netctl::fleet {

namespace {

using testing::must;

struct AgentTest : ::testing::Test {
    TestFleet fleet;
    TestHost host{"web1", {{"role", "web"}}, fleet};

    bool in_force(unsigned port) const {
        return host.applier.in_force.find(fmt::format("dport {} deny", port)) != std::string::npos;
    }
    std::string refused() {
        host.step();
        EXPECT_EQ(host.agent->state_name(), "refused");
        return host.agent->error();
    }
};

TEST_F(AgentTest, AReleaseIsTriedSoakedAndConfirmed) {
    host.step();
    EXPECT_EQ(host.agent->state_name(), "empty");
    fleet.publish(release_text(1, "rollout: {soak: 10s}\n"));
    host.step();
    EXPECT_EQ(host.agent->state_name(), "soaking");
    EXPECT_TRUE(in_force(1));
    for (int i = 0; i < 9; i++) {
        host.step();
        ASSERT_EQ(host.agent->state_name(), "soaking") << i;
    }
    host.step();
    EXPECT_EQ(host.agent->state_name(), "in-force");
    EXPECT_EQ(host.applier.waiting, "");
    EXPECT_EQ(host.saved.release, 1U);
    host.step();
    EXPECT_EQ(host.applier.applies, 1U);
}

TEST_F(AgentTest, AReleaseThatCutsAProbeIsTakenBackAndNotTriedAgain) {
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("in-force"));
    fleet.publish(release_text(2));
    host.step();
    ASSERT_TRUE(in_force(2));
    host.applier.probe_error = "no connection";
    ASSERT_TRUE(host.reaches("rolled-back"));
    EXPECT_TRUE(in_force(1));
    EXPECT_NE(host.agent->error().find("probe tcp 192.0.2.1:22"), std::string::npos);
    const unsigned applies = host.applier.applies;
    host.applier.probe_error.clear();
    host.step(600);
    host.kill_and_start();
    host.step(600);
    EXPECT_EQ(host.agent->state_name(), "rolled-back");
    EXPECT_EQ(host.applier.applies, applies);
    fleet.publish(release_text(3));
    EXPECT_TRUE(host.reaches("in-force"));
    EXPECT_TRUE(in_force(3));
}

TEST_F(AgentTest, ASingleFailureOfAProbeIsNone) {
    fleet.publish(release_text(1));
    host.step();
    host.applier.probe_error = "no connection";
    host.step();
    host.step();
    host.applier.probe_error.clear();
    EXPECT_TRUE(host.reaches("in-force"));
}

TEST_F(AgentTest, AReleaseThatCutsOffTheSourceIsTakenBack) {
    fleet.publish(release_text(1));
    host.step();
    ASSERT_EQ(host.agent->state_name(), "soaking");
    fleet.source.lost = true;
    for (int i = 0; i < 5 && host.agent->soaking(); i++)
        host.step();
    EXPECT_EQ(host.applier.in_force, "");
    EXPECT_EQ(host.saved.failed, 1U);
}

TEST_F(AgentTest, WithoutItsSourceAHostKeepsWhatItHas) {
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("in-force"));
    fleet.source.lost = true;
    ASSERT_TRUE(host.reaches("source-lost"));
    EXPECT_TRUE(in_force(1));
    fleet.source.lost = false;
    const std::string head = fleet.source.files["head"];
    fleet.source.files.erase("head");
    ASSERT_TRUE(host.reaches("source-lost"));
    EXPECT_TRUE(in_force(1));
    fleet.source.files["head"] = head;
    EXPECT_TRUE(host.reaches("in-force"));
}

TEST_F(AgentTest, AReplayedHeadIsRefused) {
    fleet.publish(release_text(1));
    const std::string first = fleet.source.files["head"];
    fleet.publish(release_text(2));
    ASSERT_TRUE(host.reaches("in-force"));
    fleet.source.files["head"] = first;
    EXPECT_NE(refused().find("release 1 is older than 2"), std::string::npos);
    host.kill_and_start();
    EXPECT_NE(refused().find("release 1 is older than 2"), std::string::npos);
    EXPECT_TRUE(in_force(2));
    EXPECT_NE(fleet.source.reports["web1"].text.find("\"refused\""), std::string::npos);
}

TEST_F(AgentTest, AHeadThatWasOnlySeenCannotBeUndercutEither) {
    const std::string canary = "rollout: {canary: [role=none]}\n";
    fleet.publish(release_text(1));
    const std::string first = fleet.source.files["head"];
    fleet.publish(release_text(2, canary));
    ASSERT_TRUE(host.reaches("waiting"));
    fleet.source.files["head"] = first;
    refused();
    EXPECT_EQ(host.applier.ever.size(), 0U);
}

TEST_F(AgentTest, OneReleaseWithTwoFilesIsRefused) {
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("in-force"));
    const std::string other = release_text(2);
    PublishOptions options;
    options.keys = {fleet.key};
    options.trusted = fleet.trusted;
    options.release = 1;
    fleet.source.files.erase("head");
    must(publish(fleet.source, other, must(parse_release("r", other)), options));
    EXPECT_NE(refused().find("signed twice"), std::string::npos);
    EXPECT_TRUE(in_force(1));
}

TEST_F(AgentTest, AForgedHeadIsRefused) {
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("in-force"));
    TestFleet other; // the same fleet's name, another key
    other.publish(release_text(2));
    other.publish(release_text(3));
    for (const auto& [name, bytes] : other.source.files)
        fleet.source.files[name] = bytes;
    EXPECT_NE(refused().find("signed by 0 of the 1 keys"), std::string::npos);
    fleet.source.files["head"] = std::string(1 << 20, 'x');
    host.step();
    EXPECT_EQ(host.agent->state_name(), "source-lost"); // it is not even read
    EXPECT_TRUE(in_force(1));
}

TEST_F(AgentTest, AHeadOfAnotherFleetIsRefused) {
    std::string text = release_text(1);
    text.replace(text.find("prod"), 4, "test");
    fleet.publish(text);
    EXPECT_NE(refused().find("of the fleet test"), std::string::npos);
}

TEST_F(AgentTest, AWrongBodyIsRefused) {
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("in-force"));
    const std::string body = body_name(fleet.publish(release_text(2)).sha256);
    const std::string good = fleet.source.files[body];
    std::string wrong = good;
    wrong.replace(wrong.find("dport 2"), 7, "dport 3");
    fleet.source.files[body] = wrong;
    EXPECT_NE(refused().find("another file than was signed"), std::string::npos);
    fleet.source.files[body] = good + "# more\n";
    EXPECT_NE(refused().find("bytes where"), std::string::npos);
    fleet.source.files[body] = must(compress(std::string(std::size_t{1} << 26, '#')));
    EXPECT_NE(refused().find("cannot be unpacked"), std::string::npos);
    fleet.source.files[body] = std::string(most_body_bytes * 2, '#');
    EXPECT_NE(refused().find("larger than"), std::string::npos);
    fleet.source.files.erase(body);
    host.step();
    EXPECT_EQ(host.agent->state_name(), "waiting");
    EXPECT_TRUE(in_force(1));
    fleet.source.files[body] = must(compress(good));
    EXPECT_TRUE(host.reaches("in-force"));
    EXPECT_TRUE(in_force(2));
}

TEST_F(AgentTest, AnExpiredHeadIsRefusedAndAClockThatGoesBackDoesNotHelp) {
    const auto publish_for = [&](unsigned port, std::int64_t seconds) {
        const std::string text = release_text(port);
        PublishOptions options;
        options.keys = {fleet.key};
        options.trusted = fleet.trusted;
        options.valid_s = seconds;
        return must(publish(fleet.source, text, must(parse_release("r", text)), options));
    };
    const Head head = publish_for(1, 60);
    host.now.time = head.published + 61;
    EXPECT_NE(refused().find("was to be taken until"), std::string::npos);
    host.now.time = head.published + 10;
    ASSERT_TRUE(host.reaches("in-force"));
    host.now.time = head.published + 1000; // it stays, once it is in force
    host.step();
    EXPECT_EQ(host.agent->state_name(), "in-force");

    // A clock that was set back by years: release 2 says what time it was at least.
    AgentState remembers = host.saved;
    remembers.published = head.published + 500;
    host.saved = remembers;
    host.kill_and_start();
    publish_for(2, 60);
    host.now.time = 1000;
    EXPECT_NE(refused().find("was to be taken until"), std::string::npos);
    EXPECT_TRUE(in_force(1));
}

TEST_F(AgentTest, AClockThatJumpsMovesNoSoak) {
    fleet.publish(release_text(1, "rollout: {soak: 10s}\n"));
    host.step();
    host.now.time += 1'000'000;
    host.step();
    EXPECT_EQ(host.agent->state_name(), "soaking");
    host.now.time -= 5'000'000;
    for (int i = 0; i < 9; i++)
        host.step();
    EXPECT_EQ(host.agent->state_name(), "in-force");
}

TEST_F(AgentTest, AnAgentThatIsKilledGoesBackAndTriesAnew) {
    fleet.publish(release_text(1));
    host.step();
    ASSERT_TRUE(in_force(1));
    host.kill_and_start();
    EXPECT_EQ(host.applier.in_force, "");
    EXPECT_TRUE(host.reaches("in-force"));
    EXPECT_TRUE(in_force(1));
}

TEST_F(AgentTest, AReleaseThatKillsTheAgentIsGivenUp) {
    fleet.publish(release_text(1));
    for (int i = 0; i < 3; i++) {
        host.step();
        ASSERT_EQ(host.agent->state_name(), "soaking") << i;
        host.kill_and_start();
    }
    host.step();
    EXPECT_EQ(host.agent->state_name(), "failed");
    EXPECT_EQ(host.applier.in_force, "");
}

TEST_F(AgentTest, KilledBetweenConfirmingAndWritingItKnowsWhatIsInForce) {
    fleet.publish(release_text(1));
    host.step();
    const AgentState before = host.saved;
    ASSERT_TRUE(host.reaches("in-force"));
    host.saved = before;
    host.kill_and_start();
    host.step();
    EXPECT_EQ(host.agent->state_name(), "in-force");
    EXPECT_TRUE(in_force(1));
    EXPECT_EQ(host.saved.release, 1U);
}

TEST_F(AgentTest, StoppedInOrderItGoesBackAndThatIsNoFailure) {
    fleet.publish(release_text(1));
    for (int i = 0; i < 5; i++) {
        host.step();
        ASSERT_EQ(host.agent->state_name(), "soaking") << i;
        host.agent->end();
        EXPECT_EQ(host.applier.in_force, "");
        host.kill_and_start();
    }
    EXPECT_TRUE(host.reaches("in-force"));
}

TEST_F(AgentTest, WhatCannotBeAppliedIsTriedThreeTimesUnlessItIsWrong) {
    host.applier.apply_error = Error::failed("the lock is held");
    fleet.publish(release_text(1));
    ASSERT_TRUE(host.reaches("failed"));
    EXPECT_EQ(host.applier.applies, 3U);
    host.applier.apply_error = Error::unsupported("this kernel cannot");
    fleet.publish(release_text(2));
    ASSERT_TRUE(host.reaches("failed"));
    EXPECT_EQ(host.applier.applies, 4U);
    host.applier.apply_error.reset();
    fleet.publish(release_text(3));
    EXPECT_TRUE(host.reaches("in-force"));
}

TEST_F(AgentTest, ANewerReleaseEndsTheTrialOfAnOlderOne) {
    fleet.publish(release_text(1, "rollout: {soak: 24h}\n"));
    host.step();
    ASSERT_TRUE(in_force(1));
    fleet.publish(release_text(2, "rollout: {soak: 5s}\n"));
    EXPECT_TRUE(host.reaches("in-force"));
    EXPECT_TRUE(in_force(2));
    EXPECT_EQ(host.saved.failed, 0U);
}

TEST_F(AgentTest, WhatAReleaseNoLongerNamesGoes) {
    fleet.publish("fleet: prod\n---\nsets: {bad: {type: cidr}, worse: {type: cidr}}\n---\nxdp: "
                  "[{interfaces: ['eth*'], rules: [src @bad drop]}]\n");
    ASSERT_TRUE(host.reaches("in-force"));
    host.saved.objects = {"set bad", "set worse", "xdp eth0", "xdp lan0"};
    host.kill_and_start();
    fleet.publish("fleet: prod\n---\nsets: {bad: {type: cidr}}\n---\nxdp: [{interfaces: ['eth*'], "
                  "rules: [src @bad pass]}]\n");
    ASSERT_TRUE(host.reaches("in-force"));
    EXPECT_EQ(host.applier.absent, (std::set<std::string>{"set worse", "xdp lan0"}));
    EXPECT_FALSE(host.saved.objects.contains("set worse"));
}

TEST_F(AgentTest, AStateThatCannotBeWrittenChangesNothing) {
    host.agent.emplace(AgentOptions{"prod", "web1", {}, fleet.trusted.keys, 1, 60}, AgentState{},
                       fleet.source, host.applier, [](const AgentState&) -> Result<> {
                           return Error::system(ENOSPC, "cannot write state.json");
                       });
    fleet.publish(release_text(1));
    host.step();
    EXPECT_EQ(host.agent->state_name(), "failed");
    EXPECT_EQ(host.applier.applies, 0U);
}

TEST_F(AgentTest, ALargeFileIsNotFetchedByAllAtOnce) {
    host.agent.emplace(AgentOptions{"prod", "web1", {}, fleet.trusted.keys, 1, 60, 1000},
                       AgentState{}, fleet.source, host.applier,
                       [](const AgentState&) { return Result<>(); });
    fleet.publish(release_text(1) + "#" + std::string(std::size_t{1} << 20, 'x') + "\n");
    host.step();
    EXPECT_TRUE(host.agent->retries());
    EXPECT_EQ(host.applier.applies, 0U);
    // A mebibyte: within 17 seconds, whatever chance says, and then at once.
    host.step(17);
    EXPECT_EQ(host.applier.applies, 1U);
}

TEST_F(AgentTest, HaltedOrNotItsTurnAHostWaitsAndSaysSo) {
    fleet.publish(release_text(1, "rollout: {canary: [role=db], stages: [100%]}\n"));
    host.step();
    EXPECT_EQ(host.agent->state_name(), "waiting");
    EXPECT_NE(host.agent->error().find("turn of stage canary"), std::string::npos);
    must(next_stage(fleet.source, fleet.view()));
    must(halt(fleet.source, fleet.view(), "somebody said so"));
    host.step();
    EXPECT_EQ(host.agent->error(), "halted: somebody said so");
    fleet.source.files["rollout-1"] = "nonsense";
    host.step();
    EXPECT_EQ(host.agent->state_name(), "waiting");
    EXPECT_EQ(host.applier.applies, 0U);
}

TEST(AgentState, IsReadBackAsItWas) {
    const AgentState state{7, "ab", 12, 6, "cd",     {"set a", "policy"},
                           7, "id", 2,  5, "failed", "why"};
    EXPECT_EQ(must(parse_agent_state(agent_state_text(state))), state);
    EXPECT_FALSE(parse_agent_state(""));
    EXPECT_FALSE(parse_agent_state("{}"));
}

} // namespace
} // namespace netctl::fleet
