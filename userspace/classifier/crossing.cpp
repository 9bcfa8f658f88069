// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/crossing.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "classifier/address_trie.hpp"
#include "classifier/bit_vectors.hpp"
#include "classifier/covered.hpp"
#include "classifier/cross_trie.hpp"
#include "classifier/inputs.hpp"
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

/// Words that lists and tries may take while they are made: about what tables of the budget's size need, but not so few
/// that small sets of rules stand apart for nothing, nor more than 32 MiB, which take seconds to fill. What is beyond
/// that is cheaper as bit vectors.
constexpr std::size_t working_memory(std::size_t rules) {
    return std::clamp(rules * 256, std::size_t{1} << 20, std::size_t{1} << 23);
}

/// Collects tables and constants. Tables of numbers get the narrowest entries that hold them.
class Emitted {
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

void emit_multibit(Emitted& out, const std::string& name, const MultibitTrie& trie) {
    out.table(name, trie.entries, trie.width);
    out.constant(name + "_w", trie.width);
    out.constant(name + "_base", trie.base);
}

class Paths {
  public:
    void add(nc_path path, std::span<const PathTries::Leaf> leaves) {
        set(path, tries_.add(leaves));
    }
    /// Both sides of IPv4.
    void add_ipv4(std::span<const PathTries::Leaf> src, std::span<const PathTries::Leaf> dst) {
        for (PathTries* tries : {&ipv4_, &tries_}) {
            if (!src.empty())
                set(NC_PATH_SRC4, tries->add(src));
            if (!dst.empty())
                set(NC_PATH_DST4, tries->add(dst));
            if (tries->fits())
                return;
            ipv4_ = PathTries();
        }
    }
    void emit(Emitted& out) const {
        out.constant("nc_path_root", {roots_.begin(), roots_.end()});
        out.constant("nc_path_levels", {levels_.begin(), levels_.end()});
        if (!tries_.entries().empty())
            out.table("nc_paths", tries_.entries(), 3);
        if (!ipv4_.entries().empty())
            out.table("nc_paths4", ipv4_.entries(), 2);
    }

  private:
    void set(nc_path path, const PathTries::Root& root) {
        roots_[path * 2] = static_cast<std::uint32_t>(root.entry);
        roots_[path * 2 + 1] = static_cast<std::uint32_t>(root.entry >> 32);
        levels_[path] = root.levels;
    }

    PathTries tries_, ipv4_{PathTries::Form::narrow};
    std::array<std::uint32_t, NC_PATHS * 2> roots_{};
    std::array<std::uint32_t, NC_PATHS> levels_{};
};

/// A side's addresses of one family as a path trie; empty if there are no two classes of them.
std::vector<PathTries::Leaf> family_leaves(const PrefixForest& forest, Family family) {
    std::vector<PathTries::Leaf> leaves;
    std::uint32_t root = forest.root(family);
    if (root == PrefixForest::any || forest[root].end == root + 1)
        return leaves;
    for (std::uint32_t node = root; node < forest[root].end; ++node)
        leaves.push_back({forest[node].key, forest[node].prefix.length, node});
    return leaves;
}

void add_ipv6(Paths& paths, nc_path path, const PrefixForest& forest) {
    const std::vector<PathTries::Leaf> leaves = family_leaves(forest, Family::ipv6);
    if (!leaves.empty())
        paths.add(path, leaves);
}

void add_ipv4(Emitted& out, Paths& paths, const Pieces& pieces) {
    std::array<MultibitTrie, 2> both;
    const PrefixForest* const forests[]{&pieces.src, &pieces.dst};
    auto named = [](const PrefixForest& forest) {
        std::uint32_t root = forest.root(Family::ipv4);
        return root != PrefixForest::any && forest[root].end > root + 1;
    };
    // Making what is not taken would take the longest of all; equal nodes are seldom most of them.
    std::size_t most = 0;
    for (const PrefixForest* forest : forests)
        if (named(*forest))
            most += multibit_entries(*forest, strides) * sizeof(std::uint16_t);
    bool small = most <= 2 * largest_multibit;
    for (std::size_t i = 0; i < 2 && small; ++i)
        if (named(*forests[i]))
            both[i] = multibit_trie(*forests[i], strides);
    if (!small || both[0].bytes() + both[1].bytes() > largest_multibit) {
        paths.add_ipv4(family_leaves(pieces.src, Family::ipv4),
                       family_leaves(pieces.dst, Family::ipv4));
        return;
    }
    out.constant("nc_stride4", {strides.begin(), strides.end()});
    for (std::size_t i = 0; i < 2; ++i)
        if (!both[i].entries.empty())
            emit_multibit(out, i == 0 ? "nc_src4" : "nc_dst4", both[i]);
}

// ---- inputs of the packet class and of the bit vectors ----

/// What each value of an input maps to: the number for the packet class, and above NC_ROW_SHIFT the
/// row for the rules apart. Values from starts[i] on map to numbers[i].
struct InputNumbers {
    std::vector<std::uint64_t> starts, numbers;
    std::uint64_t absent = 0;

