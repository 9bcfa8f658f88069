// SPDX-License-Identifier: GPL-2.0-only
#include "testing/table_walk.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include <arpa/inet.h>

#include "netctl/abi/crossing.h"
#include "netctl/abi/rule.h"
#include "testing/rule_fuzz.hpp"

namespace netctl::testing {

namespace {

std::uint64_t half(const __be32* words) {
    return std::uint64_t{ntohl(words[0])} << 32 | ntohl(words[1]);
}

std::uint64_t low_bits(std::uint64_t count) {
    return count >= 64 ? ~0ull : (1ull << count) - 1;
}

std::uint64_t mac(const __u8* bytes) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < 6; ++i)
        value = value << 8 | bytes[i];
    return value;
}

} // namespace

TableWalk::TableWalk(const classifier::Compiled& compiled) {
    for (const classifier::Constant& each : compiled.constants)
        constants_[each.name] = each.values;
    for (const classifier::Table& table : compiled.tables) {
        const std::size_t entries = constants_.at(table.name + "_n").front();
        const std::size_t size = entries ? table.bytes.size() / entries : 1;
        tables_[table.name] = {&table, static_cast<unsigned>(std::countr_zero(size))};
    }
}

TableWalk::Found TableWalk::find(const nc_packet& packet, std::uint64_t set_bits) {
    found_ = {};
    rows_.assign(NC_INPUTS, {});
    lines_.clear();
    const std::uint64_t src = address_class(packet, true), dst = address_class(packet, false),
                        its_class = packet_class(packet, set_bits, src, dst);
    std::uint64_t first = NC_NO_RULE;
    if (has("nc_wild"))
        if (const std::uint64_t rule = read("nc_wild", its_class); !is_none("nc_wild", rule))
            first = rule;
    if (has("nc_row1"))
        first = std::min(first, crossed("1", src, dst, its_class));
    if (has("nc_row2"))
        first = std::min(first, crossed("2", dst, src, its_class));
    if (constant("nc_apart_words") && first > constant("nc_apart_first"))
        search(first);
    found_.lines = static_cast<unsigned>(lines_.size());
    for (const Line& line : lines_)
        ++touched_[line];
    found_.rule = static_cast<std::uint32_t>(first);
    return found_;
}

std::map<std::string, TableWalk::Use> TableWalk::uses() const {
    std::map<std::string, Use> uses;
    for (const auto& [line, packets] : touched_) {
        Use& use = uses[line.first->name];
        use.lines += packets;
        ++use.touched;
    }
    return uses;
}

std::uint64_t TableWalk::constant(const std::string& name, std::size_t i) const {
    const auto known = constants_.find(name);
    return known == constants_.end() ? 0 : known->second.at(i);
}

std::uint64_t TableWalk::read(const std::string& table, std::uint64_t i) {
    const auto known = tables_.find(table);
    if (known == tables_.end() ||
        (i + 1) << known->second.width > known->second.table->bytes.size()) {
        found_.fault = true;
        return 0;
    }
    const Line line{known->second.table, (i << known->second.width) / 64};
    if (std::ranges::find(lines_, line) == lines_.end())
        lines_.push_back(line);
    std::uint64_t entry = 0;
    std::memcpy(&entry, known->second.table->bytes.data() + (i << known->second.width),
                std::size_t{1} << known->second.width);
    return entry;
}

bool TableWalk::is_none(const std::string& table, std::uint64_t entry) const {
    const auto known = tables_.find(table);
    return known != tables_.end() && entry == low_bits(8ull << std::min(known->second.width, 2u));
}

std::uint64_t TableWalk::path(unsigned number, std::uint64_t high, std::uint64_t low) {
    std::uint64_t entry =
        constant("nc_path_root", number * 2 + 1) << 32 | constant("nc_path_root", number * 2);
    while (!(entry & NC_NODE_LEAF) && !found_.fault) {
        const std::uint64_t base = NC_NODE_BASE(entry);
        if (entry & NC_NODE_SKIPS) {
            std::uint64_t differs =
                (high ^ read("nc_paths", base - 5)) & read("nc_paths", base - 4);
            if (number == NC_PATH_SRC6 || number == NC_PATH_DST6)
                differs |= (low ^ read("nc_paths", base - 3)) & read("nc_paths", base - 2);
            if (differs) {
                entry = read("nc_paths", base - 1);
                continue;
            }
        }
        const std::uint64_t looked_at = entry & NC_NODE_LOW ? low : high;
        entry = read("nc_paths",
                     base + (looked_at >> NC_NODE_SHIFT(entry) & low_bits(NC_NODE_COUNT(entry))));
    }
    return entry & ~NC_NODE_FLAGS;
}

