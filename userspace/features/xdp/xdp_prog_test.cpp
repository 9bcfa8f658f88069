// SPDX-License-Identifier: GPL-2.0-only
//
// The XDP program against the reference (invariant I7), and what the reference does not know:
// limits, log, counters, frames of several buffers, redirect targets.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include <netinet/in.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bpf/ring_buffer.hpp"
#include "classifier/packet.hpp"
#include "core/fd.hpp"
#include "netctl/abi/classify.h" // of the skeleton's types
#include "testing/answer.hpp"
#include "testing/environment.hpp"
#include "testing/examples.hpp"
#include "testing/fuzz.hpp"
#include "testing/judgement.hpp"
#include "testing/limit_model.hpp"
#include "testing/must.hpp"
#include "testing/packet.hpp"
#include "testing/prog_run.hpp"
#include "xdp_filter.skel.h"

namespace netctl::testing {

namespace {

constexpr std::uint32_t xdp_drop = 1, xdp_pass = 2, xdp_tx = 3, xdp_redirect = 4;

Result<ProgRun> load(const ProgSetup& setup) {
    return ProgRun::load<::xdp_filter>("xdp_filter", setup);
}

std::uint32_t code_of(std::uint32_t verdict) {
    switch (verdict) {
    case NC_VERDICT_PASS:
    case NC_VERDICT_SYNCOOKIE: return xdp_pass; // nobody listens
    case NC_VERDICT_TX: return xdp_tx;
    case NC_VERDICT_REDIRECT: return xdp_redirect;
    default: return xdp_drop;
    }
}

/// Whether this kernel lets a test say how much of a frame is in the first buffer (6.18).
bool can_split(const ProgRun& run) {
    const Bytes frame = (Ether{} / Payload{100}).bytes();
    return run.run(frame, 14).has_value();
}

/// One list of rules over many frames: a simulating program tells positions and fields, a plain one
/// shows that fetching only the wanted fields leads to the same verdicts, and counts.
class Comparison {
  public:
    Comparison(const ProgSetup& setup, std::uint64_t seed)
        : setup_(setup), live_(setup), seed_(seed) {}

    void load_programs() {
        setup_.simulate = true;
        auto simulating = load(setup_);
        ASSERT_TRUE(simulating) << simulating.error().what << "\n" << to_text(setup_);
        setup_.simulate = false;
        auto plain = load(setup_);
        ASSERT_TRUE(plain) << plain.error().what << "\n" << to_text(setup_);
        simulating_.emplace(std::move(simulating).value());
        plain_.emplace(std::move(plain).value());
        counters_.resize(setup_.rules.size());
        splits_ = can_split(*simulating_);
    }

    void check(const Frame& frame, Fuzz& fuzz) {
        std::optional<std::uint32_t> linear;
        if (splits_ && fuzz.percent(25))
            linear = static_cast<std::uint32_t>(
                14 + fuzz.below(std::min<std::size_t>(frame.bytes.size(), 3000) - 13));
        // The namespace of the tests has no sockets: the plain program finds none.
        const classifier::Parsed parsed = classifier::parse_ethernet(frame.bytes);
        const nc_told told = fuzz.told();
        const nc_result simulated = expected_result(setup_, with_told(parsed, told));
        simulating_->tell(told);
        auto action = simulating_->run(frame.bytes, linear);
        ASSERT_TRUE(action) << action.error().what;
        const nc_result& found = simulating_->result();
        EXPECT_TRUE(same(found, simulated) && *action == code_of(simulated.verdict))
            << "kernel:    " << to_text(found) << "\nreference: " << to_text(simulated)
            << "\nreturned " << *action << where(frame, linear);

        nc_result expected = expected_result(live_, parsed);
        if (expected.reason == NC_REASON_RULE && setup_.rules[expected.position].limit &&
            limits_.over(live_, expected.position, parsed.packet)) {
            expected.verdict = setup_.rules[expected.position].limit->over_syncookie
                                   ? NC_VERDICT_SYNCOOKIE
                                   : NC_VERDICT_DROP;
            expected.reason = NC_REASON_LIMIT;
        }
        std::uint32_t plain_code =
            expected.reason == NC_REASON_LIMIT ? xdp_drop : code_of(expected.verdict);
        const bool gone = expected.verdict == NC_VERDICT_REDIRECT &&
                          setup_.rules[expected.position].actions.back().device != "lo";
        if (gone)
            plain_code = xdp_drop;
        std::optional<Bytes> answer;
        if (expected.verdict == NC_VERDICT_REJECT) {
            answer = answer_to(frame.bytes, true);
            expected_rejects_.silent += !answer;
            plain_code = answer ? xdp_tx : xdp_drop;
            answers_ += answer.has_value();
        }
        const auto really = plain_->run_xdp(frame.bytes, linear);
        ASSERT_TRUE(really) << really.error().what;
        EXPECT_EQ(really->action, plain_code)
            << "with wanted fields only; reference: " << to_text(expected) << where(frame, linear);
        const Bytes& left = answer ? *answer : frame.bytes;
        EXPECT_TRUE(really->frame == left) << "kernel:\n"
                                           << hex(really->frame) << "reference:\n"
                                           << hex(left) << where(frame, linear);
        count(expected, gone, frame.bytes.size());
    }

    /// How many frames were answered.
    std::uint64_t answers() const { return answers_; }
    std::uint64_t over_limit() const { return expected_.over_limit; }
    std::uint64_t added() const { return limits_.adds().added; }
    std::uint64_t over_syncookie() const { return over_syncookie_; }