    /// Either may be null, for one that does not look at the input.
    static InputNumbers of(const InputClasses* crossed, const InputClasses* apart) {
        InputNumbers out;
        auto number = [](const InputClasses* input, std::size_t i) {
            return input ? std::uint64_t{input->classes[i]} * input->place : 0;
        };
        std::size_t c = 0, a = 0; // the interval that the next value is in
        for (std::uint64_t at = 0;;) {
            out.starts.push_back(at);
            out.numbers.push_back(number(crossed, c) | number(apart, a) << NC_ROW_SHIFT);
            bool more_c = crossed && c + 1 < crossed->starts.size();
            bool more_a = apart && a + 1 < apart->starts.size();
            if (!more_c && !more_a)
                break;
            at = std::min(more_c ? crossed->starts[c + 1] : ~0ull,
                          more_a ? apart->starts[a + 1] : ~0ull);
            c += more_c && crossed->starts[c + 1] == at;
            a += more_a && apart->starts[a + 1] == at;
        }
        out.absent = (crossed ? std::uint64_t{crossed->absent} * crossed->place : 0) |
                     (apart ? std::uint64_t{apart->absent} << NC_ROW_SHIFT : 0);
        return out;
    }
    /// Of the values from 0 on, one by one.
    std::vector<std::uint64_t> spread(std::size_t values) const {
        std::vector<std::uint64_t> out(values);
        for (std::size_t i = 0; i < starts.size() && starts[i] < values; ++i) {
            std::size_t end = i + 1 < starts.size() ? std::min(starts[i + 1], values) : values;
            std::fill(out.begin() + static_cast<std::ptrdiff_t>(starts[i]),
                      out.begin() + static_cast<std::ptrdiff_t>(end), numbers[i]);
        }
        return out;
    }
};

/// Intervals of values of `bits` bits as the leaves of a trie: each run of equal values is cut into
/// aligned blocks.
std::vector<PathTries::Leaf> interval_leaves(const InputNumbers& input, unsigned bits) {
    std::vector<PathTries::Leaf> leaves;
    // Most values of a sparse field are of the class of its highest one: they need no leaves.
    std::uint64_t usual = input.numbers.back();
    leaves.push_back({{}, 0, usual});
    for (std::size_t i = 0; i < input.starts.size(); ++i) {
        if (input.numbers[i] == usual)
            continue;
        std::uint64_t low = input.starts[i];
        std::uint64_t end =
            i + 1 < input.starts.size() ? input.starts[i + 1] : std::uint64_t{1} << bits;
        while (low < end) {
            unsigned free = low == 0 ? bits : static_cast<unsigned>(std::countr_zero(low));
            free = std::min(free, bits);
            while ((std::uint64_t{1} << free) > end - low)
                --free;
            leaves.push_back({{low << (64 - bits), 0}, bits - free, input.numbers[i]});
            low += std::uint64_t{1} << free;
        }
    }
    return leaves;
}

class Inputs {
  public:
    Inputs(Emitted& out, Paths& paths) : out_(out), paths_(paths) {}

