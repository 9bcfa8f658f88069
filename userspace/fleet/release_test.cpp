// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/release.hpp"

#include <array>

#include <gtest/gtest.h>

#include "fleet/line_diff.hpp"
#include "testing/must.hpp"

namespace netctl::fleet {

namespace {

using testing::must;

constexpr const char* example = R"(# what runs where
fleet: prod
rollout:
  canary: [role=canary]
  stages: [1%, 12.5%, 100%]
  soak: 60s
  max-failed: 1%
probes:
  - tcp 192.0.2.1:22
  - tcp [2001:db8::1]:443
  - http http://127.0.0.1/health
  - netctl status
inventory:
  web1: {role: web, zone: eu-1}
  web2: {role: web, zone: eu-2}
  db1:
    role: db
---
# for all
sets:
  bad: {type: cidr, elements: [192.0.2.0/24]}
---
hosts:
  labels: [role=web, not zone=eu-2]
# in between
xdp:
  - interfaces: [eth0]
    rules: [src @bad drop]
---
policy:
  rules: [dport 25 deny]
hosts: {names: ['db*', web2]}
)";

std::string error_of(const std::string& text) {
    const auto release = parse_release("r.yaml", text);
    return release.has_value() ? "" : release.error().what.string();
}

TEST(Release, IsReadWithAllThatItSays) {
    const Release release = must(parse_release("r.yaml", example));
    EXPECT_EQ(release.fleet, "prod");
    EXPECT_EQ(release.rollout.stages, (std::vector<unsigned>{100, 1250, 10000}));
    EXPECT_EQ(release.rollout.soak, std::chrono::seconds(60));
    EXPECT_EQ(release.rollout.max_failed, 100U);
    EXPECT_EQ(release.rollout.stage_name(0), "canary");
    EXPECT_EQ(release.rollout.stage_name(2), "12.5%");
    ASSERT_EQ(release.probes.size(), 4U);
    EXPECT_EQ(release.probes[1].to_string(), "tcp [2001:db8::1]:443");
    EXPECT_EQ(release.inventory.at("web1"), (Labels{{"role", "web"}, {"zone", "eu-1"}}));
    ASSERT_EQ(release.documents.size(), 3U);
    EXPECT_EQ(release.documents[1].line, 23U);
}

TEST(Release, AHostGetsItsDocumentsAndIsToldOfTheOthers) {
    const Release release = must(parse_release("r.yaml", example));
    const Rendered web1 = must(render(release, host_of(release, "web1", {})));
    EXPECT_EQ(web1.text(),
              "# for all\nsets:\n  bad: {type: cidr, elements: [192.0.2.0/24]}\n---\n"
              "# in between\nxdp:\n  - interfaces: [eth0]\n    rules: [src @bad drop]\n");
    ASSERT_EQ(web1.skipped.size(), 1U);
    EXPECT_EQ(web1.skipped[0].why, "it is for hosts of other names");
    const Rendered web2 = must(render(release, host_of(release, "web2", {})));
    EXPECT_EQ(web2.titles, (std::set<std::string>{"set bad", "policy"}));
    EXPECT_EQ(web2.skipped[0].why, "it is for not zone=eu-2, and the host has zone=eu-2");
    const Rendered other = must(render(release, host_of(release, "x", {})));
    EXPECT_EQ(other.skipped[0].why, "it is for role=web, and the host has no label role");
    // What a host says of itself does not go before what is signed.
    const Host claims = host_of(release, "db1", {{"role", "web"}, {"rack", "7"}});
    EXPECT_EQ(claims.labels, (Labels{{"role", "db"}, {"rack", "7"}}));
    EXPECT_NE(web1.sha256(), web2.sha256());
    EXPECT_EQ(web1.sha256(), must(render(release, host_of(release, "web1", {}))).sha256());
}

TEST(Release, ErrorsTellTheirPlaceInTheFile) {
    EXPECT_NE(error_of("fleet: prod\n---\nxdp:\n  - interfaces: [eth0]\n    rules: [src 1 drop]\n")
                  .find("r.yaml:5:"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\n---\nhosts: {labels: [role]}\npolicy: {}\n")
                  .find("r.yaml:3:18: 'role' is no label"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\n---\nhosts: {}\npolicy: {}\n").find("selects nobody"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\n---\n{hosts: {names: a}, policy: {}}\n").find("first column"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\n---\nsets: {a: {type: cidr, file: /etc/passwd}}\n")
                  .find("r.yaml:3:"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\nrolout: {}\n").find("did you mean 'rollout'"),
              std::string::npos);
    EXPECT_NE(error_of("rollout: {}\n").find("needs the key 'fleet'"), std::string::npos);
    EXPECT_NE(error_of("").find("the first document"), std::string::npos);
    EXPECT_NE(error_of("fleet: prod\nprobes: [tcp 192.0.2.1]\n").find("is no probe"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\nprobes: [tcp 192.0.2.1:65536]\n").find("is no probe"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: prod\nprobes: [http file:///etc/passwd]\n").find("is no probe"),
              std::string::npos);
    EXPECT_NE(error_of("fleet: ../prod\n").find("no name of a fleet"), std::string::npos);
    EXPECT_NE(error_of("fleet: prod\ninventory: {../x: {}}\n").find("no name of a host"),
              std::string::npos);
    // One in each of two documents: both are told.
    const std::string two = error_of("fleet: prod\n---\nxdp: 1\n---\ntc: 1\n");
    EXPECT_NE(two.find("r.yaml:3:"), std::string::npos);
    EXPECT_NE(two.find("r.yaml:5:"), std::string::npos);
}

TEST(Release, StagesAndBoundsThatCannotBeAreRefused) {
    const auto rollout = [](const std::string& words) {
        return error_of("fleet: prod\nrollout: {" + words + "}\n");
    };
    EXPECT_EQ(rollout("stages: [0.01%, 100%]"), "");
    EXPECT_EQ(rollout("max-failed: 0%"), "");
    for (const char* wrong :
         {"stages: [0%, 100%]", "stages: [50%]", "stages: [10%, 10%, 100%]", "stages: [101%]",
          "stages: []", "stages: [50%, 10%, 100%]", "stages: [100]", "stages: [0.001%, 100%]",
          "stages: [-1%, 100%]", "max-failed: 101%", "max-failed: 1", "max-failed: ''", "soak: 0s",
          "soak: 25h", "soak: 10", "canary: [web]"})
        EXPECT_NE(rollout(wrong), "") << wrong;
}

TEST(Release, TwoDocumentsForOneHostMustNotBeAboutTheSame) {
    const std::string text = "fleet: prod\n---\npolicy: {}\n---\nhosts: {names: a}\npolicy: {}\n";
    const Release release = must(parse_release("r.yaml", text));
    EXPECT_TRUE(bool(render(release, {"b", {}})));
    const auto twice = render(release, {"a", {}});
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().what, "r.yaml:5: policy is told of twice for the host a");
}

TEST(Rollout, StagesHaveTheirShareAndEachHasTheOneBefore) {
    const Release release = must(parse_release("r.yaml", example));
    const Rollout& rollout = release.rollout;
    std::array<unsigned, 4> counts{};
    for (unsigned i = 0; i < 20'000; i++) {
        const std::string name = fmt::format("host{}", i);
        bool before = false;
        for (std::size_t stage = 0; stage < 4; stage++) {
            const bool in = rollout.includes(stage, name, {}, 7);
            EXPECT_TRUE(in || !before) << name << stage;
            EXPECT_EQ(in, rollout.includes(stage, name, {}, 7));
            counts[stage] += in;
            before = in;
        }
    }
    // Of the hash, which is the same everywhere: shares within a fifth of what they should be.
    EXPECT_EQ(counts[0], 0U);
    EXPECT_NEAR(counts[1], 200, 40);
    EXPECT_NEAR(counts[2], 2500, 250);
    EXPECT_EQ(counts[3], 20'000U);
    EXPECT_TRUE(rollout.includes(0, "x", {{"role", "canary"}}, 7));
    EXPECT_TRUE(rollout.includes(1, "x", {{"role", "canary"}}, 7));
}

std::vector<Report> reports(std::size_t done, std::size_t failed, std::size_t old,
                            std::int64_t age = 400) {
    std::vector<Report> all;
    for (std::size_t i = 0; i < done + failed + old; i++) {
        Report report;
        report.host = fmt::format("h{}", i);
        report.state = i < done ? "in-force" : i < done + failed ? "rolled-back" : "waiting";
        report.release = i < done ? 7 : 6;
        report.candidate = i < done ? 0 : 7;
        report.age = i < done + failed ? 0 : age;
        all.push_back(std::move(report));
    }
    return all;
}

TEST(Rollout, FailedAndSilentHostsAreCountedAnewEachTime) {
    Rollout rollout;
    rollout.max_failed = 1000; // 10 %
    RolloutState state{7, 0, false, "", "", 0};
    using Kind = Decision::Kind;
    EXPECT_EQ(decide(rollout, state, {}, reports(10, 0, 0), 2000, 300).kind, Kind::finished);
    EXPECT_EQ(decide(rollout, state, {}, reports(9, 1, 0), 2000, 300).kind, Kind::finished);
    EXPECT_EQ(decide(rollout, state, {}, reports(8, 2, 0), 2000, 300).kind, Kind::halt);
    // A host that died while it applied is silent, and holds nothing up; before that is sure, it is waited for.
    EXPECT_EQ(decide(rollout, state, {}, reports(9, 0, 1), 2000, 300).kind, Kind::finished);
    EXPECT_EQ(decide(rollout, state, {}, reports(9, 0, 1), 200, 300).kind, Kind::wait);
    EXPECT_EQ(decide(rollout, state, {}, reports(8, 1, 1), 2000, 300).kind, Kind::halt);
    // One that was gone before the stage began is nobody's to wait for, unless the inventory has it.
    state.since = 1900;
    EXPECT_EQ(decide(rollout, state, {}, reports(5, 0, 5, 1000), 2000, 300).kind, Kind::finished);
    EXPECT_EQ(decide(rollout, state, {{"h9", {}}}, reports(5, 0, 5, 1000), 2000, 300).kind,
              Kind::wait);
    state.halted = true;
    state.why = "because";
    const Decision halted = decide(rollout, state, {}, reports(10, 0, 0), 2000, 300);
    EXPECT_EQ(halted.kind, Kind::wait);
    EXPECT_EQ(halted.why, "halted: because");
}

TEST(Rollout, AStageOfCanariesWithoutAnyDoesNotEnd) {
    Rollout rollout;
    rollout.canary = {must(parse_label_term("role=canary"))};
    const RolloutState state{7, 0, false, "", "", 0};
    const Decision decision = decide(rollout, state, {}, reports(3, 0, 0), 2000, 300);
    EXPECT_EQ(decision.kind, Decision::Kind::wait);
    EXPECT_EQ(decision.why, "no host is a canary");
}

TEST(Rollout, AStateIsReadBackAsItWas) {
    const RolloutState state{7, 2, true, "why", "me@here (1)", 1'764'500'000};
    EXPECT_EQ(must(parse_rollout_state(rollout_state_text(state))), state);
    for (const char* wrong : {"", "[]", "{}", R"({"release":-1,"stage":0,"halted":false})"})
        EXPECT_FALSE(parse_rollout_state(wrong)) << wrong;
}

TEST(LineDiff, ShowsWhatCameAndWent) {
    EXPECT_EQ(line_diff("a\nb\nc\n", "a\nb\nc\n"), std::vector<std::string>{});
    EXPECT_EQ(line_diff("a\nb\nc\n", "a\nx\nc\nd\n"),
              (std::vector<std::string>{" a", "-b", "+x", " c", "+d"}));
    EXPECT_EQ(line_diff("", "a\n"), std::vector<std::string>{"+a"});
    EXPECT_EQ(line_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "x\n2\n3\n4\n5\n6\n7\n8\ny\n"),
              (std::vector<std::string>{"-1", "+x", " 2", " 3", " 4", "…", " 6", " 7", " 8", "-9",
                                        "+y"}));
}

} // namespace
} // namespace netctl::fleet
