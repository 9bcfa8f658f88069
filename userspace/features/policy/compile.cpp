// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/compile.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "classifier/address_trie.hpp"
#include "classifier/prefix_forest.hpp"
#include "classifier/sequence_pool.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::policy {

namespace {

using classifier::BitSet;
using classifier::PathTries;
using classifier::PrefixForest;
using classifier::SequencePool;

/// Which rules name a value, and whether they do so to leave it out.
struct Mention {
    std::uint32_t rule;
    bool negated;
};

constexpr std::size_t cgroup_cache_words =
    std::size_t{NC_CGROUP_BUCKETS} * NC_CGROUP_WAYS * sizeof(nc_policy_cgroup_row) / 8;

void follow_mentions(BitSet& bits, const std::vector<Mention>& mentions) {
    for (const Mention& mention : mentions)
        if (bits.test(mention.rule) == mention.negated)
            bits.flip(mention.rule);
}

class Compiler {
  public:
    Compiler(std::span<const Rule> rules, const ResolveExe& resolve)
        : rules_(rules), resolve_(resolve) {
        out_.head.summaries =
            static_cast<std::uint32_t>((rules.size() + NC_SUMMARY_RULES - 1) / NC_SUMMARY_RULES);
    }

    Result<Tables> run(std::span<const nc_policy_action> actions) {
        if (looks_at(Key::cgroup, true)) { // first: in the first segment, wherever that ends
            out_.head.cgroup_rows = end();
            out_.words.resize(cgroup_cache_words);
            next_row_ = end();
        }
        executables(); // they stand before the rows
        destinations();
        numbers(NC_SUBJECT_SPORT, Key::sport, 16, NC_WORD_SERVICE, 16);
        numbers(NC_SUBJECT_DPORT, Key::dport, 16, NC_WORD_SERVICE, 0);
        numbers(NC_SUBJECT_PROTO, Key::proto, 8, NC_WORD_SERVICE, 32);
        numbers(NC_SUBJECT_UID, Key::uid, 32, NC_WORD_OWNER, 0);
        numbers(NC_SUBJECT_GID, Key::gid, 32, NC_WORD_OWNER, 32);
        NETCTL_TRY(cgroups());
        std::vector<nc_policy_action> complete(actions.begin(), actions.end());
        complete.resize(rules_.size());
        for (std::size_t i = 0; i < rules_.size(); i++)
            who(rules_[i], complete[i]);
        NETCTL_TRY(sets(complete));
        nc_policy_head& head = out_.head;
        if (head.asks == 0 && !rules_.empty())
            any_value();

        head.rules = static_cast<std::uint32_t>(rules_.size());
        for (const nc_policy_exe& exe : exes_) {
            out_.words.push_back(exe.device);
            out_.words.push_back(exe.inode);
        }
        for (std::uint32_t row = 0; row < rows_.size(); row++)
            out_.words.insert(out_.words.end(), rows_[row].begin(), rows_[row].end());
        head.tries = end();
        out_.words.insert(out_.words.end(), tries_.entries().begin(), tries_.entries().end());
        const auto behind = [&](std::uint64_t entry) {
            return entry & NC_NODE_LEAF ? entry : entry + tries_.entries().size();
        };
        for (const nc_policy_input input : {NC_SUBJECT_SPORT, NC_SUBJECT_DPORT, NC_SUBJECT_PROTO})
            if ((head.asks & 1U << input) != 0)
                for (__u64& entry : head.lookup[input].entry)
                    entry = behind(entry);
        for (const std::uint64_t entry : byte_nodes_)
            out_.words.push_back(behind(entry));
        head.actions = end();
        out_.words.resize(out_.words.size() + complete.size() * NC_ACTION_WORDS);
        if (!complete.empty())
            std::memcpy(out_.words.data() + head.actions - NC_HEAD_WORDS, complete.data(),
                        complete.size() * sizeof complete.front());
        if (end() / NC_SEGMENT_WORDS >= NC_MAX_SEGMENTS)
            return Error::usage(fmt::format("the tables of {} rules would take {} MiB, beyond {}",
                                            rules_.size(), end() / NC_SEGMENT_WORDS,
                                            NC_MAX_SEGMENTS),
                                "put addresses and ports that are treated alike into sets");
        return std::move(out_);
    }