    void emit(const PacketClasses& classes, const BitVectors& vectors, const Pieces& pieces) {
        std::array<const InputClasses*, NC_INPUTS> crossed{}, apart{};
        for (const InputClasses& input : classes.inputs)
            crossed[input.input] = &input;
        for (const InputClasses& input : vectors.inputs)
            apart[input.input] = &input;
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input) {
            if (!crossed[input] && !apart[input])
                continue;
            sums_[input] = crossed[input] ? crossed[input]->sum + 1 : 0;
            apart_[input] = apart[input] != nullptr;
            const InputNumbers numbers = InputNumbers::of(crossed[input], apart[input]);
            const Input& about = input_info(input);
            switch (about.form) {
            case InputForm::classes:
                add_direct(input, numbers,
                           input == NC_INPUT_SRC ? pieces.src.size() : pieces.dst.size());
                break;
            case InputForm::table: add_direct(input, numbers, about.highest + 1); break;
            case InputForm::blocks: add_16bit(input, numbers); break;
            case InputForm::trie:
                paths_.add(about.path, interval_leaves(numbers, about.bits));
                add_absent(input, numbers);
                break;
            }
        }
        out_.constant("nc_input_sum", {sums_.begin(), sums_.end()});
        out_.constant("nc_input_base", {bases_.begin(), bases_.end()});
        out_.constant("nc_input_absent", {absent_.begin(), absent_.end()});
        const unsigned width = vectors.words ? 3 : 2;
        out_.constant("nc_direct_w", width);
        if (!direct_.empty())
            out_.table("nc_direct", direct_, width);
        if (!index_.empty())
            emit_blocks(width);
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
        emit_vectors(vectors);
    }

  private:
    /// Blocks whole, or where that is much, as the runs of equal numbers in them.
    void emit_blocks(unsigned width) {
        std::vector<std::uint64_t> words;
        std::vector<std::uint32_t> word_of;
        for (std::uint32_t id = 0; id < blocks_.size(); ++id) {
            const std::span<const std::uint64_t> block = blocks_[id];
            const std::size_t starts = words.size();
            word_of.push_back(static_cast<std::uint32_t>(starts));
            words.push_back(0);
            for (std::size_t i = 0; i < block.size(); ++i)
                if (i == 0 || block[i] != block[i - 1]) {
                    words[starts] |= std::uint64_t{1} << i;
                    words.push_back(block[i]);
                }
        }
        const std::size_t whole = blocks_.items() << width;
        const bool runs = whole > largest_whole && words.size() * sizeof(words[0]) < whole / 2 &&
                          words.size() <= 0x10000;
        out_.constant("nc_block_runs", runs);
        if (runs) {
            for (std::uint32_t& id : index_)
                id = word_of[id];
            width = 3;
        } else {
            words.clear();
            for (std::uint32_t id = 0; id < blocks_.size(); ++id)
                words.insert(words.end(), blocks_[id].begin(), blocks_[id].end());
        }
        out_.constant("nc_block_w", width);
        out_.table("nc_index", index_, 1);
        out_.table("nc_block", words, width);
    }
    /// Blocks up to this size stay in the caches, and whole they need a load less.
    static constexpr std::size_t largest_whole = std::size_t{64} << 10;

    void emit_vectors(const BitVectors& vectors) {
        if (!vectors.words)
            return;
        out_.constant("nc_apart_words", vectors.words);
        out_.constant("nc_apart_groups", vectors.groups);
        out_.constant("nc_apart_first", *std::ranges::min_element(vectors.least));
        out_.constant("nc_apart_input", {apart_.begin(), apart_.end()});
        out_.constant("nc_apart_plain", {vectors.plain.begin(), vectors.plain.end()});
        out_.table("nc_aparts", vectors.rules, 2);
        out_.table("nc_least", vectors.least, 2);
        if (!vectors.rows.empty())
            out_.table("nc_rows", vectors.rows, 3);
    }
    void add_absent(std::uint32_t input, const InputNumbers& numbers) {
        absent_[input] = static_cast<std::uint32_t>(direct_.size());
        direct_.push_back(numbers.absent);
    }
    void add_direct(std::uint32_t input, const InputNumbers& numbers, std::size_t values) {
        bases_[input] = static_cast<std::uint32_t>(direct_.size());
        std::vector<std::uint64_t> all = numbers.spread(values);
        direct_.insert(direct_.end(), all.begin(), all.end());
        add_absent(input, numbers);
    }
    void add_16bit(std::uint32_t input, const InputNumbers& numbers) {
        bases_[input] = static_cast<std::uint32_t>(index_.size());
        std::vector<std::uint64_t> all = numbers.spread(65536);
        for (std::size_t i = 0; i < all.size(); i += 64)
            index_.push_back(blocks_.intern(std::span(all).subspan(i, 64)));
        absent_[input] = static_cast<std::uint32_t>(index_.size());
        index_.push_back(blocks_.intern(std::vector<std::uint64_t>(64, numbers.absent)));
    }