    void check_counters() {
        const auto stats = plain_->stats();
        ASSERT_TRUE(stats) << stats.error().what;
        expected_.log_written = stats->log_written;
        expected_.log_lost = stats->log_lost;
        EXPECT_EQ(std::memcmp(&*stats, &expected_, sizeof expected_), 0) << "seed " << seed_;
        const auto rejects = plain_->rejects();
        ASSERT_TRUE(rejects) << rejects.error().what;
        EXPECT_EQ(std::memcmp(&*rejects, &expected_rejects_, sizeof expected_rejects_), 0)
            << "seed " << seed_;
        const nc_over_adds adds = must(plain_->over_adds());
        EXPECT_EQ(std::memcmp(&adds, &limits_.adds(), sizeof adds), 0)
            << "seed " << seed_
            << fmt::format(": {} added, {} there, {} excepted, {} full", adds.added, adds.there,
                           adds.exception, adds.full);
        const auto syncookies = plain_->syncookies();
        ASSERT_TRUE(syncookies) << syncookies.error().what;
        EXPECT_EQ(syncookies->packets, syncookies_) << "seed " << seed_;
        EXPECT_EQ(syncookies->answered + syncookies->refused + syncookies->failed, 0U);
        EXPECT_EQ(syncookies->dropped, over_syncookie_) << "seed " << seed_;
        for (std::size_t i = 0; i < counters_.size(); i++) {
            const auto counter = plain_->counter(i);
            ASSERT_TRUE(counter) << counter.error().what;
            EXPECT_EQ(counter->packets, counters_[i].packets) << "rule " << i << " seed " << seed_;
            EXPECT_EQ(counter->bytes, counters_[i].bytes) << "rule " << i << " seed " << seed_;
            EXPECT_EQ(counter->over_packets, counters_[i].over_packets);
            EXPECT_EQ(counter->over_bytes, counters_[i].over_bytes);
        }
        // Simulation leaves no trace.
        const auto simulated = simulating_->stats();
        ASSERT_TRUE(simulated) << simulated.error().what;
        EXPECT_EQ(simulated->packets, 0U);
    }

  private:
    std::string where(const Frame& frame, std::optional<std::uint32_t> linear) const {
        return fmt::format("\nseed {}\npacket: {}{}\n{}rules: {}", seed_, frame.story,
                           linear ? fmt::format(", first {} bytes linear", *linear) : "",
                           hex(frame.bytes), to_text(setup_));
    }

    void count(const nc_result& expected, bool gone, std::size_t bytes) {
        expected_.packets++;
        expected_.bytes += bytes;
        if (expected.verdict == NC_VERDICT_REJECT)
            expected_rejects_.packets++;
        else if (expected.verdict == NC_VERDICT_SYNCOOKIE) {
            syncookies_++;
            over_syncookie_ += expected.reason == NC_REASON_LIMIT;
        } else
            expected_.verdicts[gone ? __u32{NC_VERDICT_DROP} : expected.verdict]++;
        if (expected.reason == NC_REASON_DEFAULT) {
            expected_.default_packets++;
            expected_.default_bytes += bytes;
        } else if (expected.reason == NC_REASON_UNPARSED) {
            expected_.unparsed[expected.unparsed]++;
        } else if (expected.reason == NC_REASON_LIMIT) {
            expected_.over_limit++;
            counters_[expected.position].over_packets++;
            counters_[expected.position].over_bytes += bytes;
        } else {
            expected_.redirect_failed += gone;
            counters_[expected.position].packets++;
            counters_[expected.position].bytes += bytes;
        }
    }