  private:
    std::uint32_t end() const {
        return static_cast<std::uint32_t>(NC_HEAD_WORDS + out_.words.size());
    }

    /// The row for these rules, as a leaf has it: its place, and which summaries are not zero. Base and
    /// summaries as lib/policy/classify.h has them.
    std::uint64_t row(const BitSet& bits) {
        const std::span<const std::uint64_t> words = bits.words();
        sequence_.assign(std::size_t{out_.head.summaries} * 2, 0);
        for (std::size_t i = 0; i < words.size(); i++) {
            std::uint64_t& summary = sequence_[i / 64 * 2];
            if (i % 64 == 0)
                sequence_[i / 64 * 2 + 1] = sequence_.size();
            if (words[i] == 0)
                continue;
            sequence_[i / 64 * 2] = summary | 1ull << i % 64;
            sequence_.push_back(words[i]);
        }
        const std::uint32_t number = rows_.intern(sequence_);
        if (number == offsets_.size()) {
            offsets_.push_back(next_row_);
            next_row_ += static_cast<std::uint32_t>(sequence_.size());
        }
        std::uint64_t summaries = 0;
        for (std::uint32_t i = 0; i < out_.head.summaries; i++)
            if (sequence_[std::size_t{i} * 2] != 0)
                summaries |= 1ull << i;
        std::uint64_t first = 0;
        for (std::size_t i = 0; i < words.size(); i++)
            if (words[i] != 0) {
                first = i * 64 + static_cast<unsigned>(std::countr_zero(words[i]));
                break;
            }
        return NC_ROW_LEAF(std::uint64_t{offsets_[number]}, summaries, first);
    }

    void look_up(nc_policy_input input, nc_policy_word word, unsigned shift, std::uint64_t without,
                 std::uint64_t with) {
        nc_policy_lookup& lookup = out_.head.lookup[input];
        lookup.entry[0] = without;
        lookup.entry[1] = with;
        lookup.word = word;
        lookup.shift = shift;
        out_.head.asks |= 1U << input;
    }

    /// For rules that look at nothing but sets: a row that leaves all of them possible.
    void any_value() {
        BitSet all(rules_.size());
        for (std::uint32_t i = 0; i < rules_.size(); i++)
            all.set(i);
        const std::uint64_t leaf = NC_NODE_LEAF | row(all);
        look_up(NC_SUBJECT_PROTO, NC_WORD_SERVICE, 0, leaf, leaf);
    }

    /// Rules that say nothing about a key, together with those that name values of it only to leave
    /// them out: what holds for a value that no rule names.
    BitSet unnamed(Key key, bool with_negated) const {
        BitSet bits(rules_.size());
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            const Match* match = rules_[i].find(key);
            if (!match || (key == Key::dst && !match->set.empty()) ||
                (with_negated && match->negated))
                bits.set(i);
        }
        return bits;
    }