std::uint64_t TableWalk::path4(unsigned number, std::uint64_t key) {
    std::uint64_t entry = constant("nc_path_root", number * 2);
    while (!(entry & NC_NODE4_LEAF) && !found_.fault) {
        const std::uint64_t base = NC_NODE4_BASE(entry);
        if (entry & NC_NODE4_SKIPS &&
            (key ^ read("nc_paths4", base - 3)) & read("nc_paths4", base - 2))
            entry = read("nc_paths4", base - 1);
        else
            entry = read("nc_paths4",
                         base + (key >> NC_NODE4_SHIFT(entry) & low_bits(NC_NODE4_COUNT(entry))));
    }
    return entry & ~std::uint64_t{NC_NODE4_LEAF};
}

std::uint64_t TableWalk::address_class(const nc_packet& packet, bool source) {
    const __be32* address = source ? packet.src : packet.dst;
    const std::string table = source ? "nc_src4" : "nc_dst4";
    const unsigned path4 = source ? NC_PATH_SRC4 : NC_PATH_DST4,
                   path6 = source ? NC_PATH_SRC6 : NC_PATH_DST6;
    if (packet.has & NC_HAS_IPV4 && has(table)) {
        const std::uint64_t leaf = 1ull << (constant(table + "_w") == 1 ? 15 : 31);
        std::uint64_t left = ntohl(address[0]), entry = 0;
        for (std::size_t level = 0; level < NC_LEVELS4; ++level) {
            const std::uint64_t stride = constant("nc_stride4", level);
            if (!stride || entry & leaf)
                break;
            entry = read(table, constant(table + "_base", level) + (entry << stride) +
                                    (left >> (32 - stride)));
            left = left << stride & 0xffffffff;
        }
        return entry & ~leaf;
    }
    const bool pathed = packet.has & NC_HAS_IPV4 && constant("nc_path_levels", path4);
    if (pathed && has("nc_paths4"))
        return this->path4(path4, ntohl(address[0]));
    if (pathed)
        return path(path4, std::uint64_t{ntohl(address[0])} << 32, 0);
    if (packet.has & NC_HAS_IPV6 && constant("nc_path_levels", path6))
        return path(path6, half(address), half(address + 2));
    const std::uint64_t families = packet.has & (NC_HAS_IPV4 | NC_HAS_IPV6);
    return has("nc_family") ? read("nc_family", families * 2 + !source) : 0;
}

