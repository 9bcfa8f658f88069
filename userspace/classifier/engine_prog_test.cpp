// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's classifier against the reference matcher: random rule sets are compiled, loaded, and
// asked about thousands of packets in one run of the program.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "classifier/changes.hpp"
#include "classifier/crossing.hpp"
#include "classifier/engine.hpp"
#include "classifier/linear.hpp"
#include "classifier/reference.hpp"
#include "testing/classifier_run.hpp"
#include "testing/environment.hpp"
#include "testing/firewall_rules.hpp"
#include "testing/rule_families.hpp"
#include "testing/rule_fuzz.hpp"

namespace netctl::classifier {
namespace {

using testing::ClassifierRun;
using testing::RuleFuzz;
using testing::RuleStyle;

/// Compares one rule set on `count` packets; returns how many pairs were compared.
std::size_t compare(const std::vector<Rule>& rules, const Compiled& compiled,
                    std::span<const nc_packet> packets, const std::string& what) {
    Result<ClassifierRun> run = ClassifierRun::load(compiled, ClassifierRun::Use::classify);
    if (!run) {
        ADD_FAILURE() << what << ": " << run.error().what;
        return 0;
    }
    std::vector<std::uint64_t> set_bits;
    for (const nc_packet& packet : packets)
        set_bits.push_back(RuleFuzz::set_bits(compiled.set_uses, packet));
    Result<std::vector<std::uint32_t>> positions = run->classify(packets, set_bits);
    if (!positions) {
        ADD_FAILURE() << what << ": " << positions.error().what;
        return 0;
    }
    const SetOracle sets = RuleFuzz::sets();
    for (std::size_t i = 0; i < packets.size(); ++i) {
        std::optional<std::size_t> expected = first_match(rules, packets[i], sets);
        std::uint32_t wanted = expected ? static_cast<std::uint32_t>(*expected) : NC_NO_RULE;
        if ((*positions)[i] == wanted)
            continue;
        ADD_FAILURE() << fmt::format("{}: packet {}: rule {} instead of {}", what, i,
                                     static_cast<std::int32_t>((*positions)[i]),
                                     static_cast<std::int32_t>(wanted));
        return i;
    }
    return packets.size();
}

std::vector<nc_packet> packets_near(RuleFuzz& fuzz, const std::vector<Rule>& rules,
                                    std::size_t count) {
    std::vector<nc_packet> packets;
    for (std::size_t i = 0; i < count; ++i)
        packets.push_back(fuzz.packet(rules));
    return packets;
}

// NETCTL_FUZZ_SEED and NETCTL_FUZZ_SETS make other or longer runs, NETCTL_FUZZ_CASES shorter ones.
TEST(EngineProg, RandomRuleSetsMatchLikeTheReference) {
    const std::uint64_t first = testing::from_environment("NETCTL_FUZZ_SEED", 1);
    const std::uint64_t sets = testing::from_environment(
        "NETCTL_FUZZ_SETS", testing::from_environment("NETCTL_FUZZ_CASES", 108 * 8192) / 8192 + 1);
    std::size_t pairs = 0, linear = 0, with_apart = 0;
    for (std::uint64_t seed = first; seed < first + sets; ++seed) {
        RuleFuzz fuzz(seed);
        auto style = static_cast<RuleStyle>(seed % testing::rule_styles);
        constexpr std::array<std::size_t, 6> sizes{1, 3, 10, 40, 120, 300};
        std::vector<Rule> rules =
            fuzz.rules(style, sizes[seed / testing::rule_styles % sizes.size()]);
        Result<Compiled> compiled = compile(rules);
        ASSERT_TRUE(compiled) << compiled.error().what;
        linear += compiled->engine != "crossing";
        with_apart += compiled->rules_apart > 0;
        pairs += compare(rules, *compiled, packets_near(fuzz, rules, 8192),
                         fmt::format("seed {}, {}, {} rules, {}, {} apart", seed, to_string(style),
                                     rules.size(), compiled->engine, compiled->rules_apart));
        if (HasFailure())
            return;
    }
    fmt::print("{} pairs of rule set and packet; of {} sets {} with rules apart, {} linear\n",
               pairs, sets, with_apart, linear);
}

/// Kinds of rule sets as firewalls have them: the form that is meant for them holds them whole.
TEST(EngineProg, FirewallRulesMatchLikeTheReference) {
    const std::uint64_t seed = testing::from_environment("NETCTL_FUZZ_SEED", 1);
    std::size_t pairs = 0;
    for (int kind = 0; kind < testing::firewall_kinds; ++kind)
        for (Family family : {Family::ipv4, Family::ipv6})
            for (const auto& [count, packets] :
                 {std::pair<std::size_t, std::size_t>{200, 16384}, {3000, 4096}}) {
                const auto named = static_cast<testing::FirewallKind>(kind);
                const std::vector<Rule> rules =
                    testing::firewall_rules(named, family, count, seed * 31 + count);
                Result<Compiled> compiled = compile(rules);
                ASSERT_TRUE(compiled) << compiled.error().what;
                const std::string what = fmt::format("{}, {} rules, {}", to_string(named), count,
                                                     family == Family::ipv4 ? "IPv4" : "IPv6");
                EXPECT_EQ(compiled->engine, "crossing") << what;
                EXPECT_EQ(compiled->rules_apart, 0u) << what << ": " << compiled->reason;
                RuleFuzz fuzz(seed);
                pairs += compare(rules, *compiled, packets_near(fuzz, rules, packets), what);
                if (HasFailure())
                    return;
            }
    fmt::print("{} pairs of rule set and packet\n", pairs);
}

/// Kinds of rule sets of another build than ClassBench's; many of their rules stand apart. The largest has more
/// than a group of 4,096 of them.
TEST(EngineProg, FamiliesMatchLikeTheReference) {
    const std::uint64_t seed = testing::from_environment("NETCTL_FUZZ_SEED", 1);
    const std::uint64_t most = testing::from_environment("NETCTL_FUZZ_CASES", 1u << 30);
    std::size_t pairs = 0;
    for (int family = 0; family < testing::rule_families; ++family)
        for (Family addresses : {Family::ipv4, Family::ipv6})
            for (const auto& [count, packets] :
                 {std::pair<std::size_t, std::size_t>{300, 16384}, {3000, 4096}, {30000, 512}}) {
                const auto named = static_cast<testing::RuleFamily>(family);
                const bool long_to_compile = named == testing::RuleFamily::hunted && count > 3000;
                if (count * packets / 1024 > most || long_to_compile)
                    continue;
                const std::vector<Rule> rules =
                    testing::family_rules(named, addresses, count, seed * 31 + count);
                Result<Compiled> compiled = compile(rules);
                ASSERT_TRUE(compiled) << compiled.error().what;
                const std::string what =
                    fmt::format("{}, {} rules, {}, {} apart", to_string(named), count,
                                addresses == Family::ipv4 ? "IPv4" : "IPv6", compiled->rules_apart);
                EXPECT_EQ(compiled->engine, "crossing") << what << ": " << compiled->reason;
                RuleFuzz fuzz(seed);
                pairs += compare(rules, *compiled, packets_near(fuzz, rules, packets), what);
                if (HasFailure())
                    return;
            }
    fmt::print("{} pairs of rule set and packet\n", pairs);
}

/// Any share of the rules may stand apart, without a table exploding.
TEST(EngineProg, RulesApartMatchLikeTheReference) {
    for (std::uint64_t seed = 1; seed <= testing::rule_styles; ++seed) {
        RuleFuzz fuzz(seed * 104729);
        auto style = static_cast<RuleStyle>(seed % testing::rule_styles);
        const std::vector<Rule> rules = fuzz.rules(style, 150);
        Result<Compiled> whole = compile(rules);
        ASSERT_TRUE(whole);
        std::vector<bool> apart(rules.size());
        for (std::size_t i = 0; i < apart.size(); ++i)
            apart[i] = seed == 1 || i * seed % 7 < 3; // once, all of them
        Result<Compiled> compiled = compile_crossing(rules, whole->set_uses, apart);
        ASSERT_TRUE(compiled) << compiled.error().what;
        compare(rules, *compiled, packets_near(fuzz, rules, 4096),
                fmt::format("seed {}, {}, {} of {} apart", seed, to_string(style),
                            compiled->rules_apart, rules.size()));
        if (HasFailure())
            return;
    }
}

/// So many that rows have two groups of words, and blocks only the words that they need.
TEST(EngineProg, ManyRulesApartMatchLikeTheReference) {
    for (const auto family : {testing::RuleFamily::blocks, testing::RuleFamily::zones})
        for (Family addresses : {Family::ipv4, Family::ipv6}) {
            const std::vector<Rule> rules = testing::family_rules(family, addresses, 6000, 7);
            Result<Compiled> compiled =
                compile_crossing(rules, {}, std::vector<bool>(rules.size(), true));
            ASSERT_TRUE(compiled) << compiled.error().what;
            RuleFuzz fuzz(7);
            compare(rules, *compiled, packets_near(fuzz, rules, 2048),
                    fmt::format("{}, {}", to_string(family),
                                addresses == Family::ipv4 ? "IPv4" : "IPv6"));
        }
}

TEST(EngineProg, LinearFormMatchesLikeTheReference) {
    for (std::uint64_t seed = 1; seed <= 2 * testing::rule_styles; ++seed) {
        RuleFuzz fuzz(seed * 7919);
        auto style = static_cast<RuleStyle>(seed % testing::rule_styles);
        std::vector<Rule> rules = fuzz.rules(style, 60);
        Result<Compiled> compiled = compile(rules);
        ASSERT_TRUE(compiled);
        const std::vector<SetUse> uses = compiled->set_uses;
        compiled = compile_linear(rules, uses);
        ASSERT_TRUE(compiled);
        compare(rules, *compiled, packets_near(fuzz, rules, 2048),
                fmt::format("seed {}, {}", seed, to_string(style)));
        if (HasFailure())
            return;
    }
}

/// A list of rules that is edited, and a program that was made of what it once was.
class EditedList {
  public:
    struct Item {
        std::shared_ptr<const Rule> rule;
        std::uint32_t compiled;
    };

