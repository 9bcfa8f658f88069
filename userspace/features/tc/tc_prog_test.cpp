// SPDX-License-Identifier: GPL-2.0-only
//
// The tc program against the reference (invariant I7), and what only tc does: marks, priorities, DSCP,
// rates, packets without Ethernet header, packets that are many.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "classifier/packet.hpp"
#include "netctl/abi/classify.h" // of the skeleton's types
#include "tc_filter.skel.h"
#include "testing/answer.hpp"
#include "testing/environment.hpp"
#include "testing/examples.hpp"
#include "testing/fuzz.hpp"
#include "testing/judgement.hpp"
#include "testing/limit_model.hpp"
#include "testing/must.hpp"
#include "testing/packet.hpp"
#include "testing/prog_run.hpp"

namespace netctl::testing {

namespace {

constexpr std::int32_t tc_next = -1, tc_pass = 0, tc_drop = 2, tc_redirect = 7;
constexpr std::size_t longest_frame = 3000;

std::int32_t code_of(std::uint32_t verdict) {
    switch (verdict) {
    case NC_VERDICT_PASS: return tc_pass;
    case NC_VERDICT_NEXT: return tc_next;
    case NC_VERDICT_REDIRECT: return tc_redirect;
    default: return tc_drop;
    }
}

ProgRun must_load(ProgSetup setup) {
    setup.hook = Hook::tc;
    return must(ProgRun::load<::tc_filter>("tc_filter", setup), to_text(setup));
}

std::vector<Rule> rules(std::initializer_list<std::string> texts) {
    return must_parse(Hook::tc, texts);
}

__sk_buff marked(std::uint32_t mark) {
    __sk_buff skb{};
    skb.mark = mark;
    return skb;
}

/// Runs a simulating program as `netctl tc simulate` does.
SkbRun must_simulate(const ProgRun& run, Bytes frame, std::uint32_t mark) {
    __sk_buff skb = marked(mark);
    skb.cb[0] = static_cast<__u32>(frame.size());
    frame.resize(std::max<std::size_t>(frame.size(), 62));
    return must(run.run_skb(frame, skb));
}

// ---- against the reference ----

/// Rules of XDP as tc has them: `tx` is `next`, and every now and then a mark is asked for.
std::vector<Rule> tc_rules(Fuzz& fuzz, std::vector<Rule> rules) {
    for (Rule& rule : rules) {
        for (Action& action : rule.actions)
            if (action.kind == ActionKind::tx)
                action.kind = ActionKind::next;
        if (fuzz.percent(15)) {
            Match match;
            match.key = Key::mark;
            match.negated = fuzz.percent(30);
            const auto mask = static_cast<std::uint32_t>(fuzz.pick({0xffffffffU, 0xffU, 1U}));
            match.masked = Masked{static_cast<std::uint32_t>(fuzz.below(4)) & mask, mask};
            rule.matches.push_back(match);
        }
    }
    return rules;
}

TEST(TcFuzz, RandomRulesAndPacketsAgreeWithTheReference) {
    const std::uint64_t cases = from_environment("NETCTL_FUZZ_CASES", 30'000);
    std::map<std::uint32_t, std::uint64_t> reasons;
    std::uint64_t done = 0, answers = 0, added = 0;
    for (std::uint64_t seed = 1; done < cases && !HasFailure(); seed++) {
        Fuzz fuzz(seed);
        const bool ether = seed % 4 != 0;
        std::vector<Bytes> frames;
        std::vector<nc_packet> seen;
        while (frames.size() < 1200) {
            Bytes frame = fuzz.frame().bytes;
            if (frame.size() > longest_frame)
                continue;
            if (!ether) { // the IP packet within
                const auto parsed = classifier::parse_ethernet(frame);
                if (parsed.packet.has & NC_HAS_VLAN || frame.size() < 28)
                    continue;
                frame.erase(frame.begin(), frame.begin() + 14);
            }
            seen.push_back(
                (ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame)).packet);
            frames.push_back(std::move(frame));
        }
        ProgSetup setup;
        setup.sets = fuzz.sets(seen);
        setup.rules = tc_rules(fuzz, fuzz.rules(fuzz.below(40), seen, setup.sets));
        fuzz.limit_some(setup.rules, setup.sets);
        setup.accounts = 1 << 14;
        setup.default_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP, NC_VERDICT_NEXT});
        setup.unparsed_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP, NC_VERDICT_NEXT});
        setup.constants = {{"has_ether", ether},
                           {"errors_interval", 0}}; // of ICMP errors: no bound
        setup.simulate = true;
        const ProgRun simulating = must_load(setup);
        setup.simulate = false;
        const ProgRun plain = must_load(setup);
        std::uint64_t ran = 0;
        ProgSetup live = setup; // with what limits have put into sets
        LimitModel limits;
        for (const Bytes& frame : frames) {
            const auto mark = static_cast<std::uint32_t>(fuzz.below(4));
            classifier::Parsed parsed =
                ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame);
            parsed.packet.mark = mark;
            nc_result expected = expected_result(live, parsed);
            if (expected.reason == NC_REASON_RULE && setup.rules[expected.position].limit &&
                limits.over(live, expected.position, parsed.packet)) {
                expected.verdict = NC_VERDICT_DROP;
                expected.reason = NC_REASON_LIMIT;
            }
            reasons[expected.reason]++;
            const std::string where =
                fmt::format("\nseed {}\n{}rules: {}", seed, hex(frame), to_text(setup));
            const nc_told told = fuzz.told();
            const nc_result simulated = expected_result(setup, with_told(parsed, told));
            simulating.tell(told);
            SkbRun run = must_simulate(simulating, frame, mark);
            ASSERT_TRUE(same(simulating.result(), simulated) &&
                        run.action == code_of(simulated.verdict))
                << "kernel:    " << to_text(simulating.result())
                << "\nreference: " << to_text(simulated) << "\nreturned " << run.action << where;
            std::int32_t code = code_of(expected.verdict);
            if (expected.verdict == NC_VERDICT_REDIRECT &&
                setup.rules[expected.position].actions.back().device != "lo")
                code = tc_drop;
            const auto answer =
                expected.verdict == NC_VERDICT_REJECT ? answer_to(frame, ether) : std::nullopt;
            if (answer)
                code = tc_redirect;
            done++;
            const auto really = plain.run_skb(frame, marked(mark));
            if (!really) { // newer kernels make no skb of a cut IP packet
                ASSERT_EQ(really.error().code, EINVAL) << where;
                ASSERT_EQ(expected.unparsed, NC_UNPARSED_CUT) << where;
                continue;
            }
            ran++;
            ASSERT_EQ(really->action, code) << to_text(expected) << where;
            answers += answer.has_value();
            const Bytes& left = answer ? *answer : frame;
            ASSERT_TRUE(really->frame == left) << "kernel:\n"
                                               << hex(really->frame) << "reference:\n"
                                               << hex(left) << where;
        }
        EXPECT_EQ(must(plain.stats()).packets, ran);
        const nc_over_adds adds = must(plain.over_adds());
        EXPECT_EQ(std::memcmp(&adds, &limits.adds(), sizeof adds), 0) << "seed " << seed;
        added += adds.added;
        EXPECT_EQ(must(simulating.stats()).packets, 0U) << "simulation leaves no trace";
    }
    if (done < 20000)
        return;
    EXPECT_GT(reasons[NC_REASON_RULE], done / 5);
    EXPECT_GT(reasons[NC_REASON_DEFAULT], done / 20);
    EXPECT_GT(reasons[NC_REASON_UNPARSED], done / 20);
    EXPECT_GT(answers, done / 50);
    EXPECT_GT(reasons[NC_REASON_LIMIT], done / 100);
    EXPECT_GT(added, done / 1000);
}

