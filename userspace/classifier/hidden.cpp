// SPDX-License-Identifier: GPL-2.0-only
//
// A rule is a region: for each key the values that satisfy it. From a rule's region those of the earlier
// rules are taken away one by one; if nothing is left, they hide it. A region less another is one region for
// each key in which they differ.
#include "classifier/hidden.hpp"

#include <algorithm>
#include <bitset>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/rule_keys.hpp"
#include "core/rule_parser.hpp"
#include "netctl/abi/packet.h"

namespace netctl::classifier {

namespace {

__extension__ using Number = unsigned __int128;

/// A stretch of the values that a key may have. The spaces part what has no order among itself.
struct Stretch {
    enum Space : std::uint8_t { absent = 0, present = 1, ipv4 = 4, ipv6 = 6 };
    Space space = present;
    Number low = 0, high = 0; ///< both included
    auto key() const { return std::pair(space, low); }
    bool operator==(const Stretch&) const = default;
};

/// Sorted, disjoint.
using Values = std::vector<Stretch>;

constexpr Stretch no_value{Stretch::absent, 0, 0};

Values intersection(const Values& a, const Values& b) {
    Values both;
    for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
        if (a[i].space == b[j].space) {
            const Number low = std::max(a[i].low, b[j].low), high = std::min(a[i].high, b[j].high);
            if (low <= high)
                both.push_back({a[i].space, low, high});
        }
        if (std::pair(a[i].space, a[i].high) < std::pair(b[j].space, b[j].high))
            i++;
        else
            j++;
    }
    return both;
}

Values difference(const Values& a, const Values& b) {
    Values left;
    for (const Stretch& stretch : a) {
        Number low = stretch.low;
        bool all_gone = false;
        for (const Stretch& hole : b) {
            if (hole.space != stretch.space || hole.high < low || hole.low > stretch.high)
                continue;
            if (hole.low > low)
                left.push_back({stretch.space, low, hole.low - 1});
            if (hole.high >= stretch.high) {
                all_gone = true;
                break;
            }
            low = hole.high + 1;
        }
        if (!all_gone)
            left.push_back({stretch.space, low, stretch.high});
    }
    return left;
}

bool within(const Values& inner, const Values& outer) {
    return difference(inner, outer).empty();
}

bool meet(const Values& a, const Values& b) {
    for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
        if (a[i].space == b[j].space && a[i].low <= b[j].high && b[j].low <= a[i].high)
            return true;
        if (std::pair(a[i].space, a[i].high) < std::pair(b[j].space, b[j].high))
            i++;
        else
            j++;
    }
    return false;
}

Number as_number(const Address& address) {
    Number number = 0;
    for (unsigned i = 0; i < address.bits() / 8; i++)
        number = number << 8 | address.bytes[i];
    return number;
}

Stretch stretch_of(const Prefix& prefix) {
    const unsigned open = prefix.address.bits() - prefix.length;
    const Number low = as_number(prefix.address);
    const Number width = open == 128 ? ~Number{0} : (Number{1} << open) - 1;
    return {prefix.address.family == Family::ipv4 ? Stretch::ipv4 : Stretch::ipv6, low,
            low + width};
}

constexpr Stretch all_ipv4{Stretch::ipv4, 0, 0xffffffff};
constexpr Stretch all_ipv6{Stretch::ipv6, 0, ~Number{0}};
const Values any_byte{{Stretch::present, 0, 0xff}};

/// Conditions that are true or false and nothing else that is known, as that a set has the value. A name is the same in every rule.
using Name = std::string;
const Values is_true{{Stretch::present, 1, 1}};
const Values is_false{{Stretch::present, 0, 0}};
const Values is_either{{Stretch::present, 0, 1}};

struct Region {
    std::map<unsigned, Values> keys; ///< by Key, or a byte's; what is not there is not restricted
    std::map<Name, Values> names;
};