    ProgSetup setup_, live_; ///< as it began, and with what limits have put into sets since
    std::uint64_t seed_;
    LimitModel limits_;
    std::optional<ProgRun> simulating_, plain_;
    bool splits_ = false;
    nc_stats expected_{};
    nc_rejects expected_rejects_{};
    std::uint64_t answers_ = 0, syncookies_ = 0, over_syncookie_ = 0;
    std::vector<nc_counter> counters_;
};

/// All frames of one round: random ones, and one of them cut at every length.
std::vector<Frame> frames_of(Fuzz& fuzz) {
    std::vector<Frame> frames;
    for (int i = 0; i < 1200; i++)
        frames.push_back(fuzz.frame());
    const Packet packet = fuzz.packet();
    const Bytes whole = packet.bytes();
    const std::string story = packet.to_string();
    for (std::size_t length = 14; length <= std::min<std::size_t>(whole.size(), 400); length++)
        frames.push_back({Bytes(whole.begin(), whole.begin() + static_cast<long>(length)),
                          fmt::format("{}, cut to {} bytes", story, length)});
    return frames;
}

TEST(XdpFuzz, RandomRulesAndPacketsAgreeWithTheReference) {
    const std::uint64_t cases = from_environment("NETCTL_FUZZ_CASES", 200'000);
    const std::uint64_t first_seed = from_environment("NETCTL_FUZZ_SEED", 1);
    std::uint64_t done = 0;
    std::uint64_t answers = 0, over_limit = 0, added = 0, over_syncookie = 0;
    std::map<std::uint32_t, std::uint64_t> reasons;
    for (std::uint64_t round = 0; done < cases && !HasFailure(); round++) {
        const std::uint64_t seed = first_seed + round;
        Fuzz fuzz(seed);
        const std::vector<Frame> frames = frames_of(fuzz);
        std::vector<nc_packet> seen;
        for (const Frame& frame : frames)
            seen.push_back(classifier::parse_ethernet(frame.bytes).packet);
        ProgSetup setup;
        setup.sets = fuzz.sets(seen);
        setup.rules = fuzz.rules(fuzz.percent(4) ? 1000 : fuzz.below(40), seen, setup.sets);
        fuzz.limit_some(setup.rules, setup.sets);
        for (Rule& rule : setup.rules)
            if (rule.limit)
                rule.limit->over_syncookie = fuzz.percent(20);
        setup.accounts = 1 << 14;
        setup.default_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP});
        setup.unparsed_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP});
        setup.constants = {{"errors_interval", 0}}; // no bound
        for (const Frame& frame : frames) {
            const nc_result expected =
                expected_result(setup, classifier::parse_ethernet(frame.bytes));
            reasons[expected.reason]++;
        }
        Comparison comparison(setup, seed);
        comparison.load_programs();
        for (const Frame& frame : frames) {
            if (HasFailure())
                break;
            comparison.check(frame, fuzz);
            done++;
        }
        if (!HasFailure())
            comparison.check_counters();
        answers += comparison.answers();
        over_limit += comparison.over_limit();
        added += comparison.added();
        over_syncookie += comparison.over_syncookie();
    }
    RecordProperty("pairs", std::to_string(done));
    fmt::print("{} pairs; by rule {}, default {}, unparsed {}; {} over a limit, {} added to sets\n",
               done, reasons[NC_REASON_RULE], reasons[NC_REASON_DEFAULT],
               reasons[NC_REASON_UNPARSED], over_limit, added);
    // A generator that hits nothing would find nothing. A few rule sets alone may be one-sided.
    if (done < 20000)
        return;
    EXPECT_GT(reasons[NC_REASON_RULE], done / 5);
    EXPECT_GT(reasons[NC_REASON_DEFAULT], done / 20);
    EXPECT_GT(reasons[NC_REASON_UNPARSED], done / 20);
    EXPECT_GT(answers, done / 50);
    EXPECT_GT(over_limit, done / 100);
    EXPECT_GT(added, done / 1000);
    EXPECT_GT(over_syncookie, done / 1000);
}

