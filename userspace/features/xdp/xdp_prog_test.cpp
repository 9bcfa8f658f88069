// SPDX-License-Identifier: GPL-2.0-only
//
// The XDP program against the reference (invariant I7), and what the reference does not know:
// limits, log, counters, frames of several buffers, redirect targets.
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bpf/ring_buffer.hpp"
#include "classifier/packet.hpp"
#include "classifier/reference.hpp"
#include "netctl/abi/classify.h" // of the skeleton's types
#include "testing/fuzz.hpp"
#include "testing/packet.hpp"
#include "testing/prog_run.hpp"
#include "xdp_filter.skel.h"

namespace netctl::testing {

namespace {

constexpr std::uint32_t xdp_drop = 1, xdp_pass = 2, xdp_tx = 3, xdp_redirect = 4;

Result<ProgRun> load(const ProgSetup& setup) {
    return ProgRun::load<::xdp_filter>("xdp_filter", setup);
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

std::uint32_t code_of(std::uint32_t verdict) {
    switch (verdict) {
    case NC_VERDICT_PASS:
        return xdp_pass;
    case NC_VERDICT_TX:
        return xdp_tx;
    case NC_VERDICT_REDIRECT:
        return xdp_redirect;
    default:
        return xdp_drop;
    }
}

nc_verdict verdict_of(const Rule& rule) {
    switch (rule.actions.back().kind) {
    case ActionKind::pass:
        return NC_VERDICT_PASS;
    case ActionKind::tx:
        return NC_VERDICT_TX;
    case ActionKind::redirect:
        return NC_VERDICT_REDIRECT;
    default:
        return NC_VERDICT_DROP;
    }
}

/// What must come of a frame, by the reference.
nc_result expected_result(const ProgSetup& setup, std::span<const std::uint8_t> frame) {
    const classifier::Parsed parsed = classifier::parse_ethernet(frame);
    nc_result expected{};
    expected.position = NC_NO_RULE;
    expected.packet = parsed.packet;
    if (!parsed.parsed) {
        expected.verdict = setup.unparsed_verdict;
        expected.reason = NC_REASON_UNPARSED;
        expected.unparsed = parsed.reason;
        return expected;
    }
    const auto position =
        classifier::first_match(setup.rules, parsed.packet, oracle(setup.sets));
    if (!position) {
        expected.verdict = setup.default_verdict;
        expected.reason = NC_REASON_DEFAULT;
        return expected;
    }
    expected.position = static_cast<__u32>(*position);
    expected.verdict = verdict_of(setup.rules[*position]);
    expected.reason = NC_REASON_RULE;
    return expected;
}

std::string to_text(const nc_packet& p) {
    const auto words = [](const __be32(&a)[4]) {
        return fmt::format("{:08x} {:08x} {:08x} {:08x}", __builtin_bswap32(a[0]),
                           __builtin_bswap32(a[1]), __builtin_bswap32(a[2]),
                           __builtin_bswap32(a[3]));
    };
    const auto mac = [](const __u8(&m)[6]) {
        return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3],
                           m[4], m[5]);
    };
    return fmt::format("has={:#x} len={} src={} dst={} sport={} dport={} ether_type={:#x} vlan={} "
                       "proto={} flags={:#x} icmp={}/{} dscp={} frag={} ether_src={} ether_dst={} "
                       "mark={}",
                       p.has, p.len, words(p.src), words(p.dst), p.sport, p.dport, p.ether_type,
                       p.vlan, p.proto, p.flags, p.icmp_type, p.icmp_code, p.dscp, p.frag,
                       mac(p.ether_src), mac(p.ether_dst), p.mark);
}

std::string to_text(const nc_result& r) {
    return fmt::format("position={} verdict={} reason={} unparsed={}\n    {}",
                       static_cast<std::int32_t>(r.position), r.verdict, r.reason, r.unparsed,
                       to_text(r.packet));
}

std::string to_text(const ProgSetup& setup) {
    std::string text = fmt::format("default verdict {}, unparsed verdict {}\n",
                                   int{setup.default_verdict}, int{setup.unparsed_verdict});
    for (std::size_t i = 0; i < setup.rules.size(); i++)
        text += fmt::format("  {}: {}\n", i, to_string(setup.rules[i]));
    for (const auto& [name, set] : setup.sets) {
        text += fmt::format("  set {} type {}:", name, int{set.type});
        for (const auto& [prefix, value] : set.addresses)
            text += fmt::format(" {}({}/{})", prefix.to_string(), value.flags, value.expires);
        for (const auto& [port, value] : set.ports)
            text += fmt::format(" {}({}/{})", port, value.flags, value.expires);
        text += "\n";
    }
    return text;
}

/// Fields of a packet that was not parsed are not specified.
bool same(const nc_result& kernel, const nc_result& reference) {
    return kernel.position == reference.position && kernel.verdict == reference.verdict &&
           kernel.reason == reference.reason &&
           (reference.reason != NC_REASON_UNPARSED || kernel.unparsed == reference.unparsed) &&
           (reference.reason == NC_REASON_UNPARSED ||
            std::memcmp(&kernel.packet, &reference.packet, sizeof kernel.packet) == 0);
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
    Comparison(ProgSetup setup, std::uint64_t seed) : setup_(std::move(setup)), seed_(seed) {}

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
        const nc_result expected = expected_result(setup_, frame.bytes);
        auto action = simulating_->run(frame.bytes, linear);
        ASSERT_TRUE(action) << action.error().what;
        const nc_result& found = simulating_->result();
        EXPECT_TRUE(same(found, expected) && *action == code_of(expected.verdict))
            << "kernel:    " << to_text(found) << "\nreference: " << to_text(expected)
            << "\nreturned " << *action << where(frame, linear);

        std::uint32_t plain_code = code_of(expected.verdict);
        const bool gone = expected.verdict == NC_VERDICT_REDIRECT &&
                          setup_.rules[expected.position].actions.back().device != "lo";
        if (gone)
            plain_code = xdp_drop;
        action = plain_->run(frame.bytes, linear);
        ASSERT_TRUE(action) << action.error().what;
        EXPECT_EQ(*action, plain_code)
            << "with wanted fields only; reference: " << to_text(expected) << where(frame, linear);
        count(expected, gone, frame.bytes.size());
    }