    EditedList(RuleFuzz& fuzz, std::vector<Rule> rules) : fuzz_(fuzz) {
        for (Rule& rule : rules)
            list_.push_back({std::make_shared<const Rule>(std::move(rule)), not_compiled});
    }

    /// Makes the program anew, of the present list.
    void fold() {
        compiled_.clear();
        std::vector<Rule> rules;
        for (std::uint32_t i = 0; i < list_.size(); ++i) {
            list_[i].compiled = i;
            compiled_.push_back(list_[i].rule);
            rules.push_back(*list_[i].rule);
        }
        Result<Compiled> compiled = compile(rules);
        ASSERT_TRUE(compiled) << compiled.error().what;
        uses_ = compiled->set_uses;
        run_.reset();
        Result<ClassifierRun> run = ClassifierRun::load(*compiled, ClassifierRun::Use::classify);
        ASSERT_TRUE(run) << run.error().what;
        run_.emplace(std::move(*run));
    }

    /// Deletes, moves, or adds a rule at any place.
    void edit(std::mt19937_64& random, RuleStyle style) {
        const std::size_t kind = random() % 4;
        if (kind >= 2 || list_.empty()) {
            insert(random() % (list_.size() + 1),
                   {std::make_shared<const Rule>(fuzz_.rules(style, 1).front()), not_compiled});
            return;
        }
        const auto place = list_.begin() + static_cast<std::ptrdiff_t>(random() % list_.size());
        Item item = *place;
        list_.erase(place);
        if (kind == 1)
            insert(random() % (list_.size() + 1), std::move(item));
    }