/// A listener of both families on all addresses of the tests' network namespace, where a cookie is given for each SYN.
class Listener {
  public:
    Listener() : socket_(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        for (const auto& [name, value] : settings_)
            before_.push_back(exchange(name, value));
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        any.sin6_port = htons(port);
        const int off = 0;
        EXPECT_EQ(setsockopt(socket_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), 0);
        EXPECT_EQ(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
        EXPECT_EQ(listen(socket_.get(), 16), 0);
    }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener() {
        for (std::size_t i = 0; i < settings_.size(); i++)
            exchange(settings_[i].first, before_[i]);
    }

    /// By how much its windows are scaled: enough for the largest buffer that it may come to have.
    static std::uint8_t wscale() {
        std::ifstream file("/proc/sys/net/ipv4/tcp_rmem");
        std::uint64_t least = 0, usual = 0, most = 0;
        file >> least >> usual >> most;
        std::uint8_t scale = 0;
        for (; scale < 14 && most >= 65536; most /= 2)
            scale++;
        return scale;
    }

    static constexpr std::uint16_t port = 7000;

  private:
    static std::string exchange(const std::string& name, const std::string& value) {
        const std::string path = "/proc/sys/net/ipv4/" + name;
        std::string before;
        std::ifstream(path) >> before;
        std::ofstream(path) << value << std::endl;
        return before;
    }

    const std::vector<std::pair<std::string, std::string>> settings_{{"tcp_syncookies", "2"},
                                                                     {"tcp_timestamps", "2"}};
    std::vector<std::string> before_;
    Fd socket_;
};

/// Makes a SYN to the listener of a frame with TCP, as far as there is room: flags, port, and options over what was behind
/// the header. False if the frame has none.
bool make_syn(Bytes& frame, Fuzz& fuzz) {
    const auto segment = segment_in(frame);
    if (segment.size() < 20)
        return false;
    auto* bytes = frame.data() + (segment.data() - frame.data());
    bytes[2] = Listener::port >> 8;
    bytes[3] = Listener::port & 0xff;
    bytes[13] = static_cast<std::uint8_t>(fuzz.percent(90) ? std::uint64_t{syn} : fuzz.below(256));
    const std::size_t room = std::min<std::size_t>(segment.size() - 20, 40) / 4 * 4;
    const std::size_t size = fuzz.percent(50) ? room : fuzz.below(room / 4 + 1) * 4;
    bytes[12] = static_cast<std::uint8_t>((20 + size) / 4 << 4);
    if (fuzz.percent(3))
        bytes[12] = static_cast<std::uint8_t>(fuzz.below(256));
    const std::vector<Bytes> options{{1},
                                     {2, 4, 5, 180},
                                     {3, 3, 7},
                                     {3, 3, 15},
                                     {4, 2},
                                     {8, 10, 1, 2, 3, 4, 0, 0, 0, 0},
                                     {254, 4, 0, 0},
                                     {8, 9},
                                     {0},
                                     {3, 0},
                                     {4, 3, 1},
                                     {19, 18},
                                     {29, 4, 1, 1}};
    std::size_t at = 20;
    while (at < 20 + size) {
        const Bytes& option = options[fuzz.below(fuzz.percent(90) ? 6 : options.size())];
        for (std::size_t i = 0; i < option.size() && at < 20 + size; i++)
            bytes[at++] = option[i];
    }
    return true;
}

/// SYNs to the listener, and what is nearly one: answered by the rule, which holds for all; `otherwise` is what becomes of
/// those that are not answered.
void compare_answers(const Rule& rule, std::uint64_t cases, std::uint32_t otherwise) {
    const std::uint64_t first_seed = from_environment("NETCTL_FUZZ_SEED", 1);
    const Listener listener;
    const ProgRun run = must(load({.rules = {rule}}));
    if (rule.limit) { // one is within it
        EXPECT_EQ(must(run.run_xdp(Bytes(60))).action, xdp_pass);
    }
    std::uint64_t done = 0, answered = 0, scaled = 0;
    for (std::uint64_t seed = first_seed; done < cases && !::testing::Test::HasFailure(); seed++) {
        Fuzz fuzz(seed);
        Frame frame = fuzz.frame();
        if (!make_syn(frame.bytes, fuzz))
            continue;
        done++;
        const auto really = must(run.run_xdp(frame.bytes));
        CookieAnswer with{.port = Listener::port,
                          .wscale = Listener::wscale(),
                          .ipv4_mss = 65495,
                          .ipv6_mss = 65476};
        learn(with, really.frame);
        const auto answer = syn_answer_to(frame.bytes, with);
        EXPECT_EQ(really.action, answer ? xdp_tx : otherwise);
        const Bytes& left = answer ? *answer : frame.bytes;
        EXPECT_TRUE(really.frame == left) << "seed " << seed << "\npacket: " << frame.story << "\n"
                                          << hex(frame.bytes) << "kernel:\n"
                                          << hex(really.frame) << "reference:\n"
                                          << hex(left);
        answered += answer.has_value();
        scaled += answer && segment_in(*answer).size() >= 40;
    }
    const nc_syncookies counted = must(run.syncookies());
    EXPECT_EQ(counted.packets, done);
    EXPECT_EQ(counted.answered, answered);
    EXPECT_EQ(counted.failed, 0U);
    EXPECT_EQ(counted.dropped, otherwise == xdp_drop ? done - answered : 0);
    if (done >= 2000) {
        EXPECT_GT(answered, done / 4);
        EXPECT_GT(scaled, done / 50);
    }
}

TEST(XdpFuzz, SynsAreAnsweredAsTheReferenceDoes) {
    compare_answers(must(parse_rule("syncookie", Hook::xdp)),
                    from_environment("NETCTL_FUZZ_CASES", 200'000) / 50, xdp_pass);
}

TEST(XdpFuzz, WhatIsOverALimitIsAnsweredOrDropped) {
    Rule rule = must(parse_rule("pass limit 1/day burst 1", Hook::xdp));
    rule.limit->over_syncookie = true;
    compare_answers(rule, from_environment("NETCTL_FUZZ_CASES", 200'000) / 50, xdp_drop);
}

// ---- the examples that the reference is held to ----

/// Loads, or fails the test with the kernel's words.
ProgRun must_load(const ProgSetup& setup) {
    return must(load(setup), to_text(setup));
}

std::vector<Rule> rules(std::initializer_list<std::string> texts) {
    return must_parse(Hook::xdp, texts);
}

TEST(XdpExamples, Match) {
    for (const Example& example : examples()) {
        Bytes frame = example.packet.bytes();
        frame.resize(frame.size() + example.padding);
        const ProgRun run = must_load({.rules = rules({std::string(example.match) + " drop"})});
        EXPECT_EQ(must(run.run(frame)), example.matches ? xdp_drop : xdp_pass)
            << example.why << ": " << example.match << "\n"
            << example.packet.to_string();
    }
}

TEST(XdpExamples, UnparsedFramesGetTheirVerdictAndAreCounted) {
    const auto catch_all = rules({"tx"});
    const ProgRun dropping = must_load({.rules = catch_all, .unparsed_verdict = NC_VERDICT_DROP});
    const ProgRun passing = must_load({.rules = catch_all, .unparsed_verdict = NC_VERDICT_PASS});
    nc_stats expected{};
    for (const Fault& fault : faults()) {
        EXPECT_EQ(must(dropping.run(fault.frame)), xdp_drop) << fault.what;
        EXPECT_EQ(must(passing.run(fault.frame)), xdp_pass) << fault.what;
        expected.unparsed[fault.reason]++;
    }
    const nc_stats stats = must(dropping.stats());
    for (int reason = 0; reason < NC_UNPARSED_REASONS; reason++)
        EXPECT_EQ(stats.unparsed[reason], expected.unparsed[reason]) << "reason " << reason;
    EXPECT_EQ(stats.verdicts[NC_VERDICT_DROP], faults().size());
    EXPECT_EQ(must(dropping.counter(0)).packets, 0U) << "no rule is asked";
}

TEST(Xdp, EachActionHasItsReturnCodeAndCounters) {
    const ProgRun run = must_load(
        {.rules = rules({"dport 1 pass", "dport 2 drop", "dport 3 tx", "dport 4 redirect lo"}),
         .default_verdict = NC_VERDICT_DROP});
    const auto send = [&](std::uint16_t port, std::size_t size) {
        return must(run.run((Ether{} / Ipv4{} / Udp{.dport = port} / Payload{size}).bytes()));
    };
    EXPECT_EQ(send(1, 100), xdp_pass);
    EXPECT_EQ(send(2, 200), xdp_drop);
    EXPECT_EQ(send(3, 300), xdp_tx);
    EXPECT_EQ(send(4, 400), xdp_redirect);
    EXPECT_EQ(send(4, 400), xdp_redirect);
    EXPECT_EQ(send(5, 500), xdp_drop);
    const std::uint64_t headers = 14 + 20 + 8;
    for (std::size_t i = 0; i < 4; i++) {
        const nc_counter counter = must(run.counter(i));
        const std::uint64_t packets = i == 3 ? 2 : 1;
        EXPECT_EQ(counter.packets, packets);
        EXPECT_EQ(counter.bytes, packets * (headers + 100 * (i + 1)));
    }
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.packets, 6U);
    EXPECT_EQ(stats.bytes, 6 * headers + 1900);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_PASS], 1U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_DROP], 2U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_TX], 1U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_REDIRECT], 2U);
    EXPECT_EQ(stats.default_packets, 1U);
    EXPECT_EQ(stats.default_bytes, headers + 500);
}