    Emitted& out_;
    Paths& paths_;
    std::array<std::uint32_t, NC_INPUTS> sums_{}, bases_{}, absent_{}, apart_{};
    std::vector<std::uint64_t> direct_;
    std::vector<std::uint32_t> index_;
    SequencePool<std::uint64_t> blocks_;
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
void emit_crossing(Emitted& out, const std::string& number, CrossTables tables, Meaning meaning) {
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
    CrossingCompiler(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                     const std::vector<Place>& places)
        : rules_(rules.size()) {
        DividedPieces divided = take_apart(rules, set_uses, places);
        pieces_ = std::move(divided.crossed);
        apart_ = std::move(divided.apart);
        out_.compiled().engine = "crossing";
        out_.compiled().set_uses.assign(set_uses.begin(), set_uses.end());
    }

    Result<Compiled> run() {
        PacketClasses classes = NETCTL_TRY(packet_classes(pieces_, memory_budget(rules_), counts_));
        stage_ = Stage::pairs;
        RuleLists lists(pieces_, classes);
        sort_by_side(classes);
        std::optional<CrossTables> first, second;
        if (!by_src_.empty())
            first = NETCTL_TRY(cross(pieces_.src, pieces_.dst, by_src_, lists));
        if (!by_dst_.empty())
            second = NETCTL_TRY(cross(pieces_.dst, pieces_.src, by_dst_, lists));
        stage_ = Stage::tables;

        BitVectors vectors;
        if (!apart_.pieces.empty())
            vectors = NETCTL_TRY(bit_vectors(apart_, most()));
        Paths paths;
        Inputs(out_, paths).emit(classes, vectors, pieces_);
        out_.constant("nc_classes", classes.count);
        emit_product(classes);
        if (std::ranges::any_of(classes.wild, [](std::uint32_t rule) { return rule != no_rule; }))
            out_.sized("nc_wild", classes.wild);
        NETCTL_TRY(emit_lists(classes, lists, first, second));

        add_ipv4(out_, paths, pieces_);
        add_ipv6(paths, NC_PATH_SRC6, pieces_.src);
        add_ipv6(paths, NC_PATH_DST6, pieces_.dst);
        emit_families();
        paths.emit(out_);
        if (std::size_t taken = out_.compiled().memory(); taken > most())
            return too_big("addresses and lists of rules", taken);
        return out_.take();
    }

    /// After a failure: whether it was pairs of prefixes that grew too big.
    bool pairs_explode() const { return stage_ == Stage::pairs; }
    /// After a failure: by rule, its share in what grew too big.
    std::vector<double> shares() const {
        std::vector<double> by_class(rules_), by_pair(rules_);
        // Combinations of classes multiply: an input's share is the logarithm of its classes,
        // divided among its operands, and among those who ask for them.
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input) {
            if (counts_[input] < 2)
                continue;
            std::vector<std::uint32_t> asked(pieces_.operands(input));
            each_condition(input, [&](std::uint32_t, std::uint32_t operand) { ++asked[operand]; });
            const double each = std::log2(counts_[input]) / static_cast<double>(asked.size());
            each_condition(input, [&](std::uint32_t rule, std::uint32_t operand) {
                by_class[rule] += each / asked[operand];
            });
        }
        // Pairs of prefixes: in how many rows or columns a piece makes a difference.
        for (const Piece& piece : pieces_.pieces)
            by_pair[piece.rule] += std::min(pieces_.src[piece.src].end - piece.src,
                                            pieces_.dst[piece.dst].end - piece.dst);
        if (stage_ == Stage::classes)
            return by_class;
        if (stage_ == Stage::pairs)
            return by_pair;
        const double classes = std::accumulate(by_class.begin(), by_class.end(), 1e-9),
                     pairs = std::accumulate(by_pair.begin(), by_pair.end(), 1e-9);
        for (std::size_t rule = 0; rule < rules_; ++rule)
            by_pair[rule] = by_pair[rule] / pairs + by_class[rule] / classes;
        return by_pair;
    }

  private:
    using Update = CrossTrie::Update;

    template <class Use> void each_condition(std::uint32_t input, Use use) const {
        for (const Piece& piece : pieces_.pieces)
            for (std::uint32_t condition : pieces_.shapes[piece.shape])
                if (Pieces::input_of(condition) == input)
                    use(piece.rule, Pieces::operand_of(condition));
    }

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

    /// Bytes that the tables may take.
    std::size_t most() const {
        return pieces_.pieces.empty() ? largest_tables : memory_budget(rules_);
    }

    static constexpr const char* advice = "put prefixes and ports that are treated alike into sets";