    /// Compares changes to the program with the reference; false if the list is to be folded.
    bool check(std::size_t packets, const std::string& what) {
        std::vector<const Rule*> compiled;
        for (const auto& rule : compiled_)
            compiled.push_back(rule.get());
        std::vector<ListedRule> listed;
        std::vector<Rule> rules;
        for (const Item& item : list_) {
            listed.push_back({item.rule.get(), item.compiled});
            rules.push_back(*item.rule);
        }
        Result<Changes> changes = compile_changes(compiled, listed);
        if (!changes) {
            EXPECT_EQ(changes.error().kind, ErrorKind::usage);
            return false;
        }
        std::map<std::uint32_t, std::uint32_t> positions{{NC_NO_RULE, NC_NO_RULE}};
        for (std::uint32_t i = 0; i < list_.size(); ++i)
            if (list_[i].compiled != not_compiled)
                positions[list_[i].compiled] = i;
        for (std::uint32_t bit = 0; bit < changes->rules.size(); ++bit)
            if (changes->block->action[bit] == not_compiled) {
                changes->block->action[bit] = static_cast<std::uint32_t>(compiled.size()) + bit;
                positions[changes->block->action[bit]] = changes->rules[bit];
            }
        run_->set_changes(changes->block.get());
        const std::vector<nc_packet> near = packets_near(fuzz_, rules, packets);
        std::vector<std::uint64_t> set_bits;
        for (const nc_packet& packet : near)
            set_bits.push_back(RuleFuzz::set_bits(uses_, packet));
        Result<std::vector<std::uint32_t>> found = run_->classify(near, set_bits);
        if (!found) {
            ADD_FAILURE() << found.error().what;
            return true;
        }
        const SetOracle sets = RuleFuzz::sets();
        for (std::size_t i = 0; i < near.size(); ++i) {
            const std::optional<std::size_t> first = first_match(rules, near[i], sets);
            const std::uint32_t expected = first ? static_cast<std::uint32_t>(*first) : NC_NO_RULE;
            const auto position = positions.find((*found)[i]);
            if (position != positions.end() && position->second == expected)
                continue;
            ADD_FAILURE() << fmt::format("{}: action {} instead of rule {}", what, (*found)[i],
                                         static_cast<std::int32_t>(expected));
            return true;
        }
        return true;
    }