TEST(Xdp, CountersOfManyRulesLieInSeveralChunks) {
    ProgSetup setup;
    for (int i = 0; i < 3000; i++)
        setup.rules.push_back(rules({fmt::format("dport {} drop", i)}).front());
    const ProgRun run = must_load(setup);
    for (const std::uint16_t port : {0, 1023, 1024, 2047, 2048, 2999}) {
        EXPECT_EQ(must(run.run((Ether{} / Ipv6{} / Tcp{.dport = port}).bytes())), xdp_drop);
        EXPECT_EQ(must(run.counter(port)).packets, 1U) << port;
    }
}

TEST(Xdp, ARedirectWhoseTargetIsGoneDropsAndIsCounted) {
    const ProgRun run = must_load({.rules = rules({"redirect nowhere0 log"})});
    EXPECT_EQ(must(run.run((Ether{} / Ipv4{} / Tcp{}).bytes())), xdp_drop);
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.redirect_failed, 1U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_DROP], 1U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_REDIRECT], 0U);
}

// ---- sets ----

TEST(XdpSets, ElementsThatDoNotCount) {
    constexpr nc_set_value member{}, absent{0, NC_SET_ABSENT}, past{1, 0}, future{0xffffffff, 0};
    TestSet cidr{.type = NC_SET_CIDR};
    cidr.addresses = {{net("10.0.0.0/8"), member},
                      {net("10.1.0.0/16"), absent},
                      {net("10.2.0.0/16"), past},
                      {net("10.2.3.0/24"), past},
                      {net("172.16.0.0/12"), past},
                      {net("192.0.2.0/24"), future},
                      {net("10.1.1.0/24"), {1, NC_SET_ABSENT}},
                      {net("2001:db8::/32"), member},
                      {net("2001:db8:1::/48"), past},
                      {net("2001:db8:2::/48"), absent}};
    TestSet host{.type = NC_SET_HOST};
    host.addresses = {
        {net("10.0.0.1"), member}, {net("10.0.0.2"), absent}, {net("10.0.0.3"), past}};
    ProgSetup setup;
    setup.sets = {{"cidr", cidr}, {"host", host}};
    setup.rules = rules({"src @cidr drop", "dst @host tx"});
    const ProgRun run = must_load(setup);

    struct Row {
        const char* address;
        bool member;
        const char* why;
    };
    for (const Row& row : {
             Row{"10.9.9.9", true, "a prefix covers it"},
             Row{"10.1.2.3", false, "a longer prefix takes it out"},
             Row{"10.2.9.9", true, "what expired does not hide the wider prefix"},
             Row{"10.2.3.4", true, "... nor do two that expired"},
             Row{"10.1.1.1", false, "behind an expired tombstone is one that counts"},
             Row{"172.16.0.1", false, "expired"},
             Row{"192.0.2.1", true, "not expired yet"},
             Row{"203.0.113.1", false, "nothing covers it"},
             Row{"2001:db8::1", true, "IPv6"},
             Row{"2001:db8:1::1", true, "IPv6, expired under a wider one"},
             Row{"2001:db8:2::1", false, "IPv6, taken out"},
         }) {
        const Address address = ip(row.address);
        const Bytes frame = address.family == Family::ipv4
                                ? (Ether{} / Ipv4{.src = address} / Tcp{}).bytes()
                                : (Ether{} / Ipv6{.src = address} / Tcp{}).bytes();
        EXPECT_EQ(must(run.run(frame)), row.member ? xdp_drop : xdp_pass)
            << row.address << ": " << row.why;
        EXPECT_EQ(cidr.has(address), row.member) << row.address << ": " << row.why;
    }
    for (const auto& [address, is_member] :
         {std::pair{"10.0.0.1", true}, {"10.0.0.2", false}, {"10.0.0.3", false}})
        EXPECT_EQ(
            must(run.run((Ether{} / Ipv4{.src = ip("203.0.113.1"), .dst = ip(address)}).bytes())),
            is_member ? xdp_tx : xdp_pass)
            << address;
}

TEST(XdpSets, AWriteTakesEffectAtOnce) {
    ProgSetup setup;
    setup.sets["bad"] = {.type = NC_SET_HOST};
    setup.rules = rules({"src @bad drop"});
    const ProgRun run = must_load(setup);
    const Bytes frame = (Ether{} / Ipv4{.src = ip("192.0.2.9")} / Tcp{}).bytes();
    EXPECT_EQ(must(run.run(frame)), xdp_pass);

    const auto map = run.set_map("set_host4", 0);
    ASSERT_TRUE(map) << map.error().what;
    nc_set_host4 key{};
    std::memcpy(&key.address, ip("192.0.2.9").bytes.data(), 4);
    const nc_set_value value{};
    ASSERT_TRUE(map->update(&key, &value));
    EXPECT_EQ(must(run.run(frame)), xdp_drop);
    ASSERT_TRUE(must(map->erase(&key)));
    EXPECT_EQ(must(run.run(frame)), xdp_pass);
}