/// Places of cgroups in an order in which all below one stand behind it side by side.
class Cgroups {
  public:
    explicit Cgroups(std::span<const Rule* const> rules) {
        for (const Rule* rule : rules)
            if (const Match* match = rule->find(Key::cgroup)) {
                ends_.insert(first(match->path));
                ends_.insert(last(match->path));
            }
    }
    Stretch below(const std::string& path) const {
        const auto place = [&](const std::string& end) {
            return static_cast<std::uint64_t>(std::distance(ends_.begin(), ends_.find(end)));
        };
        return {Stretch::present, place(first(path)) * 2, place(last(path)) * 2};
    }
    Stretch all() const { return {Stretch::present, 0, ends_.size() * 2}; }

  private:
    static std::string first(const std::string& path) {
        std::string text = path == "/" ? "" : path;
        std::replace(text.begin(), text.end(), '/', '\1');
        return text + '\1';
    }
    static std::string last(const std::string& path) { return first(path) + '\xff'; }
    std::set<std::string> ends_;
};

/// A number matched by VALUE/MASK is four bytes, each a key of its own: so masks with gaps have few values.
constexpr unsigned first_byte_key = 64;
constexpr bool is_byte_key(unsigned key) {
    return key >= first_byte_key;
}

/// Byte `index` of the numbers whose bits in `mask` are as in `value`.
Values masked_byte(const Masked& masked, unsigned index) {
    const std::uint32_t mask = masked.mask >> index * 8 & 0xff;
    const std::uint32_t value = masked.value >> index * 8 & 0xff;
    Values values;
    for (std::uint32_t number = 0; number <= 0xff; number++)
        if ((number & mask) == value)
            values.push_back({Stretch::present, number, number});
    return values;
}

class RegionMaker {
  public:
    explicit RegionMaker(std::span<const Rule* const> rules) : cgroups_(rules) {}

    Region make(const Rule& rule) const {
        Region region;
        for (const Match& match : rule.matches)
            add(region, match);
        imply(region, rule);
        return region;
    }

    /// Every value that a key may have.
    Values all(Key key) const {
        switch (key) {
        case Key::src:
        case Key::dst: return {no_value, all_ipv4, all_ipv6};
        case Key::cgroup: return {cgroups_.all()};
        case Key::sport: // of a connection it may not be known yet
        default: {
            const Stretch numbers{Stretch::present, 0, info(key).max};
            return may_be_absent(key) ? Values{no_value, numbers} : Values{numbers};
        }
        }
    }

  private:
    static bool may_be_absent(Key key) { return is_of_packets(key) && info(key).part != 0; }

    static void restrict(Region& region, Key key, const Values& values) {
        const auto [at, fresh] = region.keys.emplace(static_cast<unsigned>(key), values);
        if (!fresh)
            at->second = intersection(at->second, values);
    }

    /// The values of a key that a packet has where it has the field.
    Values present(Key key) const {
        Values values = all(key);
        if (values.front() == no_value)
            values.erase(values.begin());
        return values;
    }

    void add(Region& region, const Match& match) const {
        const auto named = [&](const Name& name) {
            region.names[name] = match.negated ? is_false : is_true;
        };
        const bool address = match.key == Key::src || match.key == Key::dst;
        if (!match.set.empty()) {
            named(std::string(to_string(match.key)) + " @" + match.set);
            return restrict(region, match.key, present(match.key));
        }
        if (match.key == Key::exe)
            return named("exe " + match.path);
        Values values;
        if (match.absent) {
            values = {no_value};
        } else if (address) {
            bool ipv4 = false, ipv6 = false;
            for (const Prefix& prefix : match.prefixes) {
                values.push_back(stretch_of(prefix));
                (prefix.address.family == Family::ipv4 ? ipv4 : ipv6) = true;
            }
            Values families;
            if (ipv4)
                families.push_back(all_ipv4);
            if (ipv6)
                families.push_back(all_ipv6);
            if (match.negated)
                values = difference(families, values);
        } else if (match.key == Key::cgroup) {
            values = {cgroups_.below(match.path)};
        } else if (match.masked && info(match.key).max <= 0xff) {
            values = masked_byte(*match.masked, 0);
        } else if (match.masked) {
            return add_mask(region, match);
        } else {
            for (const Range& range : match.ranges)
                values.push_back({Stretch::present, range.low, range.high});
        }
        if (match.negated && !address)
            values = difference(present(match.key), values);
        restrict(region, match.key, values);
    }