// ---- actions ----

TEST(Tc, EachVerdictHasItsReturnCodeAndCounters) {
    const ProgRun run =
        must_load({.rules = rules({"dport 1 pass", "dport 2 drop", "dport 3 next",
                                   "dport 4 redirect lo", "dport 5 redirect gone0"}),
                   .default_verdict = NC_VERDICT_NEXT});
    const auto frame = [](std::uint16_t port) {
        return (Ether{} / Ipv4{} / Udp{.dport = port} / Payload{58}).bytes();
    };
    const std::int32_t codes[] = {tc_next, tc_pass, tc_drop, tc_next, tc_redirect, tc_drop};
    for (std::uint16_t port = 0; port < 6; port++)
        EXPECT_EQ(must(run.run_skb(frame(port))).action, codes[port]) << port;
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.packets, 6U);
    EXPECT_EQ(stats.bytes, 600U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_PASS], 1U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_DROP], 2U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_NEXT], 2U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_REDIRECT], 1U);
    EXPECT_EQ(stats.redirect_failed, 1U);
    EXPECT_EQ(must(run.counter(4)).packets, 1U);
}

TEST(Tc, MarkAndPriorityAreWritten) {
    const ProgRun run = must_load(
        {.rules = rules({"mark 5 mark 7", "dport 1 mark 0x20/0xf0", "dport 2 priority 1:10 pass",
                         "dport 3 priority 6 mark 9 drop"})});
    const auto send = [&](std::uint16_t port, std::uint32_t mark) {
        return must(run.run_skb((Ether{} / Ipv4{} / Udp{.dport = port}).bytes(), marked(mark))).skb;
    };
    EXPECT_EQ(send(1, 5).mark, 7U) << "the first rule that matches decides";
    EXPECT_EQ(send(1, 0xabcd).mark, 0xab2dU) << "bits outside of the mask stay";
    EXPECT_EQ(send(2, 3).priority, 0x10010U);
    EXPECT_EQ(send(2, 3).mark, 3U);
    EXPECT_EQ(send(4, 3).mark, 3U) << "not by a rule";
    EXPECT_EQ(send(4, 3).priority, 0U);
}

