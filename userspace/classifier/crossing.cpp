// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/crossing.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "classifier/address_trie.hpp"
#include "classifier/cross_trie.hpp"
#include "classifier/packet_classes.hpp"
#include "classifier/pieces.hpp"
#include "classifier/rule_lists.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::classifier {

namespace {

/// Address bits of each level of IPv4 tries: few levels, but many entries. Rule sets for which both
/// tries would take more than `largest_multibit` bytes get path tries, which have a level or two more
/// and take a fifth of that: beyond the second-level cache, misses cost more than levels.
constexpr std::array<unsigned, NC_LEVELS4> strides{16, 8, 8};
constexpr std::size_t largest_multibit = 1u << 20;

/// A piece is crossed by the side on which it covers less; up to so many classes of the destination
/// count as little, which keeps most rules in one of the two tries.
constexpr std::uint32_t few_classes = 16;

/// Words that lists and tries may take while they are made, for each byte of the budget.
constexpr std::size_t working_memory(std::size_t rules) {
    return memory_budget(rules);
}

/// Collects tables and constants. Tables of numbers get the narrowest entries that hold them.
class Output {
  public:
    void constant(std::string name, std::vector<std::uint32_t> values) {
        compiled_.constants.push_back({std::move(name), std::move(values)});
    }
    void constant(std::string name, std::uint32_t value) {
        constant(std::move(name), std::vector<std::uint32_t>{value});
    }
    /// A table with entries of 1 << width bytes; `name_n` is how many there are.
    template <class T>
    void table(const std::string& name, const std::vector<T>& entries, unsigned width) {
        Table table{name, std::vector<std::byte>(entries.size() << width)};
        for (std::size_t i = 0; i < entries.size(); ++i)
            store(table.bytes.data() + (i << width), entries[i], width);
        constant(name + "_n", static_cast<std::uint32_t>(entries.size()));
        compiled_.tables.push_back(std::move(table));
    }
    /// A table of numbers below `bound`, and of all-ones entries if there are any.
    void sized(const std::string& name, const std::vector<std::uint32_t>& entries,
               std::uint64_t bound) {
        unsigned width = bound <= 0xff ? 0 : bound <= 0xffff ? 1 : 2;
        constant(name + "_w", width);
        table(name, entries, width);
    }
    void sized(const std::string& name, const std::vector<std::uint32_t>& entries) {
        std::uint32_t highest = 0;
        for (std::uint32_t entry : entries)
            if (entry != ~0u)
                highest = std::max(highest, entry);
        sized(name, entries, std::uint64_t{highest} + 1);
    }
    Compiled take() { return std::move(compiled_); }
    Compiled& compiled() { return compiled_; }

  private:
    template <class T> static void store(std::byte* at, T value, unsigned width) {
        if (width == 0) {
            auto narrow = static_cast<std::uint8_t>(value);
            std::memcpy(at, &narrow, sizeof narrow);
        } else if (width == 1) {
            auto narrow = static_cast<std::uint16_t>(value);
            std::memcpy(at, &narrow, sizeof narrow);
        } else if (width == 2) {
            auto narrow = static_cast<std::uint32_t>(value);
            std::memcpy(at, &narrow, sizeof narrow);
        } else {
            auto whole = static_cast<std::uint64_t>(value);
            std::memcpy(at, &whole, sizeof whole);
        }
    }
    Compiled compiled_;
};

// ---- addresses ----

void emit_multibit(Output& out, const std::string& name, const MultibitTrie& trie) {
    out.table(name, trie.entries, trie.width);
    out.constant(name + "_w", trie.width);
    out.constant(name + "_base", trie.base);
}

class Paths {
  public:
    void add(nc_path path, std::span<const PathTries::Leaf> leaves) {
        PathTries::Root root = tries_.add(leaves);
        roots_[path * 2] = static_cast<std::uint32_t>(root.entry);
        roots_[path * 2 + 1] = static_cast<std::uint32_t>(root.entry >> 32);
        levels_[path] = root.levels;
    }
    void emit(Output& out) const {
        out.constant("nc_path_root", {roots_.begin(), roots_.end()});
        out.constant("nc_path_levels", {levels_.begin(), levels_.end()});
        if (!tries_.entries().empty())
            out.table("nc_paths", tries_.entries(), 3);
    }