TEST(XdpSets, AllUsesThatAPointMayHave) {
    ProgSetup setup;
    for (int i = 0; i < NC_MAX_SET_USES; i++) {
        TestSet set{.type = NC_SET_PORT};
        set.ports.emplace_back(static_cast<std::uint16_t>(1000 + i), nc_set_value{});
        const std::string name = fmt::format("s{}", i);
        setup.sets[name] = set;
        setup.rules.push_back(rules({fmt::format("dport @{} drop", name)}).front());
    }
    setup.simulate = true;
    const ProgRun run = must_load(setup);
    for (std::uint32_t i = 0; i < NC_MAX_SET_USES; i++) {
        const auto port = static_cast<std::uint16_t>(1000 + i);
        must(run.run((Ether{} / Ipv4{} / Udp{.dport = port}).bytes()));
        EXPECT_EQ(run.result().position, i);
        EXPECT_EQ(run.result().set_bits, 1ULL << i);
    }
}

// ---- limits: the rates are so low that none of the time that tests take gives a packet back ----

TEST(XdpLimit, OfARuleIsExact) {
    const ProgRun run = must_load({.rules = rules({"proto udp pass limit 1/hour burst 5"})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{58}).bytes();
    for (int i = 0; i < 12; i++)
        EXPECT_EQ(must(run.run(frame)), i < 5 ? xdp_pass : xdp_drop) << i;
    EXPECT_EQ(must(run.run((Ether{} / Ipv4{} / Tcp{}).bytes())), xdp_pass) << "not its packet";

    const nc_counter counter = must(run.counter(0));
    EXPECT_EQ(counter.packets, 5U);
    EXPECT_EQ(counter.bytes, 500U);
    EXPECT_EQ(counter.over_packets, 7U);
    EXPECT_EQ(counter.over_bytes, 700U);
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.over_limit, 7U);
    EXPECT_EQ(stats.limit_failed, 0U);
    EXPECT_EQ(stats.verdicts[NC_VERDICT_DROP], 7U);
}

TEST(XdpLimit, ComesBackWithTime) {
    const ProgRun run = must_load({.rules = rules({"pass limit 1/hour burst 5"})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{}).bytes();
    for (int i = 0; i < 6; i++)
        must(run.run(frame));
    // Three hours pass: the state is the time at which the next packet would be due.
    const auto map = run.map("limits");
    ASSERT_TRUE(map) << map.error().what;
    const nc_limit_key key{1, {}, 0, 0, 0};
    nc_limit_state state{};
    ASSERT_TRUE(must(map->lookup(&key, &state)));
    state.arrival_ns -= 3 * 3600'000'000'000;
    ASSERT_TRUE(map->update(&key, &state));
    for (int i = 0; i < 6; i++)
        EXPECT_EQ(must(run.run(frame)), i < 3 ? xdp_pass : xdp_drop) << i;
}

TEST(XdpLimit, PerSource) {
    const ProgRun run = must_load({.rules = rules({"tx limit 1/hour burst 2 per src"})});
    const auto send = [&](const Packet& packet) { return must(run.run(packet.bytes())); };
    for (int i = 0; i < 4; i++) {
        const std::uint32_t expected = i < 2 ? xdp_tx : xdp_drop;
        EXPECT_EQ(send(Ether{} / Ipv4{.src = ip("192.0.2.1")}), expected) << i;
        EXPECT_EQ(send(Ether{} / Ipv4{.src = ip("192.0.2.2")} / Tcp{}), expected) << i;
        EXPECT_EQ(send(Ether{} / Ipv6{.src = ip("2001:db8::1")} / Tcp{}), expected) << i;
        EXPECT_EQ(send(Ether{} / Ipv6{.src = ip("2001:db8::2")} / Udp{}), expected) << i;
        EXPECT_EQ(send(Ether{} / Payload{30}), expected) << "those without source share one";
    }
    EXPECT_EQ(must(run.counter(0)).packets, 10U);
    EXPECT_EQ(must(run.counter(0)).over_packets, 10U);
}

TEST(XdpLimit, PerPrefixDestinationAndPort) {
    struct Step {
        Packet packet;
        std::uint32_t expected;
    };
    const auto check = [](const std::string& text, const std::vector<Step>& steps) {
        const ProgRun run = must_load({.rules = rules({text})});
        for (std::size_t i = 0; i < steps.size(); i++)
            EXPECT_EQ(must(run.run(steps[i].packet.bytes())), steps[i].expected)
                << text << " " << i;
    };
    const auto from = [](const char* src) {
        return std::string_view(src).find(':') == std::string_view::npos
                   ? Ether{} / Ipv4{.src = ip(src)} / Udp{}
                   : Ether{} / Ipv6{.src = ip(src)} / Udp{};
    };
    check("pass limit 1/hour burst 1 per src/64", {{from("2001:db8::1"), xdp_pass},
                                                   {from("2001:db8::ffff:0:0:2"), xdp_drop},
                                                   {from("2001:db8:0:1::1"), xdp_pass},
                                                   {from("192.0.2.1"), xdp_pass},
                                                   {from("192.0.2.2"), xdp_pass},
                                                   {from("192.0.2.1"), xdp_drop}});
    check("pass limit 1/hour burst 1 per src/24", {{from("192.0.2.1"), xdp_pass},
                                                   {from("192.0.2.255"), xdp_drop},
                                                   {from("192.0.3.1"), xdp_pass},
                                                   {from("2001:db8::1"), xdp_pass},
                                                   {from("2001:db8::2"), xdp_pass}});
    check("pass limit 1/hour burst 1 per src/25/33", {{from("192.0.2.1"), xdp_pass},
                                                      {from("192.0.2.128"), xdp_pass},
                                                      {from("192.0.2.127"), xdp_drop},
                                                      {from("2001:db8::1"), xdp_pass},
                                                      {from("2001:db8:7fff::1"), xdp_drop},
                                                      {from("2001:db8:8000::1"), xdp_pass}});
    // The same bytes are different addresses in the two IP versions.
    check("pass limit 1/hour burst 1 per src/32/32",
          {{from("32.1.13.184"), xdp_pass}, {from("2001:db8::"), xdp_pass}});
    const auto to = [](const char* src, const char* dst, std::uint16_t port) {
        return Ether{} / Ipv4{.src = ip(src), .dst = ip(dst)} / Udp{.dport = port};
    };
    check("pass limit 1/hour burst 1 per dst", {{to("192.0.2.1", "198.51.100.1", 1), xdp_pass},
                                                {to("192.0.2.2", "198.51.100.1", 2), xdp_drop},
                                                {to("192.0.2.1", "198.51.100.2", 1), xdp_pass}});
    check("pass limit 1/hour burst 1 per src,dport",
          {{to("192.0.2.1", "198.51.100.1", 1), xdp_pass},
           {to("192.0.2.1", "198.51.100.2", 1), xdp_drop},
           {to("192.0.2.1", "198.51.100.1", 2), xdp_pass},
           {to("192.0.2.2", "198.51.100.1", 2), xdp_pass}});
}

TEST(XdpLimit, OfBytes) {
    // 64 bits a second: each packet takes twelve seconds.
    const ProgRun run = must_load({.rules = rules({"pass limit 64bit burst 250"})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{} / Payload{58}).bytes();
    ASSERT_EQ(frame.size(), 100U);
    for (int i = 0; i < 5; i++) // as long as no more than the burst went before
        EXPECT_EQ(must(run.run(frame)), i < 3 ? xdp_pass : xdp_drop) << i;
    EXPECT_EQ(must(run.counter(0)).bytes, 300U);
    EXPECT_EQ(must(run.counter(0)).over_bytes, 200U);
}

TEST(XdpLimit, IsExactWithAllCpus) {
    constexpr std::uint64_t burst = 20'000, each = 40'000;
    const ProgRun run =
        must_load({.rules = rules({fmt::format("pass limit 1/hour burst {}", burst)})});
    const Bytes frame = (Ether{} / Ipv4{} / Udp{}).bytes();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&] { EXPECT_TRUE(run.time(frame, each)); });
    for (std::thread& thread : threads)
        thread.join();
    const nc_counter counter = must(run.counter(0));
    const std::uint64_t failed = must(run.stats()).limit_failed;
    EXPECT_EQ(counter.packets + counter.over_packets, 4 * each);
    EXPECT_EQ(counter.packets, burst);
    EXPECT_EQ(failed, 0U);
}