std::uint64_t TableWalk::packet_class(const nc_packet& packet, std::uint64_t set_bits,
                                      std::uint64_t src, std::uint64_t dst) {
    std::array<std::uint64_t, NC_SUMS> sums{};
    const bool apart = constant("nc_apart_words") != 0;
    const auto used = [&](unsigned input) {
        return constant("nc_input_sum", input) || (apart && constant("nc_apart_input", input));
    };
    const auto add = [&](unsigned input, std::uint64_t entry) {
        if (apart && constant("nc_apart_input", input))
            rows_[input] = {true, NC_ROW(entry)};
        if (const std::uint64_t sum = constant("nc_input_sum", input))
            sums[sum - 1] += apart ? NC_NUMBER(entry) : entry;
    };
    const auto direct = [&](unsigned input, bool present, std::uint64_t value) {
        if (used(input))
            add(input, read("nc_direct", present ? constant("nc_input_base", input) + value
                                                 : constant("nc_input_absent", input)));
    };
    const auto blocks = [&](unsigned input, bool present, std::uint64_t value) {
        if (!used(input))
            return;
        const std::uint64_t at =
            read("nc_index", present ? constant("nc_input_base", input) + (value >> 6)
                                     : constant("nc_input_absent", input));
        if (constant("nc_block_runs"))
            add(input,
                read("nc_block", at + static_cast<std::uint64_t>(std::popcount(
                                          read("nc_block", at) & low_bits((value & 63) + 1)))));
        else
            add(input, read("nc_block", (at << 6) + (value & 63)));
    };
    const auto trie = [&](unsigned input, unsigned number, bool present, std::uint64_t key) {
        if (used(input))
            add(input, present ? path(number, key, 0)
                               : read("nc_direct", constant("nc_input_absent", input)));
    };
    direct(NC_INPUT_FAMILY, true, packet.has & (NC_HAS_IPV4 | NC_HAS_IPV6));
    const auto present = [&](std::uint32_t part) { return !part || packet.has & part; };
    const auto src_class = src, dst_class = dst;
#define NC_WALK_ADDRESS(NAME, name, part) direct(NC_INPUT_##NAME, true, name##_class);
#define NC_WALK_U8(NAME, name, part) direct(NC_INPUT_##NAME, present(part), packet.name);
#define NC_WALK_U16(NAME, name, part) blocks(NC_INPUT_##NAME, present(part), packet.name);
#define NC_WALK_U32(NAME, name, part)                                                              \
    trie(NC_INPUT_##NAME, NC_PATH_##NAME, present(part), std::uint64_t{packet.name} << 32);
#define NC_WALK_MAC(NAME, name, part)                                                              \
    trie(NC_INPUT_##NAME, NC_PATH_##NAME, present(part), mac(packet.name) << 16);
#define NC_WALK_MASK32(NAME, name, part)                                                           \
    for (unsigned i = 0; i < 4; ++i)                                                               \
        direct(NC_INPUT_##NAME + i, present(part), packet.name >> 8 * i & 0xff);
#define NC_KEY_WALK(NAME, name, text, kind, part, ...) NC_WALK_##kind(NAME, name, part)
    NC_PACKET_KEYS(NC_KEY_WALK)
    for (unsigned i = 0; i < 8; ++i)
        direct(NC_INPUT_SETS + i, true, set_bits >> 8 * i & 0xff);
    for (std::size_t i = 1; i < NC_SUMS; ++i)
        if (constant("nc_early_used", i))
            sums[0] += read("nc_early", constant("nc_early_base", i) + sums[i]);
    return has("nc_product") ? read("nc_product", sums[0]) : sums[0];
}

/// First match among the rules of one crossing.
std::uint64_t TableWalk::crossed(const std::string& number, std::uint64_t row, std::uint64_t other,
                                 std::uint64_t packet_class) {
    const std::string table = "nc_cross" + number, levels = table + "_levels";
    std::uint64_t list = read("nc_row" + number, row);
    for (std::size_t level = 0; level < constant(levels); ++level) {
        const std::uint64_t bits = constant(table + "_bits", level);
        list = read(table, constant(table + "_base", level) + (list << bits) +
                               (other >> constant(table + "_shift", level) & low_bits(bits)));
    }
    const std::uint64_t classes = constant("nc_classes");
    if (classes == 1)
        return is_none(constant(levels) ? table : "nc_row" + number, list) ? NC_NO_RULE : list;
    const std::uint64_t profile = read("nc_lists", list), bits = constant("nc_block_bits");
    std::uint64_t at = profile * classes + packet_class;
    if (bits)
        at = (read("nc_blocks", profile * ((classes >> bits) + 1) + (packet_class >> bits))
              << bits) +
             (packet_class & low_bits(bits));
    const std::uint64_t position = read("nc_firsts", at);
    return is_none("nc_firsts", position) ? NC_NO_RULE : read("nc_lists", list + 1 + position);
}

std::uint64_t TableWalk::block(const Row& row, std::uint64_t group) {
    return constant("nc_apart_groups") == 1 ? row.at : read("nc_rows", row.at + 1 + group);
}

/// Among the rules apart, for one before `first`.
void TableWalk::search(std::uint64_t& first) {
    std::uint64_t groups = 1;
    if (constant("nc_apart_groups") > 1) {
        groups = ~0ull;
        for (const Row& row : rows_)
            if (row.asked)
                groups &= read("nc_rows", row.at);
    }
    for (; groups && !found_.fault; groups &= groups - 1) {
        const auto group = static_cast<std::uint64_t>(std::countr_zero(groups));
        std::uint64_t words = ~0ull;
        for (const Row& row : rows_)
            if (row.asked)
                words &= read("nc_rows", block(row, group));
        for (; words && !found_.fault; words &= words - 1)
            look_into(group, static_cast<std::uint64_t>(std::countr_zero(words)), first);
    }
}

void TableWalk::look_into(std::uint64_t group, std::uint64_t word, std::uint64_t& first) {
    const std::uint64_t number = group << 6 | word;
    if (read("nc_least", number) >= first)
        return;
    ++found_.words;
    std::uint64_t bits = ~0ull;
    for (std::size_t input = 0; input < rows_.size(); ++input) {
        if (!rows_[input].asked)
            continue;
        const std::uint64_t at = block(rows_[input], group);
        const std::uint64_t before =
            constant("nc_apart_plain", input)
                ? word
                : static_cast<std::uint64_t>(std::popcount(read("nc_rows", at) & low_bits(word)));
        bits &= read("nc_rows", at + 1 + before);
    }
    if (bits)
        first = std::min(first, read("nc_aparts", (number << 6) + static_cast<std::uint64_t>(
                                                                      std::countr_zero(bits))));
}

LinesRead lines_read(const classifier::Compiled& compiled, const std::vector<Rule>& rules) {
    constexpr unsigned packets = 300;
    TableWalk walk(compiled);
    RuleFuzz fuzz(3);
    LinesRead read;
    for (unsigned i = 0; i < packets; ++i) {
        const TableWalk::Found found = walk.find(fuzz.packet(rules), 0);
        read.faults += found.fault;
        read.average += static_cast<double>(found.lines) / packets;
    }
    return read;
}

} // namespace netctl::testing
