// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/operand_classes.hpp"

#include <algorithm>

#include "classifier/inputs.hpp"

namespace netctl::classifier {

namespace {

SetPool value_classes(InputClasses& input, const std::vector<ValueSet>& operands,
                      std::size_t largest) {
    struct Edge {
        std::uint64_t at;
        std::uint32_t operand;
    };
    std::vector<Edge> edges; // an operand begins or ends to hold
    BitSet absent(operands.size());
    for (std::uint32_t i = 0; i < operands.size(); ++i) {
        for (const Range& range : operands[i].ranges) {
            edges.push_back({range.low, i});
            if (range.high < input_info(input.input).highest)
                edges.push_back({range.high + 1, i});
        }
        if (operands[i].absent)
            absent.set(i);
    }
    std::ranges::sort(edges, {}, &Edge::at);

    SetPool sets;
    BitSet holds(operands.size());
    std::uint64_t at = 0;
    for (std::size_t i = 0; sets.items() <= largest;) {
        for (; i < edges.size() && edges[i].at == at; ++i)
            holds.flip(edges[i].operand);
        input.starts.push_back(at);
        input.classes.push_back(sets.intern(holds.words()));
        if (i == edges.size())
            break;
        at = edges[i].at;
    }
    input.absent = sets.intern(absent.words());
    return sets;
}

SetPool list_classes(InputClasses& input, const PrefixForest& forest,
                     const std::vector<PrefixList>& lists, std::size_t largest) {
    std::vector<std::vector<std::uint32_t>> lists_at(forest.size());
    BitSet families[2] = {BitSet(lists.size()), BitSet(lists.size())};
    BitSet negated(lists.size());
    for (std::uint32_t i = 0; i < lists.size(); ++i) {
        if (lists[i].negated)
            negated.set(i);
        for (const Prefix& prefix : lists[i].prefixes) {
            lists_at[forest.find(prefix)].push_back(i);
            families[prefix.address.family == Family::ipv6].set(i);
        }
    }
    SetPool sets;
    std::vector<BitSet> members{BitSet(lists.size())}; // by depth: the lists that hold the node
    std::vector<std::uint32_t> path{PrefixForest::any};
    input.starts = {0};
    input.classes = {sets.intern(members.front().words())}; // no address is in no list
    for (std::uint32_t node = 1; node < forest.size() && sets.items() <= largest; ++node) {
        while (path.back() != forest[node].parent)
            path.pop_back();
        path.push_back(node);
        members.resize(path.size());
        BitSet& inside = members.back() = members[path.size() - 2];
        for (std::uint32_t list : lists_at[node])
            inside.set(list);
        BitSet holds = inside;
        negated.each([&](std::uint32_t list) {
            if (families[forest[node].prefix.address.family == Family::ipv6].test(list))
                holds.flip(list);
        });
        input.starts.push_back(node);
        input.classes.push_back(sets.intern(holds.words()));
    }
    input.absent = input.classes.front();
    return sets;
}

} // namespace

SetPool operand_classes(const Pieces& pieces, InputClasses& input, std::size_t largest) {
    switch (input.input) {
    case NC_INPUT_SRC: return list_classes(input, pieces.src, pieces.src_lists, largest);
    case NC_INPUT_DST: return list_classes(input, pieces.dst, pieces.dst_lists, largest);
    default: return value_classes(input, pieces.values[input.input], largest);
    }
}

} // namespace netctl::classifier