    bool looks_at(Key key, bool sets_as_well) const {
        return std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
            const Match* match = rule.find(key);
            return match && (sets_as_well || match->set.empty());
        });
    }

    void destinations() {
        if (!looks_at(Key::dst, false))
            return;
        PrefixForest forest;
        const Prefix all4{{Family::ipv4, {}}, 0}, all6{{Family::ipv6, {}}, 0};
        forest.add(all4);
        forest.add(all6);
        for (const Rule& rule : rules_)
            if (const Match* match = rule.find(Key::dst))
                for (const Prefix& prefix : match->prefixes)
                    forest.add(prefix);
        forest.build();
        std::vector<std::vector<Mention>> mentions(forest.size());
        const BitSet nobody = unnamed(Key::dst, false);
        BitSet by_family[2] = {nobody, nobody};
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            const Match* match = rules_[i].find(Key::dst);
            if (!match)
                continue;
            for (const Prefix& prefix : match->prefixes) {
                mentions[forest.find(prefix)].push_back({i, match->negated});
                // Negated, it holds for other addresses of the families that it names.
                if (match->negated)
                    by_family[prefix.address.family == Family::ipv6].set(i);
            }
        }
        const std::uint64_t root4 = destinations_of(forest, Family::ipv4, by_family[0], mentions);
        const std::uint64_t root6 = destinations_of(forest, Family::ipv6, by_family[1], mentions);
        look_up(NC_SUBJECT_DST, NC_WORD_DST, 0, root6, root4);
    }

    std::uint64_t destinations_of(const PrefixForest& forest, Family family, const BitSet& bits,
                                  const std::vector<std::vector<Mention>>& mentions) {
        const std::uint32_t root = forest.root(family);
        std::vector<PathTries::Leaf> leaves;
        // Nodes come in preorder: what is above the present one is on the stack.
        std::vector<std::pair<std::uint32_t, BitSet>> above;
        for (std::uint32_t node = root; node < forest[root].end; node++) {
            while (!above.empty() && forest[above.back().first].end <= node)
                above.pop_back();
            above.emplace_back(node, above.empty() ? bits : above.back().second);
            follow_mentions(above.back().second, mentions[node]);
            leaves.push_back(
                {forest[node].key, forest[node].prefix.length, row(above.back().second)});
        }
        return tries_.add(leaves).entry;
    }

    /// A field that is a number: the values between which rules change, and a row for each interval.
    void numbers(nc_policy_input input, Key key, unsigned width, nc_policy_word word,
                 unsigned shift) {
        if (!looks_at(key, true))
            return;
        BitSet bits = unnamed(key, false);
        const std::uint64_t absent = NC_NODE_LEAF | row(bits);
        std::vector<std::pair<std::uint64_t, std::uint32_t>> changes;
        const std::uint64_t most = width == 64 ? ~0ull : (1ull << width) - 1;
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            const Match* match = rules_[i].find(key);
            if (!match)
                continue;
            // A set says what it says elsewhere; here, that there must be a port.
            if (!match->set.empty() || match->negated)
                bits.set(i);
            if (!match->set.empty())
                continue;
            for (const Range& range : match->ranges) {
                changes.emplace_back(range.low, i);
                if (range.high < most)
                    changes.emplace_back(range.high + 1, i);
            }
        }
        std::sort(changes.begin(), changes.end());
        std::vector<std::pair<std::uint64_t, std::uint64_t>> intervals; // start, row
        std::size_t next = 0;
        for (std::uint64_t start = 0;;) {
            for (; next < changes.size() && changes[next].first == start; next++)
                bits.flip(changes[next].second);
            intervals.emplace_back(start, row(bits));
            if (next == changes.size())
                break;
            start = changes[next].first;
        }
        const std::uint64_t root = width > 16 ? tries_.add(leaves_of(intervals, width)).entry
                                              : bytes_of(intervals, 0, width);
        const bool may_be_absent = key == Key::sport || key == Key::dport;
        look_up(input, word, shift, may_be_absent ? absent : root, root);
    }

    /// The entry for values from `first` on that agree in all but their last `width` bits, out of nodes
    /// for eight bits each. Their bases count from the first of these nodes.
    std::uint64_t bytes_of(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& intervals,
                           std::uint64_t first, unsigned width, unsigned shift = 56) {
        const std::uint64_t last = first + (1ull << width) - 1;
        const auto at = std::prev(
            std::upper_bound(intervals.begin(), intervals.end(), first,
                             [](std::uint64_t value, const auto& i) { return value < i.first; }));
        if (std::next(at) == intervals.end() || std::next(at)->first > last)
            return NC_NODE_LEAF | at->second;
        const std::size_t base = byte_nodes_.size();
        byte_nodes_.resize(base + 256);
        for (std::size_t i = 0; i < 256; i++) {
            const std::uint64_t entry =
                bytes_of(intervals, first + (i << (width - 8)), width - 8, shift - 8);
            byte_nodes_[base + i] = entry;
        }
        return std::uint64_t{8} << 40 | std::uint64_t{shift} << 32 | base;
    }

    /// Intervals as leaves of a trie: each is cut into aligned blocks.
    static std::vector<PathTries::Leaf>
    leaves_of(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& intervals,
              unsigned width) {
        // Most values are like the highest one; they need no leaves of their own.
        const std::uint64_t usual = intervals.back().second;
        std::vector<PathTries::Leaf> leaves{{{}, 0, usual}};
        for (std::size_t i = 0; i < intervals.size(); i++) {
            if (intervals[i].second == usual)
                continue;
            std::uint64_t low = intervals[i].first;
            const std::uint64_t behind =
                i + 1 < intervals.size() ? intervals[i + 1].first : 1ull << width;
            while (low < behind) {
                unsigned free = low == 0 ? width : static_cast<unsigned>(std::countr_zero(low));
                free = std::min(free, width);
                while (1ull << free > behind - low)
                    free--;
                leaves.push_back({{low << (64 - width), 0}, width - free, intervals[i].second});
                low += 1ull << free;
            }
        }
        return leaves;
    }

    Result<> cgroups() {
        if (!looks_at(Key::cgroup, true))
            return {};
        struct Node {
            std::vector<Mention> mentions;
            std::map<std::string, std::size_t> children;
            std::string name;
            std::uint32_t parent = 0;
        };
        std::vector<Node> nodes(1);
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            const Match* match = rules_[i].find(Key::cgroup);
            if (!match)
                continue;
            std::size_t at = 0;
            std::size_t depth = 0;
            for (std::size_t begin = 1; begin < match->path.size();) {
                const std::size_t end = std::min(match->path.find('/', begin), match->path.size());
                const std::string name = match->path.substr(begin, end - begin);
                begin = end + 1;
                if (name.empty())
                    continue;
                if (name.size() + 1 >= NC_CGROUP_NAME || ++depth > NC_CGROUP_DEPTH)
                    return Error::usage(
                        fmt::format("the cgroup {} is too deep, or has a name too long",
                                    match->path),
                        fmt::format("up to {} levels with names of up to {} bytes", NC_CGROUP_DEPTH,
                                    NC_CGROUP_NAME - 2));
                const auto [child, fresh] = nodes[at].children.try_emplace(name, nodes.size());
                const std::size_t number = child->second;
                if (fresh) {
                    Node node;
                    node.name = name;
                    node.parent = static_cast<std::uint32_t>(at);
                    nodes.push_back(std::move(node));
                }
                at = number;
            }
            nodes[at].mentions.push_back({i, match->negated});
        }
        // A node's number is above its parent's. Deep trees are rare, broad ones are not: the bits
        // of a node are kept only while it has children to come.
        std::vector<BitSet> bits(nodes.size());
        for (std::size_t i = 0; i < nodes.size(); i++) {
            bits[i] = i == 0 ? unnamed(Key::cgroup, true) : bits[nodes[i].parent];
            follow_mentions(bits[i], nodes[i].mentions);
            const std::uint64_t leaf = NC_NODE_LEAF | row(bits[i]);
            if (nodes[i].children.empty())
                bits[i] = {};
            if (i == 0) {
                out_.head.cgroup_root = leaf;
                continue;
            }
            nc_policy_cgroup key{};
            key.parent = nodes[i].parent;
            std::memcpy(key.name, nodes[i].name.data(), nodes[i].name.size());
            out_.cgroups.push_back({key, {i, leaf}});
        }
        out_.head.asks |= 1U << NC_SUBJECT_CGROUP;
        return {};
    }

    void executables() {
        if (!looks_at(Key::exe, true))
            return;
        std::map<ExeId, std::vector<Mention>> mentions;
        std::map<std::string, std::optional<ExeId>> known;
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            const Match* match = rules_[i].find(Key::exe);
            if (!match)
                continue;
            const auto [at, fresh] = known.try_emplace(match->path);
            if (fresh) {
                at->second = resolve_(match->path);
                if (!at->second)
                    out_.missing_exes.push_back(match->path);
            }
            if (at->second)
                mentions[*at->second].push_back({i, match->negated});
        }
        out_.head.exes = next_row_;
        out_.head.n_exes = static_cast<std::uint32_t>(mentions.size());
        for (const auto& [id, named] : mentions)
            exes_.push_back({id.device, id.inode});
        next_row_ += out_.head.n_exes * static_cast<std::uint32_t>(sizeof(nc_policy_exe) / 8);
        const BitSet others = unnamed(Key::exe, true);
        constexpr unsigned width = 96;
        std::vector<PathTries::Leaf> leaves{{{}, 0, row(others)}};
        for (const auto& [id, named] : mentions) {
            BitSet bits = others;
            follow_mentions(bits, named);
            const std::uint64_t high = std::uint64_t{id.device} << 32 | id.inode >> 32;
            leaves.push_back({{high, id.inode << 32}, width, row(bits)});
        }
        const std::uint64_t root = tries_.add(leaves).entry;
        look_up(NC_SUBJECT_EXE, NC_WORD_EXE, 0, root, root);
    }

    /// Writes into an action what its rule asks about who asks.
    void who(const Rule& rule, nc_policy_action& action) const {
        const auto range = [&](Key key, nc_policy_input input, __u32(&ends)[2]) {
            const Match* match = rule.find(key);
            if (!match)
                return;
            action.flags |= static_cast<__u8>(1U << input);
            if (match->negated)
                action.who |= 1U << input;
            if (match->ranges.size() != 1) {
                action.who |= NC_WHO_LISTS;
                return;
            }
            ends[0] = static_cast<__u32>(match->ranges.front().low);
            ends[1] = static_cast<__u32>(match->ranges.front().high);
        };
        range(Key::uid, NC_SUBJECT_UID, action.uid);
        range(Key::gid, NC_SUBJECT_GID, action.gid);
        if (rule.find(Key::cgroup))
            action.flags |= 1U << NC_SUBJECT_CGROUP;
        if (const Match* match = rule.find(Key::exe)) {
            action.flags |= 1U << NC_SUBJECT_EXE;
            if (match->negated)
                action.who |= NC_WHO_NOT_EXE;
            if (const auto id = resolve_(match->path)) {
                action.exe_dev = id->device;
                action.exe_inode = id->inode;
            } else {
                action.who |= NC_WHO_LISTS;
            }
        }
    }

    /// Writes into the actions what rules ask about sets.
    Result<> sets(std::vector<nc_policy_action>& actions) {
        for (nc_policy_action& action : actions)
            std::memset(action.set_use, NC_POLICY_NO_SET, sizeof action.set_use);
        struct Users {
            BitSet without, with;
        };
        std::vector<Users> users;
        for (std::uint32_t i = 0; i < rules_.size(); i++) {
            unsigned asked = 0;
            for (const Match& match : rules_[i].matches) {
                if (match.set.empty())
                    continue;
                const classifier::SetUse use{match.key, match.set};
                auto at = std::find(out_.set_uses.begin(), out_.set_uses.end(), use);
                if (at == out_.set_uses.end()) {
                    if (out_.set_uses.size() == NC_POLICY_SET_USES)
                        return Error::usage(
                            fmt::format("'{} @{}' is one use of a set too many",
                                        to_string(match.key), match.set),
                            fmt::format("the rules may ask {} different questions of a field and "
                                        "a set; put elements of several sets into one",
                                        NC_POLICY_SET_USES));
                    at = out_.set_uses.insert(at, use);
                    users.push_back({BitSet(rules_.size()), BitSet(rules_.size())});
                }
                const auto number = static_cast<std::size_t>(at - out_.set_uses.begin());
                Users& mine = users[number];
                (match.negated ? mine.without : mine.with).set(i);
                actions[i].set_use[asked++] = static_cast<__u8>(number);
            }
        }
        out_.head.n_set_uses = static_cast<std::uint32_t>(users.size());
        for (std::size_t i = 0; i < users.size(); i++) {
            BitSet any(rules_.size());
            for (std::uint32_t rule = 0; rule < rules_.size(); rule++)
                if (!users[i].without.test(rule) && !users[i].with.test(rule))
                    any.set(rule);
            nc_policy_set_use& use = out_.head.set_use[i];
            use.field = static_cast<__u8>(out_.set_uses[i].key);
            use.row[0] = NC_ROW_PLACE(row(users[i].without |= any));
            use.row[1] = NC_ROW_PLACE(row(users[i].with |= any));
        }
        return {};
    }

    std::span<const Rule> rules_;
    const ResolveExe& resolve_;
    Tables out_;
    std::vector<nc_policy_exe> exes_;
    SequencePool<std::uint64_t> rows_;
    std::vector<std::uint32_t> offsets_; ///< of rows, by number
    std::uint32_t next_row_ = NC_HEAD_WORDS;
    PathTries tries_;
    std::vector<std::uint64_t> byte_nodes_;
    std::vector<std::uint64_t> sequence_;
};

} // namespace

Result<Tables> compile(std::span<const Rule> rules, std::span<const nc_policy_action> actions,
                       const ResolveExe& resolve) {
    if (rules.size() > NC_POLICY_MAX_RULES)
        return Error::usage(fmt::format("{} rules are too many: a policy holds {}", rules.size(),
                                        NC_POLICY_MAX_RULES),
                            "put addresses and ports that are treated alike into sets");
    return Compiler(rules, resolve).run(actions);
}

} // namespace netctl::policy