  private:
    PathTries tries_;
    std::array<std::uint32_t, NC_PATHS * 2> roots_{};
    std::array<std::uint32_t, NC_PATHS> levels_{};
};

/// A side's addresses of one family as a path trie, if there is more than one class of them.
void add_family(Paths& paths, nc_path path, const PrefixForest& forest, Family family) {
    std::uint32_t root = forest.root(family);
    if (root == PrefixForest::any || forest[root].end == root + 1)
        return;
    std::vector<PathTries::Leaf> leaves;
    for (std::uint32_t node = root; node < forest[root].end; ++node)
        leaves.push_back({forest[node].key, forest[node].prefix.length, node});
    paths.add(path, leaves);
}

void add_ipv4(Output& out, Paths& paths, const Pieces& pieces) {
    std::array<MultibitTrie, 2> both;
    for (std::size_t i = 0; i < 2; ++i) {
        const PrefixForest& forest = i == 0 ? pieces.src : pieces.dst;
        std::uint32_t root = forest.root(Family::ipv4);
        if (root != PrefixForest::any && forest[root].end > root + 1)
            both[i] = multibit_trie(forest, strides);
    }
    if (both[0].bytes() + both[1].bytes() > largest_multibit) {
        add_family(paths, NC_PATH_SRC4, pieces.src, Family::ipv4);
        add_family(paths, NC_PATH_DST4, pieces.dst, Family::ipv4);
        return;
    }
    out.constant("nc_stride4", {strides.begin(), strides.end()});
    for (std::size_t i = 0; i < 2; ++i)
        if (!both[i].entries.empty())
            emit_multibit(out, i == 0 ? "nc_src4" : "nc_dst4", both[i]);
}

// ---- inputs of the packet class ----

/// Intervals of values of `bits` bits as the leaves of a trie: each run of equal values is cut into
/// aligned blocks.
std::vector<PathTries::Leaf> interval_leaves(const InputClasses& input, unsigned bits) {
    std::vector<PathTries::Leaf> leaves;
    // Most values of a sparse field are of the class of its highest one: they need no leaves.
    std::uint32_t usual = input.classes.back();
    leaves.push_back({{}, 0, usual * input.place});
    for (std::size_t i = 0; i < input.starts.size(); ++i) {
        if (input.classes[i] == usual)
            continue;
        std::uint64_t low = input.starts[i];
        std::uint64_t end =
            i + 1 < input.starts.size() ? input.starts[i + 1] : std::uint64_t{1} << bits;
        while (low < end) {
            unsigned free = low == 0 ? bits : static_cast<unsigned>(std::countr_zero(low));
            free = std::min(free, bits);
            while ((std::uint64_t{1} << free) > end - low)
                --free;
            leaves.push_back(
                {{low << (64 - bits), 0}, bits - free, input.classes[i] * input.place});
            low += std::uint64_t{1} << free;
        }
    }
    return leaves;
}

class Inputs {
  public:
    Inputs(Output& out, Paths& paths) : out_(out), paths_(paths) {}

    void emit(const PacketClasses& classes, const Pieces& pieces) {
        for (const InputClasses& input : classes.inputs) {
            sums_[input.input] = input.sum + 1;
            switch (input.input) {
            case NC_INPUT_SPORT:
            case NC_INPUT_DPORT:
            case NC_INPUT_VLAN:
            case NC_INPUT_ETHER_TYPE: add_16bit(input); break;
            case NC_INPUT_LEN: paths_.add(NC_PATH_LEN, interval_leaves(input, 32)); break;
            case NC_INPUT_ETHER_SRC:
                paths_.add(NC_PATH_ETHER_SRC, interval_leaves(input, 48));
                add_absent(input);
                break;
            case NC_INPUT_ETHER_DST:
                paths_.add(NC_PATH_ETHER_DST, interval_leaves(input, 48));
                add_absent(input);
                break;
            case NC_INPUT_SRC: add_direct(input, pieces.src.size()); break;
            case NC_INPUT_DST: add_direct(input, pieces.dst.size()); break;
            case NC_INPUT_FAMILY: add_direct(input, 3); break;
            default: add_direct(input, 256); break;
            }
        }
        out_.constant("nc_input_sum", {sums_.begin(), sums_.end()});
        out_.constant("nc_input_base", {bases_.begin(), bases_.end()});
        out_.constant("nc_input_absent", {absent_.begin(), absent_.end()});
        if (!direct_.empty())
            out_.table("nc_direct", direct_, 2);
        if (!index_.empty()) {
            out_.table("nc_index", index_, 1);
            std::vector<std::uint32_t> blocks;
            for (std::uint32_t id = 0; id < blocks_.size(); ++id)
                blocks.insert(blocks.end(), blocks_[id].begin(), blocks_[id].end());
            out_.table("nc_block", blocks, 2);
        }
        std::vector<std::uint32_t> early, used(NC_SUMS), base(NC_SUMS);
        for (std::size_t sum = 1; sum < NC_SUMS; ++sum) {
            used[sum] = !classes.early[sum].empty();
            base[sum] = static_cast<std::uint32_t>(early.size());
            early.insert(early.end(), classes.early[sum].begin(), classes.early[sum].end());
        }
        out_.constant("nc_early_used", used);
        out_.constant("nc_early_base", base);
        if (!early.empty())
            out_.table("nc_early", early, 2);
    }