    /// Only `mark`, which every packet has.
    static void add_mask(Region& region, const Match& match) {
        const Masked& masked = *match.masked;
        std::vector<unsigned> looked_at;
        for (unsigned i = 0; i < 4; i++)
            if ((masked.mask >> i * 8 & 0xff) != 0)
                looked_at.push_back(i);
        if (match.negated && looked_at.size() != 1) {
            // One of several bytes is another: no region of its own.
            region
                .names["mark " + std::to_string(masked.value) + "/" + std::to_string(masked.mask)] =
                is_false;
            return;
        }
        for (const unsigned i : looked_at) {
            Values values = masked_byte(masked, i);
            if (match.negated)
                values = difference(any_byte, values);
            region.keys[first_byte_key + i] = std::move(values);
        }
    }

    /// What follows from the keys of packets: ports are of these protocols, and so on. Without it a rule on
    /// all addresses would not be seen to hide one on a protocol.
    void imply(Region& region, const Rule& rule) const {
        constexpr std::uint32_t of_ip = NC_HAS_IPV4 | NC_HAS_IPV6 | NC_HAS_PROTO;
        constexpr std::uint32_t of_transport = NC_HAS_PORTS | NC_HAS_FLAGS | NC_HAS_ICMP;
        std::uint32_t parts = 0;
        for (const Match& match : rule.matches)
            if (!match.absent && is_of_packets(match.key))
                parts |= info(match.key).part;
        if ((parts & (of_ip | of_transport)) == 0)
            return;
        const Families families = possible_families(rule);
        Values addresses;
        if (families.ipv4)
            addresses.push_back(all_ipv4);
        if (families.ipv6)
            addresses.push_back(all_ipv6);
        restrict(region, Key::src, addresses);
        restrict(region, Key::dst, addresses);
        for (const KeyInfo& key : rule_keys())
            if (key.part == NC_HAS_PROTO)
                restrict(region, key.key, present(key.key));
        const auto protocols = [&](std::span<const std::uint8_t> numbers) {
            Values values;
            for (const std::uint8_t number : numbers)
                values.push_back({Stretch::present, number, number});
            restrict(region, Key::proto, values);
        };
        if ((parts & NC_HAS_PORTS) != 0)
            protocols(port_protocols);
        if ((parts & NC_HAS_FLAGS) != 0)
            protocols({{protocol_tcp}});
        if ((parts & NC_HAS_ICMP) != 0) {
            const IcmpKinds kinds = possible_icmp(rule);
            if (kinds.icmp && kinds.icmp6)
                protocols({{protocol_icmp, protocol_icmp6}});
            else
                protocols({{kinds.icmp ? protocol_icmp : protocol_icmp6}});
            for (const Key key : {Key::icmp_type, Key::icmp_code})
                restrict(region, key, present(key));
        }
        if ((parts & NC_HAS_PORTS) != 0)
            for (const Key key : {Key::sport, Key::dport})
                restrict(region, key, present(key));
    }

    Cgroups cgroups_;
};

/// The keys of one region that another restricts further: where they differ.
class Subtraction {
  public:
    explicit Subtraction(const RegionMaker& maker) : maker_(maker) {}

    bool overlap(const Region& a, const Region& b) const {
        for (const auto& [key, values] : b.keys)
            if (const auto at = a.keys.find(key); at != a.keys.end() && !meet(at->second, values))
                return false;
        for (const auto& [name, values] : b.names)
            if (const auto at = a.names.find(name); at != a.names.end() && at->second != values)
                return false;
        return true;
    }

    bool covers(const Region& outer, const Region& inner) const {
        for (const auto& [key, values] : outer.keys)
            if (!within(of(inner, key), values))
                return false;
        for (const auto& [name, values] : outer.names)
            if (of(inner, name) != values)
                return false;
        return true;
    }

    /// What is in `from` and not in `taken`, which overlap.
    void difference_of(const Region& from, const Region& taken, std::vector<Region>& left) const {
        Region rest = from;
        for (const auto& [key, values] : taken.keys) {
            const Values now = of(rest, key);
            if (Values outside = difference(now, values); !outside.empty()) {
                Region piece = rest;
                piece.keys[key] = std::move(outside);
                if (is_real(piece))
                    left.push_back(std::move(piece));
                rest.keys[key] = intersection(now, values);
            }
        }
        for (const auto& [name, values] : taken.names) {
            const Values now = of(rest, name);
            if (Values outside = difference(now, values); !outside.empty()) {
                Region piece = rest;
                piece.names[name] = std::move(outside);
                left.push_back(std::move(piece));
                rest.names[name] = values;
            }
        }
    }