    Error too_big(std::string_view part, std::size_t bytes) const {
        return Error::usage(
            fmt::format(
                "{} of the rules take {} KiB of tables or more, beyond the budget of {} KiB", part,
                bytes >> 10, most() >> 10),
            advice);
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
        const std::size_t before = lists.items(), most = working_memory(rules_);
        for (std::uint32_t row = 0; row < rows.size(); ++row) {
            trie.add_row(rows[row].parent, std::move(updates[row]));
            const std::size_t items = trie.items() + lists.items();
            // Rows grow about evenly: what is bound to be far beyond need not be waited for.
            const bool far_beyond =
                row >= rows.size() / 8 && (items - before) * rows.size() / (row + 1) > 2 * most;
            if (items > most || far_beyond)
                return Error::usage(
                    fmt::format(
                        "the pairs of prefixes of the rules are too many to cross in {} KiB",
                        working_memory(rules_) * sizeof(std::uint32_t) >> 10),
                    advice);
        }
        return trie.tables();
    }

    Result<> emit_lists(const PacketClasses& classes, const RuleLists& lists,
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
            return {};
        }
        if (used.empty())
            return {};
        // Rows that repeat are stored once, but all of them are looked at.
        ListTables tables;
        if (std::size_t entries = lists.tables(used, memory_budget(rules_) * 16, tables))
            return too_big("combinations of prefixes and other fields", entries / 16);
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
        return {};
    }

    std::size_t rules_;
    Pieces pieces_, apart_;
    std::array<std::uint32_t, NC_INPUTS> counts_{}; ///< classes of each input
    enum class Stage : std::uint8_t { classes, pairs, tables } stage_ = Stage::classes;
    Emitted out_;
    std::vector<std::vector<Update>> by_src_, by_dst_; ///< by row
};

/// Takes those with the greatest shares out of the `crossed` rules; returns how many. More with each
/// attempt, so that there are few, and all of them where few would be left. Where `pairs` grew too big, half of them at
/// once: to find that out takes long, and rules that differ in prefixes are what bit vectors tell apart best.
std::size_t set_apart(std::vector<Place>& places, const std::vector<double>& shares,
                      std::size_t crossed, unsigned attempt, bool pairs) {
    std::vector<std::uint32_t> order;
    for (std::uint32_t rule = 0; rule < places.size(); ++rule)
        if (places[rule] == Place::crossed)
            order.push_back(rule);
    const std::size_t part = pairs ? 2 : attempt < 1 ? 8 : attempt < 2 ? 4 : 2;
    // A word of a row holds 64 rules: fewer cost as much.
    std::size_t count = (crossed / part + 63) / 64 * 64;
    if (count + 32 >= crossed)
        count = crossed;
    std::ranges::stable_sort(order, std::greater<>(),
                             [&](std::uint32_t rule) { return shares[rule]; });
    for (std::size_t i = 0; i < count; ++i)
        places[order[i]] = Place::apart;
    return count;
}

/// Where each rule is to be found at first.
std::vector<Place> places_of(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                             const std::vector<bool>& apart) {
    std::vector<Place> places(rules.size(), Place::crossed);
    const std::vector<bool> covered =
        covered_rules(take_apart(rules, set_uses, places).crossed, rules.size());
    for (std::size_t rule = 0; rule < rules.size(); ++rule)
        places[rule] = covered[rule] ? Place::nowhere : apart[rule] ? Place::apart : Place::crossed;
    return places;
}

} // namespace

Result<Compiled> compile_crossing(std::span<const Rule> rules, std::span<const SetUse> set_uses) {
    return compile_crossing(rules, set_uses, std::vector<bool>(rules.size()));
}

Result<Compiled> compile_crossing(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                                  const std::vector<bool>& apart) {
    std::vector<Place> places = places_of(rules, set_uses, apart);
    auto count = static_cast<std::size_t>(std::ranges::count(places, Place::apart)),
         crossed = static_cast<std::size_t>(std::ranges::count(places, Place::crossed));
    std::string reason;
    for (unsigned attempt = 0;; ++attempt) {
        CrossingCompiler compiler(rules, set_uses, places);
        Result<Compiled> compiled = compiler.run();
        if (compiled) {
            compiled->rules_apart = count;
            compiled->reason = reason;
            return compiled;
        }
        if (compiled.error().kind != ErrorKind::usage || crossed == 0)
            return compiled;
        if (attempt == 0)
            reason = compiled.error().what;
        const std::size_t taken =
            set_apart(places, compiler.shares(), crossed, attempt, compiler.pairs_explode());
        count += taken;
        crossed -= taken;
    }
}

} // namespace netctl::classifier