TEST(XdpLimit, WithoutRoomForItsStateARuleLetsNothingPass) {
    const ProgRun run = must_load({.rules = rules({"pass limit 1/hour burst 5"})});
    const auto map = run.map("limits");
    ASSERT_TRUE(map) << map.error().what;
    const nc_limit_key key{1, {}, 0, 0, 0};
    ASSERT_TRUE(must(map->erase(&key)));
    EXPECT_EQ(must(run.run((Ether{} / Ipv4{} / Udp{}).bytes())), xdp_drop);
    EXPECT_EQ(must(run.stats()).limit_failed, 1U);
    EXPECT_EQ(must(run.counter(0)).over_packets, 1U);
}

// ---- log ----

std::vector<nc_event> events_of(const ProgRun& run) {
    std::vector<nc_event> events;
    auto map = run.map("events");
    EXPECT_TRUE(map) << map.error().what;
    auto buffer = bpf::RingBuffer::open(std::move(map).value(), [&](auto record) {
        nc_event event{};
        EXPECT_EQ(record.size(), sizeof event);
        std::memcpy(&event, record.data(), sizeof event);
        events.push_back(event);
        return true;
    });
    EXPECT_TRUE(buffer) << buffer.error().what;
    EXPECT_TRUE(must(buffer->consume()));
    return events;
}

TEST(XdpLog, EventsTellRuleVerdictReasonAndHeaders) {
    const ProgRun run = must_load({.rules = rules({"dport 1 pass", "dport 2 drop log",
                                                   "dport 3 pass limit 1/hour burst 1 log",
                                                   "dport 4 redirect nowhere0 log"})});
    const auto frame = [](std::uint16_t port, std::size_t size) {
        return (Ether{} / Ipv4{} / Udp{.dport = port} / Payload{size}).bytes();
    };
    const std::vector<Bytes> frames{frame(2, 10), frame(3, 500), frame(3, 86), frame(4, 5000)};
    must(run.run(frame(1, 10)));
    for (const Bytes& each : frames)
        must(run.run(each));

    const std::vector<nc_event> events = events_of(run);
    ASSERT_EQ(events.size(), frames.size());
    struct Row {
        std::uint32_t rule_id;
        std::uint8_t verdict, reason;
    };
    const Row rows[] = {{2, NC_VERDICT_DROP, NC_REASON_RULE},
                        {3, NC_VERDICT_PASS, NC_REASON_RULE},
                        {3, NC_VERDICT_DROP, NC_REASON_LIMIT},
                        {4, NC_VERDICT_DROP, NC_REASON_FAILED}};
    for (std::size_t i = 0; i < events.size(); i++) {
        const nc_event& event = events[i];
        EXPECT_EQ(event.rule_id, rows[i].rule_id) << i;
        EXPECT_EQ(event.verdict, rows[i].verdict) << i;
        EXPECT_EQ(event.reason, rows[i].reason) << i;
        EXPECT_EQ(event.len, frames[i].size()) << i;
        EXPECT_EQ(event.captured, std::min<std::size_t>(frames[i].size(), NC_EVENT_HEADERS)) << i;
        EXPECT_EQ(std::memcmp(event.headers, frames[i].data(), event.captured), 0) << i;
        EXPECT_GE(event.time_ns, i ? events[i - 1].time_ns : 1);
    }
    EXPECT_EQ(must(run.stats()).log_written, 4U);
}