  private:
    /// Both addresses of a packet are of one IP version.
    bool is_real(const Region& region) const {
        const Values src = of(region, static_cast<unsigned>(Key::src));
        const Values dst = of(region, static_cast<unsigned>(Key::dst));
        return std::any_of(src.begin(), src.end(), [&](const Stretch& one) {
            return std::any_of(dst.begin(), dst.end(),
                               [&](const Stretch& other) { return one.space == other.space; });
        });
    }
    Values of(const Region& region, unsigned key) const {
        const auto at = region.keys.find(key);
        if (at != region.keys.end())
            return at->second;
        return is_byte_key(key) ? any_byte : maker_.all(static_cast<Key>(key));
    }
    static Values of(const Region& region, const Name& name) {
        const auto at = region.names.find(name);
        return at != region.names.end() ? at->second : is_either;
    }
    const RegionMaker& maker_;
};

/// Earlier rules that may overlap a rule. Large rule sets are lists of addresses: a rule about one prefix
/// meets those on a prefix above or below it, and the few that are about something else.
class Candidates {
  public:
    /// Of the two addresses that which more rules have. For few questions an index is not worth while.
    Candidates(std::span<const Rule* const> rules, bool indexed) : indexed_(indexed) {
        const auto count = [&](Key key) {
            return std::count_if(rules.begin(), rules.end(),
                                 [&](const Rule* rule) { return single(*rule, key) != nullptr; });
        };
        key_ = count(Key::src) > count(Key::dst) ? Key::src : Key::dst;
    }

    /// Positions in ascending order.
    std::vector<std::size_t> of(const Rule& rule) const {
        const Prefix* prefix = indexed_ ? single(rule, key_) : nullptr;
        if (prefix == nullptr)
            return all_;
        std::vector<std::size_t> found = others_;
        const auto take = [&](const std::vector<std::size_t>& more) {
            found.insert(found.end(), more.begin(), more.end());
        };
        for (unsigned length = 0; length < prefix->length; length++)
            if (lengths_.test(length))
                if (const auto at = by_prefix_.find(shortened(*prefix, length));
                    at != by_prefix_.end())
                    take(at->second);
        for (auto at = by_prefix_.lower_bound(*prefix);
             at != by_prefix_.end() && prefix->contains(at->first.address); at++)
            take(at->second);
        std::sort(found.begin(), found.end());
        return found;
    }

    void put(std::size_t position, const Rule& rule) {
        all_.push_back(position);
        if (!indexed_)
            return;
        const Prefix* prefix = single(rule, key_);
        if (prefix == nullptr)
            return others_.push_back(position);
        by_prefix_[*prefix].push_back(position);
        lengths_.set(prefix->length);
    }

  private:
    static const Prefix* single(const Rule& rule, Key key) {
        const Match* match = rule.find(key);
        return match != nullptr && !match->negated && match->prefixes.size() == 1
                   ? &match->prefixes.front()
                   : nullptr;
    }
    static Prefix shortened(Prefix prefix, unsigned length) {
        for (unsigned bit = length; bit < prefix.length; bit++)
            prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
        prefix.length = static_cast<std::uint8_t>(length);
        return prefix;
    }

    bool indexed_;
    Key key_ = Key::dst;
    std::vector<std::size_t> all_, others_;
    std::map<Prefix, std::vector<std::size_t>> by_prefix_;
    std::bitset<129> lengths_; // that occur in it
};

/// Whether two rules are about different addresses or numbers, at a glance.
bool surely_apart(const Rule& a, const Rule& b) {
    for (const Match& one : a.matches) {
        const Match* other = b.find(one.key);
        if (other == nullptr || one.negated || other->negated)
            continue;
        const auto& prefixes = other->prefixes;
        if (one.prefixes.size() == 1 && prefixes.size() == 1 &&
            !one.prefixes.front().contains(prefixes.front().address) &&
            !prefixes.front().contains(one.prefixes.front().address))
            return true;
        const auto& ranges = other->ranges;
        if (one.ranges.size() == 1 && ranges.size() == 1 &&
            (one.ranges.front().high < ranges.front().low ||
             ranges.front().high < one.ranges.front().low))
            return true;
    }
    return false;
}