/// The checksum of an IPv4 header, which is 0 over a right one.
std::uint16_t header_sum(std::span<const std::uint8_t> header) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i + 1 < header.size(); i += 2)
        sum += header[i] * 256U + header[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

TEST(Tc, DscpIsWrittenWithItsChecksum) {
    const ProgRun run = must_load({.rules = rules({"then dscp ef pass"})});
    for (const std::size_t tags : {0, 1, 2}) {
        for (const std::uint8_t options : {0, 3}) {
            Packet packet = Ether{};
            for (std::size_t i = 0; i < tags; i++)
                packet /= Vlan{static_cast<std::uint16_t>(i + 5)};
            packet /= Ipv4{.dscp = 10, .option_words = options};
            packet /= Tcp{};
            packet /= Payload{20};
            Bytes expected = packet.bytes();
            const std::size_t start = 14 + 4 * tags;
            expected[start + 1] |= 2; // ECN bits, with a checksum for them
            expected[start + 10] = expected[start + 11] = 0;
            const std::size_t size = 20 + 4U * options;
            std::uint16_t sum = header_sum(std::span(expected).subspan(start, size));
            expected[start + 10] = static_cast<std::uint8_t>(sum >> 8);
            expected[start + 11] = static_cast<std::uint8_t>(sum & 0xff);
            const Bytes sent = must(run.run_skb(expected)).frame;
            ASSERT_EQ(sent.size(), expected.size());
            EXPECT_EQ(sent[start + 1], 46 << 2 | 2) << tags << " tags";
            EXPECT_EQ(header_sum(std::span(sent).subspan(start, size)), 0) << tags << " tags";
            // Nothing else has changed.
            for (const std::size_t at : {1, 10, 11})
                expected[start + at] = sent[start + at];
            EXPECT_EQ(sent, expected);
        }
        Packet packet = Ether{};
        for (std::size_t i = 0; i < tags; i++)
            packet /= Vlan{static_cast<std::uint16_t>(i + 5)};
        packet /= Ipv6{.dscp = 63};
        packet /= Extension{.kind = 0};
        packet /= Tcp{};
        Bytes expected = packet.bytes();
        const std::size_t start = 14 + 4 * tags;
        expected[start + 1] |= 0x1f; // ECN and the start of the flow label
        const Bytes sent = must(run.run_skb(expected)).frame;
        expected[start] = 0x60 | 46 >> 2;
        expected[start + 1] =
            static_cast<std::uint8_t>((46 & 3) << 6 | 0x1f | (expected[start + 1] & 0x20));
        EXPECT_EQ(sent, expected) << tags << " tags";
    }
    const Bytes arp = (Ether{.type = 0x0806} / Payload{28}).bytes();
    EXPECT_EQ(must(run.run_skb(arp)).frame, arp) << "no IP packet";
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.rewrite_failed, 0U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_PASS], stats.packets);
}