TEST(XdpLog, IsBoundedInRateAndCountsTheRest) {
    constexpr std::uint64_t hour = 3600'000'000'000;
    const ProgRun run = must_load(
        {.rules = rules({"drop log"}), .log_interval_ns = hour, .log_burst_ns = 2 * hour});
    for (int i = 0; i < 10; i++)
        must(run.run((Ether{} / Ipv4{}).bytes()));
    EXPECT_EQ(events_of(run).size(), 3U);
    const nc_stats stats = must(run.stats());
    EXPECT_EQ(stats.log_written, 3U);
    EXPECT_EQ(stats.log_suppressed, 7U);
    EXPECT_EQ(stats.log_lost, 0U);
}

TEST(XdpLog, CountsWhatNoReaderMadeRoomFor) {
    const ProgRun run = must_load({.rules = rules({"drop log"}), .events_bytes = 4096});
    for (int i = 0; i < 100; i++)
        EXPECT_EQ(must(run.run((Ether{} / Ipv4{}).bytes())), xdp_drop) << "lost or not";
    const nc_stats stats = must(run.stats());
    EXPECT_GT(stats.log_lost, 0U);
    EXPECT_EQ(stats.log_written + stats.log_lost, 100U);
    EXPECT_EQ(events_of(run).size(), stats.log_written);
}

// ---- frames of several buffers ----

TEST(XdpFrags, HeadersBehindTheFirstBufferAreRead) {
    // Three extension headers of 2048 bytes put the transport header into the second page.
    const Packet packet = Ether{} / Ipv6{} / Extension{.units = 255} / Extension{.units = 255} /
                          Extension{.units = 255} / Tcp{.dport = 4711, .flags = syn | ack} /
                          Payload{3000};
    const Bytes frame = packet.bytes();
    const ProgRun run = must_load(
        {.rules =
             rules({fmt::format("dport 4711 flags syn/syn proto tcp len {} tx", frame.size())})});
    EXPECT_EQ(must(run.run(frame)), xdp_tx);
    EXPECT_EQ(must(run.counter(0)).bytes, frame.size());
}

TEST(XdpFrags, AFrameMayBeSplitAnywhere) {
    const Packet four = Ether{} / Vlan{7} / Vlan{8} / Ipv4{.option_words = 3} / Tcp{.flags = ack};
    const Packet six = Ether{} / Vlan{7} / Ipv6{} / Extension{.kind = 0} / Fragment6{} /
                       Icmp{.type = 128, .proto = 58};
    ProgSetup setup{.rules = rules({"proto tcp tx", "proto icmp6 drop"}), .simulate = true};
    const ProgRun run = must_load(setup);
    if (!can_split(run))
        GTEST_SKIP() << "this kernel's test run puts as much as fits into the first buffer";
    for (const Packet& packet : {four, six}) {
        const Bytes frame = packet.bytes();
        const nc_result expected = expected_result(setup, classifier::parse_ethernet(frame));
        for (std::uint32_t linear = 14; linear <= frame.size(); linear++) {
            const auto action = run.run(frame, linear);
            ASSERT_TRUE(action) << action.error().what;
            EXPECT_TRUE(same(run.result(), expected))
                << "split at " << linear << "\nkernel:    " << to_text(run.result())
                << "\nreference: " << to_text(expected);
        }
    }
}

// ---- tables that lead nowhere ----

TEST(XdpEngine, ADefectInTheTablesIsUnparsedAndCounted) {
    ProgSetup setup{.rules = rules({"dport 80 pass"}), .unparsed_verdict = NC_VERDICT_DROP};
    const ProgRun run = must_load(setup);
    const Bytes frame = (Ether{} / Ipv4{} / Tcp{}).bytes();
    ASSERT_EQ(must(run.run(frame)), xdp_pass);

    const auto spoil = [&](const char* name, std::uint8_t byte) {
        const std::uint32_t zero = 0;
        const auto table = run.map(name);
        ASSERT_TRUE(table) << table.error().what;
        const auto info = bpf::map_info(table->fd());
        ASSERT_TRUE(info) << info.error().what;
        const std::vector<std::uint8_t> content(info->value_size, byte);
        ASSERT_TRUE(table->update(&zero, content.data()));
    };
    spoil(".bss.nc_wild", 7); // a rule beyond the actions
    EXPECT_EQ(must(run.run(frame)), xdp_drop);
    spoil(".bss.nc_index", 0xff); // an index beyond the next table
    EXPECT_EQ(must(run.run(frame)), xdp_drop);
    EXPECT_EQ(must(run.stats()).unparsed[NC_UNPARSED_ENGINE], 2U);
}

} // namespace

} // namespace netctl::testing