class Search {
  public:
    Search(std::span<const Rule* const> rules, std::size_t most_steps,
           const std::vector<bool>& fresh)
        : rules_(rules),
          most_steps_(most_steps),
          fresh_(fresh),
          maker_(rules),
          regions_(rules.size()) {}

    HiddenRules run() {
        const std::size_t asked =
            fresh_.empty()
                ? rules_.size()
                : static_cast<std::size_t>(std::count(fresh_.begin(), fresh_.end(), true));
        constexpr std::size_t few = 16;
        Candidates candidates(rules_, asked > few);
        for (std::size_t i = 0; i < rules_.size(); i++) {
            if (is_fresh(i))
                fresh_ones_.push_back(i);
            else if (!met_by_fresh(i)) {
                candidates.put(i, *rules_[i]);
                continue;
            }
            if (steps_ > most_steps_) {
                report_.unknown++;
                continue;
            }
            if (!look_at(i, candidates.of(*rules_[i])))
                candidates.put(i, *rules_[i]);
        }
        return std::move(report_);
    }

  private:
    /// So many regions may be left of one rule before it counts as unknown.
    static constexpr std::size_t most_pieces = 64;

    bool is_fresh(std::size_t rule) const { return fresh_.empty() || fresh_[rule]; }

    bool overlap(std::size_t later, std::size_t earlier) {
        steps_++;
        return !surely_apart(*rules_[later], *rules_[earlier]) &&
               subtraction_.overlap(region(later), region(earlier));
    }

    bool met_by_fresh(std::size_t rule) {
        return std::any_of(fresh_ones_.begin(), fresh_ones_.end(),
                           [&](std::size_t earlier) { return overlap(rule, earlier); });
    }

    const Region& region(std::size_t rule) {
        std::optional<Region>& region = regions_[rule];
        if (!region)
            region = maker_.make(*rules_[rule]);
        return *region;
    }

    /// Reports the rule if it is hidden by the candidates. Returns whether one of them alone hides it: what
    /// it covers is covered by that one as well.
    bool look_at(std::size_t rule, const std::vector<std::size_t>& candidates) {
        std::vector<std::size_t> by;
        std::vector<Region> left{region(rule)}, next;
        bool given_up = false;
        for (const std::size_t earlier : candidates) {
            if (!overlap(rule, earlier))
                continue;
            if (subtraction_.covers(region(earlier), region(rule))) {
                report(rule, {earlier});
                return true;
            }
            if (left.empty() || given_up)
                continue; // one that covers it alone may still come
            next.clear();
            bool cut = false;
            for (const Region& piece : left) {
                steps_++;
                if (subtraction_.overlap(piece, region(earlier))) {
                    subtraction_.difference_of(piece, region(earlier), next);
                    cut = true;
                } else {
                    next.push_back(piece);
                }
            }
            left.swap(next);
            if (cut)
                by.push_back(earlier);
            given_up = left.size() > most_pieces;
        }
        if (left.empty())
            report(rule, std::move(by));
        else if (given_up)
            report_.unknown++;
        return false;
    }

    void report(std::size_t rule, std::vector<std::size_t> by) {
        if (is_fresh(rule) ||
            std::any_of(by.begin(), by.end(), [&](std::size_t one) { return is_fresh(one); }))
            report_.hidden.push_back({rule, std::move(by)});
    }

    std::span<const Rule* const> rules_;
    std::size_t most_steps_;
    const std::vector<bool>& fresh_;
    RegionMaker maker_;
    Subtraction subtraction_{maker_};
    std::vector<std::optional<Region>> regions_;
    std::vector<std::size_t> fresh_ones_;
    std::size_t steps_ = 0;
    HiddenRules report_;
};

} // namespace

HiddenRules hidden_rules(std::span<const Rule* const> rules, std::size_t most_steps,
                         const std::vector<bool>& fresh) {
    return Search(rules, most_steps, fresh).run();
}

} // namespace netctl::classifier