    const std::vector<Item>& items() const { return list_; }
    void restore(std::vector<Item> items) { list_ = std::move(items); }

  private:
    void insert(std::size_t place, Item item) {
        list_.insert(list_.begin() + static_cast<std::ptrdiff_t>(place), std::move(item));
    }

    RuleFuzz& fuzz_;
    std::vector<Item> list_;
    std::vector<std::shared_ptr<const Rule>> compiled_;
    std::vector<SetUse> uses_;
    std::optional<ClassifierRun> run_;
};

/// Edits one after the other, each as changes to a program; it is made anew where they are too many.
TEST(EngineProg, ChangesMatchLikeTheReference) {
    const std::uint64_t seed = testing::from_environment("NETCTL_FUZZ_SEED", 1);
    std::size_t edits = 0, folds = 0, taken_back = 0;
    // Where loads take seconds, just enough for this kernel to have run all of the code.
    const bool brief = testing::from_environment("NETCTL_FUZZ_CASES", 1 << 20) < 10000;
    for (int kind = 0; kind < testing::rule_styles + testing::firewall_kinds; ++kind) {
        if (brief && kind != static_cast<int>(RuleStyle::addresses) &&
            kind != static_cast<int>(RuleStyle::headers))
            continue;
        RuleFuzz fuzz(seed * 131 + static_cast<std::uint64_t>(kind));
        std::mt19937_64 random(seed * 137 + static_cast<std::uint64_t>(kind));
        const bool firewall = kind >= testing::rule_styles;
        const auto style = firewall ? RuleStyle::five_tuple : static_cast<RuleStyle>(kind);
        EditedList list(
            fuzz, firewall ? testing::firewall_rules(
                                 static_cast<testing::FirewallKind>(kind - testing::rule_styles),
                                 kind % 2 ? Family::ipv4 : Family::ipv6, 300, seed)
                           : fuzz.rules(style, 60));
        list.fold();
        int folds_left = brief ? 0 : 2;
        for (int i = 0; i < 60 && !HasFailure(); ++i) {
            const auto before = list.items();
            list.edit(random, style);
            if (list.check(512, fmt::format("kind {}, edit {}", kind, i))) {
                ++edits;
            } else if (folds_left-- > 0) {
                ++folds;
                list.fold();
                EXPECT_TRUE(list.check(512, fmt::format("kind {}, edit {}, folded", kind, i)));
            } else { // a load of the program takes its time
                ++taken_back;
                list.restore(before);
            }
        }
        if (HasFailure())
            return;
    }
    EXPECT_GT(edits, brief ? 20u : 300u);
    fmt::print("{} edits as changes, {} folded, {} not done\n", edits, folds, taken_back);
}

} // namespace
} // namespace netctl::classifier