TEST(Tc, DscpOfPacketsWithoutEthernetHeader) {
    const ProgRun run = must_load({.rules = rules({"dscp 10 dscp 11 pass", "then dscp ef pass"}),
                                   .constants = {{"has_ether", 0}}});
    for (const Packet& packet : {Ether{} / Ipv4{.dscp = 10} / Tcp{}, Ether{} / Ipv6{} / Udp{}}) {
        Bytes bytes = packet.bytes();
        bytes.erase(bytes.begin(), bytes.begin() + 14);
        const bool four = bytes[0] >> 4 == 4;
        const Bytes sent = must(run.run_skb(bytes)).frame;
        const auto parsed = classifier::parse_ip(sent);
        ASSERT_TRUE(parsed.parsed);
        EXPECT_EQ(parsed.packet.dscp, four ? 11 : 46);
        if (four) {
            EXPECT_EQ(header_sum(std::span(sent).first(20)), 0);
        }
    }
}

TEST(Tc, AMirrorThatIsGoneIsCountedAndThePacketGoesOn) {
    const ProgRun run = must_load({.rules = rules({"mirror gone0 pass"})});
    EXPECT_EQ(must(run.run_skb((Ether{} / Ipv4{} / Udp{}).bytes())).action, tc_pass);
    EXPECT_EQ(must(run.stats()).mirror_failed, 1U);
}

// ---- packets that are many ----

TEST(Tc, APacketLongerThanItsHeaderCanSayIsParsed) {
    const ProgRun run =
        must_load({.rules = rules({"dport 443 pass"}), .default_verdict = NC_VERDICT_NEXT});
    for (Bytes frame : {(Ether{} / Ipv4{.total_length = 0} / Tcp{.dport = 443}).bytes(),
                        (Ether{} / Ipv6{.payload_length = 0} / Tcp{.dport = 443}).bytes()}) {
        frame.resize(2000);
        EXPECT_NE(must(run.run_skb(frame)).action, tc_pass) << "only as one of many";
        __sk_buff skb{};
        skb.gso_segs = 2;
        skb.gso_size = 1400;
        EXPECT_EQ(must(run.run_skb(frame, skb)).action, tc_pass);
    }
}

// ---- rates: so low that the time that tests take gives no byte back ----

constexpr std::uint64_t kilobyte_hour = 8 * 1000 / 3600 + 1; // bits a second: some bytes a minute

