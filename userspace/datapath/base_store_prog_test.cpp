// SPDX-License-Identifier: GPL-2.0-only
//
// Bases in the kernel's maps: what is written comes back, whatever is written beside it.
#include "datapath/base_store.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "testing/must.hpp"

namespace netctl::datapath {

namespace {

using testing::must;
using Lines = std::vector<nc_base_line>;

/// Lines as they might be, with a head that says what a reference repeats.
Lines lines_of(std::mt19937& random, std::size_t count) {
    Lines lines(count);
    for (nc_base_line& line : lines)
        for (__u32& half : line.half)
            half = static_cast<__u32>(random());
    nc_base_head head{};
    head.filter_shift = static_cast<__u8>(random() % 32);
    std::memcpy(lines.data(), &head, sizeof head);
    return lines;
}

/// Whether it begins with these lines; the rest of the last segment is zeroes.
bool holds(const Lines& found, const Lines& wanted) {
    return found.size() >= wanted.size() &&
           std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof wanted[0]) == 0 &&
           std::all_of(found.begin() + static_cast<std::ptrdiff_t>(wanted.size()), found.end(),
                       [](const nc_base_line& line) { return line.word[0] == 0; });
}

TEST(BaseStoreProg, KeepsBasesApart) {
    std::mt19937 random(1);
    const BaseStore store = must(BaseStore::make());
    std::map<std::pair<std::uint32_t, Family>, Lines> bases;
    for (int turn = 0; turn < 40; turn++) {
        const auto number = static_cast<std::uint32_t>(1 + random() % 3);
        const Family family = random() % 2 ? Family::ipv4 : Family::ipv6;
        // None, a part of a segment, a whole one, several.
        const std::size_t sizes[] = {0, 1, NC_BASE_SEGMENT, NC_BASE_SEGMENT + 1,
                                     3 * NC_BASE_SEGMENT + random() % NC_BASE_SEGMENT};
        const std::size_t count = sizes[random() % std::size(sizes)];
        const Lines lines = count == 0 ? Lines() : lines_of(random, count);
        BaseStore::NewBases next;
        next[family == Family::ipv6] = lines;
        const BaseStore::Turn prepared = must(store.prepare(number, next));
        if (random() % 4 != 0) { // else a writer that is killed: what was in force stays
            store.put_in_force(prepared);
            bases[{number, family}] = lines;
        }
        must(store.settle());
        for (const auto& [place, wanted] : bases) {
            const Lines found = must(store.read(place.first, place.second));
            ASSERT_EQ(found.empty(), wanted.empty());
            ASSERT_EQ(found.size() % NC_BASE_SEGMENT, 0U);
            ASSERT_LT(found.size(), wanted.size() + NC_BASE_SEGMENT);
            ASSERT_TRUE(holds(found, wanted)) << "turn " << turn << ", base " << place.first;
        }
    }
}

} // namespace

} // namespace netctl::datapath