    void check_counters() {
        const auto stats = plain_->stats();
        ASSERT_TRUE(stats) << stats.error().what;
        expected_.log_written = stats->log_written;
        expected_.log_lost = stats->log_lost;
        EXPECT_EQ(std::memcmp(&*stats, &expected_, sizeof expected_), 0) << "seed " << seed_;
        for (std::size_t i = 0; i < counters_.size(); i++) {
            const auto counter = plain_->counter(i);
            ASSERT_TRUE(counter) << counter.error().what;
            EXPECT_EQ(counter->packets, counters_[i].packets) << "rule " << i << " seed " << seed_;
            EXPECT_EQ(counter->bytes, counters_[i].bytes) << "rule " << i << " seed " << seed_;
            EXPECT_EQ(counter->over_packets, 0U);
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
        expected_.verdicts[gone ? __u32{NC_VERDICT_DROP} : expected.verdict]++;
        if (expected.reason == NC_REASON_DEFAULT) {
            expected_.default_packets++;
            expected_.default_bytes += bytes;
        } else if (expected.reason == NC_REASON_UNPARSED) {
            expected_.unparsed[expected.unparsed]++;
        } else {
            expected_.redirect_failed += gone;
            counters_[expected.position].packets++;
            counters_[expected.position].bytes += bytes;
        }
    }

    ProgSetup setup_;
    std::uint64_t seed_;
    std::optional<ProgRun> simulating_, plain_;
    bool splits_ = false;
    nc_stats expected_{};
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
        setup.default_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP});
        setup.unparsed_verdict = fuzz.pick({NC_VERDICT_PASS, NC_VERDICT_DROP});
        for (const Frame& frame : frames) {
            const nc_result expected = expected_result(setup, frame.bytes);
            reasons[expected.reason]++;
        }
        Comparison comparison(std::move(setup), seed);
        comparison.load_programs();
        for (const Frame& frame : frames) {
            if (HasFailure())
                break;
            comparison.check(frame, fuzz);
            done++;
        }
        if (!HasFailure())
            comparison.check_counters();
    }
    RecordProperty("pairs", std::to_string(done));
    fmt::print("{} pairs; by rule {}, default {}, unparsed {}\n", done, reasons[NC_REASON_RULE],
               reasons[NC_REASON_DEFAULT], reasons[NC_REASON_UNPARSED]);
    // A generator that hits nothing would find nothing.
    EXPECT_GT(reasons[NC_REASON_RULE], done / 5);
    EXPECT_GT(reasons[NC_REASON_DEFAULT], done / 20);
    EXPECT_GT(reasons[NC_REASON_UNPARSED], done / 20);
}

} // namespace

} // namespace netctl::testing