TEST(TcRate, WithoutFqWhatIsAboveTheBurstIsDropped) {
    const ProgRun run = must_load(
        {.rules = rules({fmt::format("proto udp rate {}bit burst 1000 pass", 8 * kilobyte_hour)})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{358}).bytes();
    ASSERT_EQ(frame.size(), 400U);
    // While less than the burst is on its way, a packet may go.
    const std::int32_t expected[] = {tc_pass, tc_pass, tc_pass, tc_drop, tc_drop};
    for (const std::int32_t code : expected)
        EXPECT_EQ(must(run.run_skb(frame)).action, code);
    EXPECT_EQ(must(run.run_skb((Ether{} / Ipv4{} / Tcp{}).bytes())).action, tc_pass)
        << "not its packet";
    const nc_counter counter = must(run.counter(0));
    EXPECT_EQ(counter.packets, 3U);
    EXPECT_EQ(counter.bytes, 1200U);
    EXPECT_EQ(counter.over_packets, 2U);
    EXPECT_EQ(counter.over_bytes, 800U);
    EXPECT_EQ(must(run.stats()).over_rate, 2U);
    EXPECT_EQ(must(run.stats()).limit_failed, 0U);
}

TEST(TcRate, CountsTheHeadersOfAllSegments) {
    const ProgRun run = must_load({.rules = rules({"rate 16bit burst 1000 pass"})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{58}).bytes();
    __sk_buff skb{};
    skb.wire_len = 1001;
    EXPECT_EQ(must(run.run_skb(frame, skb)).action, tc_pass);
    EXPECT_EQ(must(run.run_skb(frame, skb)).action, tc_drop);
}

TEST(TcRate, ThroughFqPacketsGetTheirDepartureTimes) {
    constexpr std::uint64_t ns = 400ULL * 8 * 1'000'000'000 / 100'000; // of a packet at 100 kbit/s
    const ProgRun run =
        must_load({.rules = rules({"rate 100kbit pass"}), .constants = {{"by_departure", 1}}});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{358}).bytes();
    EXPECT_EQ(must(run.run_skb(frame)).skb.tstamp, 0U) << "the first one may leave at once";
    const std::uint64_t second = must(run.run_skb(frame)).skb.tstamp;
    EXPECT_NE(second, 0U);
    for (std::uint64_t i = 1; i < 10; i++)
        EXPECT_EQ(must(run.run_skb(frame)).skb.tstamp, second + i * ns) << i;
    std::size_t dropped = 0;
    for (int i = 0; i < 100; i++)
        dropped += must(run.run_skb(frame)).action == tc_drop;
    // Half a second of waiting holds some fifteen of these.
    EXPECT_GT(dropped, 50U);
    EXPECT_EQ(must(run.stats()).over_rate, dropped);
}

TEST(TcRate, NoCpuLosesAnothersBytes) {
    constexpr std::uint64_t each = 20'000;
    const ProgRun run = must_load({.rules = rules({"rate 8tbit burst 4000m pass"})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{958}).bytes();
    const auto rates = run.map("rates");
    ASSERT_TRUE(rates) << rates.error().what;
    // From a moment in the future on, but within the burst, which takes four seconds, the time that is
    // taken tells the bytes that were let through.
    const std::uint32_t rule = 1;
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const std::uint64_t start = static_cast<std::uint64_t>(now.tv_sec + 3) * 1'000'000'000;
    nc_rate_state state{start};
    ASSERT_TRUE(rates->update(&rule, &state));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&] { EXPECT_TRUE(run.time(frame, each)); });
    for (std::thread& thread : threads)
        thread.join();
    ASSERT_TRUE(must(rates->lookup(&rule, &state)));
    const nc_counter counter = must(run.counter(0));
    EXPECT_EQ(counter.packets + counter.over_packets, 4 * each);
    EXPECT_EQ(must(run.stats()).limit_failed, 0U);
    EXPECT_EQ(state.departure_ns - start, counter.packets); // a nanosecond each
}

// ---- the examples that the reference is held to ----

TEST(TcExamples, UnparsedFramesGetTheirVerdictAndAreCounted) {
    ProgSetup setup{.rules = rules({"pass"}), .unparsed_verdict = NC_VERDICT_NEXT};
    const ProgRun run = must_load(setup);
    setup.simulate = true;
    const ProgRun simulating = must_load(setup);
    nc_stats expected{};
    for (const Fault& fault : faults()) {
        EXPECT_EQ(must_simulate(simulating, fault.frame, 0).action, tc_next) << fault.what;
        EXPECT_EQ(simulating.result().unparsed, fault.reason) << fault.what;
        const auto really = run.run_skb(fault.frame);
        if (!really)
            continue; // newer kernels make no skb of a cut IP packet
        EXPECT_EQ(really->action, tc_next) << fault.what;
        expected.unparsed[fault.reason]++;
    }
    const nc_stats stats = must(run.stats());
    for (int reason = 0; reason < NC_UNPARSED_REASONS; reason++)
        EXPECT_EQ(stats.unparsed[reason], expected.unparsed[reason]) << "reason " << reason;
}

} // namespace

} // namespace netctl::testing
