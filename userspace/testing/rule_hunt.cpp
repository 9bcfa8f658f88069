// SPDX-License-Identifier: GPL-2.0-only
#include "testing/rule_hunt.hpp"

#include <algorithm>
#include <ctime>
#include <random>

#include "classifier/engine.hpp"
#include "testing/table_walk.hpp"

namespace netctl::testing {

namespace {

/// Tries that find nothing worse before it begins anew.
constexpr unsigned patience = 60;

RuleGenes any_genes(std::mt19937_64& random) {
    RuleGenes made{};
    for (std::size_t i = 0; i < genes; ++i) {
        const auto [name, low, high] = bounds_of(i);
        made[i] = static_cast<std::uint8_t>(low + random() % (high - low + 1u));
    }
    return made;
}

/// One to three of them become others: near ones, or any.
RuleGenes changed(RuleGenes made, std::mt19937_64& random) {
    for (std::uint64_t change = 0, most = 1 + random() % 3; change < most; ++change) {
        const std::size_t i = random() % genes;
        const auto [name, low, high] = bounds_of(i);
        const int step = std::max(1, (high - low) / 8);
        const int near =
            made[i] + static_cast<int>(random() % (2u * static_cast<unsigned>(step) + 1)) - step;
        made[i] = random() % 4 == 0 ? static_cast<std::uint8_t>(low + random() % (high - low + 1u))
                                    : static_cast<std::uint8_t>(std::clamp<int>(near, low, high));
    }
    return made;
}

} // namespace

std::string_view to_string(Burden burden) {
    constexpr std::array<std::string_view, burdens> names{"rules apart", "cache lines", "bytes",
                                                          "compiling"};
    return names[static_cast<std::size_t>(burden)];
}

Result<Burdens> weigh(const RuleGenes& genes, Family family, std::size_t count) {
    const std::vector<Rule> rules = rules_of(genes, family, count, 1);
    if (rules.empty())
        return Burdens{};
    const std::clock_t begin = std::clock();
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(rules));
    const double milliseconds = 1000.0 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    const auto size = static_cast<double>(rules.size());
    double lines = size;
    if (compiled.engine == "crossing") {
        const LinesRead read = lines_read(compiled, rules);
        if (read.faults)
            return Error::failed("the tables lead beyond their ends");
        lines = read.average;
    }
    return Burdens{100.0 * static_cast<double>(compiled.rules_apart) / size, lines,
                   static_cast<double>(compiled.memory()) / size, milliseconds / size * 1000};
}

Result<Find> hunt(Burden burden, Family family, std::size_t rules, std::chrono::seconds time,
                  std::uint64_t seed, const std::function<void(const Find&)>& told) {
    const auto end = std::chrono::steady_clock::now() + time;
    const auto which = static_cast<std::size_t>(burden);
    std::mt19937_64 random(seed);
    Find worst, present;
    unsigned in_vain = patience;
    do {
        Find next;
        const bool anew = in_vain >= patience;
        next.genes = anew ? any_genes(random) : changed(present.genes, random);
        next.figures = NETCTL_TRY(weigh(next.genes, family, rules));
        if (anew || next.figures[which] > present.figures[which]) {
            present = next;
            in_vain = 0;
        } else {
            ++in_vain;
        }
        if (present.figures[which] > worst.figures[which]) {
            worst = present;
            told(worst);
        }
    } while (std::chrono::steady_clock::now() < end);
    return worst;
}

} // namespace netctl::testing