  private:
    static std::vector<std::uint32_t> spread(const InputClasses& input, std::size_t values) {
        std::vector<std::uint32_t> numbers(values);
        for (std::size_t i = 0; i < input.starts.size(); ++i)
            std::fill(numbers.begin() + static_cast<std::ptrdiff_t>(input.starts[i]), numbers.end(),
                      input.classes[i] * input.place);
        return numbers;
    }
    void add_absent(const InputClasses& input) {
        absent_[input.input] = static_cast<std::uint32_t>(direct_.size());
        direct_.push_back(input.absent * input.place);
    }
    void add_direct(const InputClasses& input, std::size_t values) {
        bases_[input.input] = static_cast<std::uint32_t>(direct_.size());
        std::vector<std::uint32_t> numbers = spread(input, values);
        direct_.insert(direct_.end(), numbers.begin(), numbers.end());
        add_absent(input);
    }
    void add_16bit(const InputClasses& input) {
        bases_[input.input] = static_cast<std::uint32_t>(index_.size());
        std::vector<std::uint32_t> numbers = spread(input, 65536);
        for (std::size_t i = 0; i < numbers.size(); i += 64)
            index_.push_back(blocks_.intern(std::span(numbers).subspan(i, 64)));
        absent_[input.input] = static_cast<std::uint32_t>(index_.size());
        index_.push_back(
            blocks_.intern(std::vector<std::uint32_t>(64, input.absent * input.place)));
    }

    Output& out_;
    Paths& paths_;
    std::array<std::uint32_t, NC_INPUTS> sums_{}, bases_{}, absent_{};
    std::vector<std::uint32_t> direct_, index_;
    SequencePool<std::uint32_t> blocks_;
};

// ---- crossing ----

/// Which lists a crossing's leaves name.
void collect_lists(const CrossTables& tables, std::vector<std::uint32_t>& used) {
    if (tables.bits.empty())
        used.insert(used.end(), tables.rows.begin(), tables.rows.end());
    else
        used.insert(used.end(), tables.entries.begin() + tables.base.back(), tables.entries.end());
}

template <class Meaning>
void emit_crossing(Output& out, const std::string& number, CrossTables tables, Meaning meaning) {
    if (tables.bits.empty())
        for (std::uint32_t& list : tables.rows)
            list = meaning(list);
    else
        for (std::size_t i = tables.base.back(); i < tables.entries.size(); ++i)
            tables.entries[i] = meaning(tables.entries[i]);
    out.sized("nc_row" + number, tables.rows);
    out.constant("nc_cross" + number + "_levels", static_cast<std::uint32_t>(tables.bits.size()));
    if (tables.bits.empty())
        return;
    out.sized("nc_cross" + number, tables.entries);
    out.constant("nc_cross" + number + "_bits", tables.bits);
    out.constant("nc_cross" + number + "_shift", tables.shift);
    out.constant("nc_cross" + number + "_base", tables.base);
}

class CrossingCompiler {
  public:
    CrossingCompiler(std::span<const Rule> rules, std::span<const SetUse> set_uses)
        : rules_(rules.size()), pieces_(take_apart(rules, set_uses)) {
        out_.compiled().engine = "crossing";
        out_.compiled().set_uses.assign(set_uses.begin(), set_uses.end());
    }

    Result<Compiled> run() {
        PacketClasses classes = NETCTL_TRY(packet_classes(pieces_));
        RuleLists lists(pieces_, classes);
        sort_by_side(classes);
        std::optional<CrossTables> first, second;
        if (!by_src_.empty())
            first = NETCTL_TRY(cross(pieces_.src, pieces_.dst, by_src_, lists));
        if (!by_dst_.empty())
            second = NETCTL_TRY(cross(pieces_.dst, pieces_.src, by_dst_, lists));

        Paths paths;
        Inputs(out_, paths).emit(classes, pieces_);
        out_.constant("nc_classes", classes.count);
        emit_product(classes);
        if (std::ranges::any_of(classes.wild, [](std::uint32_t rule) { return rule != no_rule; }))
            out_.sized("nc_wild", classes.wild);
        emit_lists(classes, lists, first, second);

        add_ipv4(out_, paths, pieces_);
        add_family(paths, NC_PATH_SRC6, pieces_.src, Family::ipv6);
        add_family(paths, NC_PATH_DST6, pieces_.dst, Family::ipv6);
        emit_families();
        paths.emit(out_);
        if (std::size_t taken = out_.compiled().memory(); taken > memory_budget(rules_))
            return too_big("addresses and lists of rules", taken);
        return out_.take();
    }

