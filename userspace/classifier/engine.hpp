// SPDX-License-Identifier: GPL-2.0-only
//
// Rules -> tables for the kernel's classifier (bpf/include/netctl/lib/classify.h). Knows nothing of
// libbpf: what it returns are bytes and constants by name, which the datapath layer puts into the
// maps `.bss.NAME` and into the program's rodata before it is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/rule.hpp"
#include "netctl/abi/rule.h"

namespace netctl::classifier {

/// Content of the program's array `NAME` in section `.bss.NAME`; the map is cut to this size.
struct Table {
    std::string name;
    std::vector<std::byte> bytes;
};

/// Value of the program's `const volatile __u32 NAME` or `NAME[n]`.
struct Constant {
    std::string name;
    std::vector<std::uint32_t> values;
};

/// A set that some rule asks about one of its fields (src, dst, sport or dport). The datapath looks
/// each one up once a packet, and hands the answers to the classifier as bit i of `set_bits`.
struct SetUse {
    Key key{};
    std::string set;
    bool operator==(const SetUse&) const = default;
};

/// Of a rule whose limit adds to a set: that set, asked about the side of its accounts. The datapath
/// adds nobody who is in it.
std::optional<SetUse> use_of_over(const Rule& rule);

struct Compiled {
    std::string engine; ///< which form was chosen, for `status`: crossing or linear
    /// Rules of the crossing form that cost a little more each, being bit vectors.
    std::size_t rules_apart = 0;
    std::string reason; ///< why some rules stand apart, or why the form is linear
    std::vector<Table> tables;
    std::vector<Constant> constants;
    std::vector<SetUse> set_uses; ///< at most NC_MAX_SET_USES
    /// Bytes of all tables.
    std::size_t memory() const {
        std::size_t total = 0;
        for (const Table& table : tables)
            total += table.bytes.size();
        return total;
    }
};

/// Rules of one point at most: as many as there can be counters.
constexpr std::size_t max_rules = NC_COUNTER_CHUNK * NC_COUNTER_CHUNKS;

/// Compiles rules, first match wins; what the kernel returns is the position in `rules`. Takes the
/// crossing engine, whose cost does not grow with the rules; those that would make its tables
/// explode stand apart as bit vectors, at a few steps more. Only if that takes too much memory as well,
/// the form is linear.
/// Fails with ErrorKind::usage and the reason when the rules go beyond what both hold.
Result<Compiled> compile(std::span<const Rule> rules);

} // namespace netctl::classifier