  private:
    using Update = CrossTrie::Update;

    /// Classes of families without a trie, by nc_has: neither, IPv4, IPv6.
    void emit_families() {
        std::vector<std::uint32_t> classes{PrefixForest::any, PrefixForest::any};
        for (Family family : {Family::ipv4, Family::ipv6}) {
            classes.push_back(pieces_.src.root(family));
            classes.push_back(pieces_.dst.root(family));
        }
        // Without any prefix, there is but one class.
        if (pieces_.src.size() > 1 || pieces_.dst.size() > 1)
            out_.table("nc_family", classes, 2);
    }

    Error too_big(std::string_view part, std::size_t bytes) const {
        return Error::usage(
            fmt::format(
                "{} of the rules take {} KiB of tables or more, beyond the budget of {} KiB", part,
                bytes >> 10, memory_budget(rules_) >> 10),
            "put prefixes and ports that are treated alike into sets");
    }

    /// With one input, its classes are mostly the packet classes already.
    void emit_product(const PacketClasses& classes) {
        for (std::uint32_t i = 0; i < classes.product.size(); ++i)
            if (classes.product[i] != i) {
                out_.sized("nc_product", classes.product);
                return;
            }
    }

    void sort_by_side(const PacketClasses& classes) {
        std::vector<std::vector<Update>> by_src(pieces_.src.size()), by_dst(pieces_.dst.size());
        bool any_by_src = false, any_by_dst = false;
        for (std::uint32_t i = 0; i < pieces_.pieces.size(); ++i) {
            const Piece& piece = pieces_.pieces[i];
            if (piece.src == PrefixForest::any && piece.dst == PrefixForest::any)
                continue; // in PacketClasses::wild
            bool alive = false;
            classes.shape_classes[piece.shape].each(
                [&](std::uint32_t c) { alive |= classes.wild[c] > piece.rule; });
            if (!alive)
                continue;
            std::uint32_t src_end = pieces_.src[piece.src].end,
                          dst_end = pieces_.dst[piece.dst].end;
            std::uint32_t sources = src_end - piece.src, destinations = dst_end - piece.dst;
            if (destinations > few_classes && destinations > sources) {
                by_dst[piece.dst].push_back({piece.src, src_end, i});
                any_by_dst = true;
            } else {
                by_src[piece.src].push_back({piece.dst, dst_end, i});
                any_by_src = true;
            }
        }
        if (any_by_src)
            by_src_ = std::move(by_src);
        if (any_by_dst)
            by_dst_ = std::move(by_dst);
    }

    Result<CrossTables> cross(const PrefixForest& rows, const PrefixForest& other,
                              std::vector<std::vector<Update>>& updates, RuleLists& lists) const {
        CrossTrie trie(other.size(), lists);
        for (std::uint32_t row = 0; row < rows.size(); ++row) {
            trie.add_row(rows[row].parent, std::move(updates[row]));
            if (trie.items() + lists.items() > working_memory(rules_))
                return too_big("pairs of prefixes", (trie.items() + lists.items()) * 4);
        }
        return trie.tables();
    }

    void emit_lists(const PacketClasses& classes, const RuleLists& lists,
                    const std::optional<CrossTables>& first,
                    const std::optional<CrossTables>& second) {
        std::vector<std::uint32_t> used;
        for (const auto& tables : {first, second})
            if (tables)
                collect_lists(*tables, used);
        std::ranges::sort(used);
        used.erase(std::unique(used.begin(), used.end()), used.end());
        if (classes.count == 1) { // nothing to look up: a list is its first rule
            auto rule = [&](std::uint32_t list) { return lists.first_rule(list); };
            if (first)
                emit_crossing(out_, "1", *first, rule);
            if (second)
                emit_crossing(out_, "2", *second, rule);
            return;
        }
        if (used.empty())
            return;
        ListTables tables = lists.tables(used);
        auto offset = [&](std::uint32_t list) { return tables.offsets[list]; };
        if (first)
            emit_crossing(out_, "1", *first, offset);
        if (second)
            emit_crossing(out_, "2", *second, offset);
        out_.sized("nc_lists", tables.lists);
        out_.constant("nc_block_bits", tables.block_bits);
        if (tables.block_bits)
            out_.sized("nc_blocks", tables.blocks);
        out_.sized("nc_firsts", tables.firsts);
    }

    std::size_t rules_;
    Pieces pieces_;
    Output out_;
    std::vector<std::vector<Update>> by_src_, by_dst_; ///< by row
};

} // namespace

Result<Compiled> compile_crossing(std::span<const Rule> rules, std::span<const SetUse> set_uses) {
    return CrossingCompiler(rules, set_uses).run();
}

} // namespace netctl::classifier
