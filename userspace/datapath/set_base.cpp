// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/set_base.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>

#include <endian.h>
#include <fmt/format.h>

namespace netctl::datapath {

namespace {

constexpr std::size_t line_bits = 512, line_halves = 16, line_words = 8, line_lengths = 2;

/// A prefix as numbers; the 32 bits of IPv4 stand on the left, so that both families nest alike.
struct Net {
    std::uint64_t high = 0, low = 0;
    std::uint8_t length = 0;

    auto operator<=>(const Net&) const = default;
};

/// Bit l for length l.
using Lengths = std::array<std::uint64_t, 3>;

/// Where the elements that cover an address may change, and which do from there on.
struct Start {
    std::uint64_t high = 0, low = 0;
    std::uint16_t lengths = 0; ///< number of the set
};

Net to_net(const Prefix& prefix) {
    std::array<std::uint64_t, 2> halves{};
    std::memcpy(halves.data(), prefix.address.bytes.data(), sizeof halves);
    return {be64toh(halves[0]), be64toh(halves[1]), prefix.length};
}

Prefix to_prefix(Family family, const Net& net) {
    const std::array<std::uint64_t, 2> halves{htobe64(net.high), htobe64(net.low)};
    Prefix prefix;
    prefix.address.family = family;
    std::memcpy(prefix.address.bytes.data(), halves.data(), sizeof halves);
    prefix.length = net.length;
    return prefix;
}

/// The first `bits` of a number.
std::uint64_t leading(std::uint64_t number, unsigned bits) {
    return bits == 0 ? 0 : number >> (64 - bits);
}

bool covers(const Net& net, std::uint64_t high, std::uint64_t low) {
    if (net.length <= 64)
        return leading(net.high, net.length) == leading(high, net.length);
    return net.high == high && leading(net.low, net.length - 64U) == leading(low, net.length - 64U);
}

/// Bits of a number that tells `count` things apart, one or two to a value; at least 1.
unsigned index_bits(std::size_t count) {
    return static_cast<unsigned>(std::bit_width(std::max<std::size_t>(count, 2))) - 1;
}

/// The lines that a base is made of, part by part.
class Lines {
  public:
    Lines() : lines_(1) {}

    nc_base_head& head() { return *reinterpret_cast<nc_base_head*>(lines_.data()); }
    nc_base_line& at(std::size_t number) { return lines_[number]; }
    /// Room for `count` things of which `a_line` fit into one; returns the first line.
    std::uint32_t part(std::size_t count, std::size_t a_line) {
        const std::size_t first = lines_.size();
        lines_.resize(first + (count + a_line - 1) / a_line);
        return static_cast<std::uint32_t>(first);
    }
    void set_bit(std::uint32_t part, std::uint64_t bit) {
        at(part + bit / line_bits).word[bit / 64 % line_words] |= std::uint64_t{1} << bit % 64;
    }
    std::size_t count() const { return lines_.size(); }
    std::vector<nc_base_line> take() { return std::move(lines_); }

  private:
    std::vector<nc_base_line> lines_;
};

/// Numbers sets of lengths.
class LengthSets {
  public:
    std::uint16_t number_of(const Lengths& lengths) {
        const auto [at, fresh] = numbers_.try_emplace(lengths, sets_.size());
        if (fresh)
            sets_.push_back(lengths);
        return static_cast<std::uint16_t>(at->second);
    }
    /// The shortest length of a set.
    std::uint32_t shortest(std::uint16_t number) const {
        std::uint32_t length = 0;
        for (const std::uint64_t word : sets_[number]) {
            if (word != 0)
                return length + static_cast<std::uint32_t>(std::countr_zero(word));
            length += 64;
        }
        return 0;
    }
    bool too_many() const { return sets_.size() > NC_BASE_LENGTHS_MAX; }
    std::uint32_t write(Lines& lines) const {
        const std::uint32_t part = lines.part(sets_.size(), line_lengths);
        for (std::size_t i = 0; i < sets_.size(); i++)
            std::copy(sets_[i].begin(), sets_[i].end(),
                      lines.at(part + i / line_lengths).word + i % line_lengths * 4);
        return part;
    }

  private:
    // None is number 0, so that no entry of an index is 0.
    std::map<Lengths, std::size_t> numbers_{{Lengths{}, 0}};
    std::vector<Lengths> sets_{Lengths{}};
};

/// Gives each start, sorted, the lengths of the nets, sorted, that cover it.
void assign_lengths(std::vector<Start>& starts, const std::vector<Net>& nets, LengthSets& sets) {
    std::vector<const Net*> open; // each one inside the one before
    auto next = nets.begin();
    for (Start& start : starts) {
        const auto close = [&](std::uint64_t high, std::uint64_t low) {
            while (!open.empty() && !covers(*open.back(), high, low))
                open.pop_back();
        };
        for (; next != nets.end() &&
               std::tie(next->high, next->low) <= std::tie(start.high, start.low);
             ++next) {
            close(next->high, next->low);
            open.push_back(&*next);
        }
        close(start.high, start.low);
        Lengths lengths{};
        for (const Net* net : open)
            lengths[net->length / 64] |= std::uint64_t{1} << net->length % 64;
        start.lengths = sets.number_of(lengths);
    }
}

/// Slices by key, and where in the list each start comes; starts keep their order within a slice.
struct Slices {
    std::uint32_t index = 0;
    std::vector<std::uint32_t> place;
};

template <class SlotOf>
Slices make_slices(Lines& lines, const std::vector<Start>& starts, unsigned bits,
                   const SlotOf& slot_of) {
    std::vector<std::uint32_t> counts(std::size_t{1} << bits);
    for (const Start& start : starts)
        counts[slot_of(start)]++;
    Slices slices;
    slices.index = lines.part(counts.size() + 1, line_halves);
    std::uint32_t first = 0;
    for (std::size_t slot = 0; slot <= counts.size(); slot++) {
        const std::uint32_t count = slot < counts.size() ? counts[slot] : 0;
        lines.at(slices.index + slot / line_halves).half[slot % line_halves] =
            std::min<std::uint32_t>(count, NC_BASE_MANY) << 24 | first;
        if (slot < counts.size())
            counts[slot] = first; // from here on: where the next one goes
        first += count;
    }
    slices.place.reserve(starts.size());
    for (const Start& start : starts)
        slices.place.push_back(counts[slot_of(start)]++);
    return slices;
}

void sort_starts(std::vector<Start>& starts) {
    const auto order = [](const Start& a, const Start& b) {
        return std::tie(a.high, a.low) < std::tie(b.high, b.low);
    };
    const auto same = [](const Start& a, const Start& b) {
        return a.high == b.high && a.low == b.low;
    };
    if (!std::is_sorted(starts.begin(), starts.end(), order))
        std::sort(starts.begin(), starts.end(), order);
    starts.erase(std::unique(starts.begin(), starts.end(), same), starts.end());
}

/// Where a net begins, and each further key of `bits` bits that it covers.
void add_starts(std::vector<Start>& starts, const Net& net, unsigned bits) {
    starts.push_back({net.high, net.low, 0});
    if (net.length < bits)
        for (std::uint64_t i = 1; i < std::uint64_t{1} << (bits - net.length); i++)
            starts.push_back({net.high | i << (64 - bits), 0, 0});
}

Result<std::vector<nc_base_line>> too_nested() {
    return Error::failed("the prefixes nest in more ways than there is room for");
}

/// What a base of IPv4 takes whose buckets are named by so many bits.
struct Shape4 {
    unsigned bits = 0;
    std::size_t buckets = 0; ///< that have starts
    std::size_t listed = 0;  ///< places in the list

    std::size_t lines() const {
        return ((std::size_t{1} << bits) / 64 + NC_BASE_WORDS4 - 1) / NC_BASE_WORDS4 +
               buckets / line_halves + listed / NC_BASE_STARTS4;
    }
};

/// Whether a bucket of so many bits can have its only start in its entry.
bool fits_entry(unsigned bits) {
    return 32 - bits <= NC_BASE_ONLY_BITS;
}

Shape4 shape_of(const std::vector<Net>& nets, unsigned bits) {
    Shape4 shape{bits};
    std::uint64_t done = 0; // buckets below this
    std::uint64_t last = ~std::uint64_t{0};
    std::size_t starts = 0; // different ones in bucket `last`
    std::uint64_t start = 0;
    const auto close = [&] {
        if (starts > 1 || (starts == 1 && !fits_entry(bits)))
            shape.listed += starts + (starts >= NC_BASE_MANY4 ? 1 : 0);
        starts = 0;
    };
    for (const Net& net : nets) {
        const std::uint64_t bucket = leading(net.high, bits);
        const std::uint64_t end =
            bucket + (std::uint64_t{1} << (bits - std::min<unsigned>(bits, net.length)));
        if (bucket != last) {
            close();
            last = bucket;
            // Of a wider one that came before.
            starts = bucket < done && leading(net.high, bits) << (64 - bits) != net.high ? 1 : 0;
            starts++;
        } else if (net.high != start) {
            starts++;
        }
        start = net.high;
        if (end > done) {
            const std::uint64_t fresh = end - std::max(bucket, done);
            shape.buckets += fresh;
            if (!fits_entry(bits))
                shape.listed += fresh; // about: what a wide one alone has is listed, too
            done = end;
        }
    }
    close();
    return shape;
}

/// As many bits as an element's share of memory allows: the more, the fewer loads. Small bases have room in
/// any case; short of it, their buckets would be wide, and a miss as dear as a hit.
unsigned choose_buckets(const std::vector<Net>& nets) {
    constexpr std::size_t bytes_an_element = 15, bytes_at_least = 256 << 10;
    const std::size_t budget =
        std::max(nets.size() * bytes_an_element, bytes_at_least) / sizeof(nc_base_line);
    std::optional<Shape4> best;
    // 4 to 8 buckets an element; more, where that lets entries hold starts.
    const unsigned few = index_bits(nets.size()) + 3, enough = 32 - NC_BASE_ONLY_BITS;
    for (unsigned bits = std::clamp(std::max(few, enough), 9U, 27U); bits >= 9; bits--) {
        const Shape4 shape = shape_of(nets, bits);
        if (shape.listed <= NC_BASE_FIRST && (!best || shape.lines() < best->lines()))
            best = shape;
        if (best && best->lines() <= budget)
            break;
    }
    return best ? best->bits : 9;
}

/// Writes filter, index and list of sorted starts.
void write_buckets(Lines& lines, nc_base_head& head, const std::vector<Start>& starts,
                   const LengthSets& sets, unsigned bits) {
    const auto bucket_of = [&](const Start& start) { return leading(start.high, bits); };
    std::vector<std::uint32_t> entries;
    std::vector<std::pair<std::uint32_t, std::uint16_t>> list; // start or count, lengths
    lines.part((std::size_t{1} << bits) / 64, NC_BASE_WORDS4); // NC_BASE_FILTER
    for (std::size_t i = 0; i < starts.size();) {
        const std::uint64_t bucket = bucket_of(starts[i]);
        std::size_t end = i + 1;
        while (end < starts.size() && bucket_of(starts[end]) == bucket)
            end++;
        const std::uint64_t word = bucket / 64;
        lines.at(NC_BASE_FILTER + word / NC_BASE_WORDS4).filter4.bits[word % NC_BASE_WORDS4] |=
            std::uint64_t{1} << bucket % 64;
        if (end - i == 1 && fits_entry(bits) && starts[i].lengths < NC_BASE_ONLY_LENGTHS) {
            const auto behind = static_cast<std::uint32_t>(starts[i].high << bits >> 32 >> bits);
            entries.push_back(behind << 18 | std::uint32_t{starts[i].lengths} << 6 |
                              sets.shortest(starts[i].lengths));
        } else {
            const std::size_t count = std::min<std::size_t>(end - i, NC_BASE_MANY4);
            entries.push_back(NC_BASE_SLICE | static_cast<std::uint32_t>(count) << 24 |
                              static_cast<std::uint32_t>(list.size()));
            if (count == NC_BASE_MANY4)
                list.emplace_back(static_cast<std::uint32_t>(end - i), std::uint16_t{0});
            for (std::size_t each = i; each < end; each++)
                list.emplace_back(static_cast<std::uint32_t>(starts[each].high >> 32),
                                  starts[each].lengths);
        }
        i = end;
    }
    std::uint32_t before = 0;
    for (std::uint32_t at = NC_BASE_FILTER; at < lines.count(); at++) {
        auto& line = lines.at(at).filter4;
        line.first = before;
        for (unsigned word = 0; word < NC_BASE_WORDS4; word++) {
            line.before[word] = static_cast<__u16>(before - line.first);
            before += static_cast<std::uint32_t>(std::popcount(line.bits[word]));
        }
    }
    head.index = lines.part(entries.size(), line_halves);
    for (std::size_t i = 0; i < entries.size(); i++)
        lines.at(head.index + i / line_halves).half[i % line_halves] = entries[i];
    head.list = lines.part(list.size(), NC_BASE_STARTS4);
    head.list_count = static_cast<std::uint32_t>(list.size());
    for (std::size_t i = 0; i < list.size(); i++) {
        auto& line = lines.at(head.list + i / NC_BASE_STARTS4).starts4;
        line.start[i % NC_BASE_STARTS4] = list[i].first;
        line.lengths[i % NC_BASE_STARTS4] = list[i].second;
        line.shortest[i % NC_BASE_STARTS4] = static_cast<__u16>(sets.shortest(list[i].second));
    }
}

Result<std::vector<nc_base_line>> build4(const std::vector<Net>& nets) {
    Lines lines;
    const unsigned bits = choose_buckets(nets);
    nc_base_head head{};
    head.family = 4;
    head.elements = static_cast<std::uint32_t>(nets.size());
    head.filter_shift = static_cast<std::uint8_t>(32 - bits);
    std::vector<Start> starts;
    starts.reserve(nets.size());
    std::uint64_t done = 0; // buckets below this have one at their beginning
    for (const Net& net : nets) {
        starts.push_back({net.high, net.low, 0});
        if (net.length >= bits)
            continue;
        const std::uint64_t first = leading(net.high, bits);
        const std::uint64_t end = first + (std::uint64_t{1} << (bits - net.length));
        for (std::uint64_t bucket = std::max(first + 1, done); bucket < end; bucket++)
            starts.push_back({bucket << (64 - bits), 0, 0});
        done = std::max(done, end);
    }
    sort_starts(starts);
    LengthSets sets;
    assign_lengths(starts, nets, sets);
    if (sets.too_many())
        return too_nested();
    write_buckets(lines, head, starts, sets, bits);
    head.lengths = sets.write(lines);
    lines.head() = head;
    return lines.take();
}

/// How many bits of IPv6 addresses make the key: as many as can be had without cutting the wider
/// prefixes into too many pieces.
unsigned choose_granule(const std::vector<Net>& nets) {
    std::array<std::size_t, 129> of_length{};
    for (const Net& net : nets)
        of_length[net.length]++;
    const std::size_t budget = nets.size() / 8 + 64;
    unsigned granule = 1;
    // Pieces that those shorter than `granule` take.
    for (std::size_t pieces = 2 * of_length[0]; granule < 64; granule++) {
        pieces = 2 * (pieces + of_length[granule]);
        if (pieces > budget)
            break;
    }
    return granule;
}

Result<std::vector<nc_base_line>> build6(const std::vector<Net>& nets) {
    Lines lines;
    const unsigned granule = choose_granule(nets);
    std::vector<Start> shorts, longs;
    for (const Net& net : nets) {
        if (net.length > 64)
            longs.push_back({net.high, net.low, 0});
        else
            add_starts(shorts, net, granule);
    }
    sort_starts(shorts);
    sort_starts(longs);
    LengthSets sets;
    assign_lengths(shorts, nets, sets);
    assign_lengths(longs, nets, sets);
    if (sets.too_many())
        return too_nested();

    nc_base_head head{};
    head.family = 6;
    head.elements = static_cast<std::uint32_t>(nets.size());
    head.granule = static_cast<std::uint8_t>(granule);
    const unsigned filter_bits = std::max(index_bits(shorts.size() + longs.size()) + 4, 9U);
    head.filter_shift = static_cast<std::uint8_t>(64 - filter_bits);
    lines.part(std::size_t{1} << filter_bits, line_bits); // NC_BASE_FILTER
    for (const std::vector<Start>* starts : {&shorts, &longs})
        for (const Start& start : *starts)
            lines.set_bit(NC_BASE_FILTER, nc_base_hash(start.high, granule) >> head.filter_shift);

    const unsigned bits = index_bits(shorts.size());
    head.index_shift = static_cast<std::uint8_t>(64 - bits);
    const Slices slices = make_slices(lines, shorts, bits, [&](const Start& start) {
        return nc_base_hash(start.high, granule) >> head.index_shift;
    });
    head.index = slices.index;
    head.list = lines.part(shorts.size(), NC_BASE_SHORTS);
    head.list_count = static_cast<std::uint32_t>(shorts.size());
    for (std::size_t i = 0; i < shorts.size(); i++) {
        const std::uint32_t place = slices.place[i];
        auto& line = lines.at(head.list + place / NC_BASE_SHORTS).shorts;
        line.start[place % NC_BASE_SHORTS] = shorts[i].high;
        line.lengths[place % NC_BASE_SHORTS] = shorts[i].lengths;
    }
    if (!longs.empty()) {
        const unsigned long_bits = index_bits(longs.size());
        head.long_index_shift = static_cast<std::uint8_t>(64 - long_bits);
        const Slices long_slices = make_slices(lines, longs, long_bits, [&](const Start& start) {
            return nc_base_hash(start.high, 64) >> head.long_index_shift;
        });
        head.long_index = long_slices.index;
        head.long_list = lines.part(longs.size(), NC_BASE_LONGS);
        head.long_list_count = static_cast<std::uint32_t>(longs.size());
        for (std::size_t i = 0; i < longs.size(); i++) {
            const std::uint32_t place = long_slices.place[i];
            auto& line = lines.at(head.long_list + place / NC_BASE_LONGS).longs;
            line.start[place % NC_BASE_LONGS][0] = longs[i].high;
            line.start[place % NC_BASE_LONGS][1] = longs[i].low;
            line.lengths[place % NC_BASE_LONGS] = longs[i].lengths;
        }
    }
    head.lengths = sets.write(lines);
    lines.head() = head;
    return lines.take();
}

/// The last start at or before an address in the slice of a key.
template <class Load>
std::optional<Start> find_start(std::span<const nc_base_line> lines, std::uint32_t index,
                                std::uint64_t slot, const Net& address, const Load& load) {
    const auto first = [&](std::uint64_t at) {
        return lines[index + at / line_halves].half[at % line_halves] & NC_BASE_FIRST;
    };
    std::optional<Start> found;
    std::uint32_t low = first(slot), high = first(slot + 1);
    while (low < high) {
        const std::uint32_t middle = low + (high - low) / 2;
        const Start start = load(middle);
        if (std::tie(start.high, start.low) <= std::tie(address.high, address.low)) {
            found = start;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return found;
}

Start listed4(std::span<const nc_base_line> lines, const nc_base_head& head, std::uint32_t i) {
    const auto& line = lines[head.list + i / NC_BASE_STARTS4].starts4;
    const std::uint64_t address = line.start[i % NC_BASE_STARTS4];
    return {address << 32, 0, line.lengths[i % NC_BASE_STARTS4]};
}

/// The starts of a bucket, given its entry in the index: calls visit(start) in their order.
template <class Visit>
void visit_bucket(std::span<const nc_base_line> lines, const nc_base_head& head,
                  std::uint64_t bucket, std::uint32_t number, const Visit& visit) {
    const std::uint32_t entry = lines[head.index + number / line_halves].half[number % line_halves];
    if ((entry & NC_BASE_SLICE) == 0) {
        const std::uint64_t address = bucket << head.filter_shift | entry >> 18;
        visit(Start{address << 32, 0,
                    static_cast<std::uint16_t>(entry >> 6 & (NC_BASE_ONLY_LENGTHS - 1))});
        return;
    }
    std::uint32_t first = entry & NC_BASE_FIRST, count = entry >> 24 & NC_BASE_MANY4;
    if (count == NC_BASE_MANY4)
        count = static_cast<std::uint32_t>(listed4(lines, head, first++).high >> 32);
    for (std::uint32_t i = 0; i < count; i++)
        visit(listed4(lines, head, first + i));
}

/// The last start at or before an IPv4 address in its bucket.
std::optional<Start> find_start4(std::span<const nc_base_line> lines, const nc_base_head& head,
                                 std::uint64_t high) {
    const std::uint64_t bucket = high >> 32 >> head.filter_shift, word = bucket / 64;
    const auto& line = lines[NC_BASE_FILTER + word / NC_BASE_WORDS4].filter4;
    const std::uint64_t bits = line.bits[word % NC_BASE_WORDS4];
    if ((bits >> bucket % 64 & 1) == 0)
        return {};
    const std::uint64_t below = bits & ((std::uint64_t{1} << bucket % 64) - 1);
    const std::uint32_t number = line.first + line.before[word % NC_BASE_WORDS4] +
                                 static_cast<std::uint32_t>(std::popcount(below));
    std::optional<Start> found;
    visit_bucket(lines, head, bucket, number, [&](const Start& start) {
        if (start.high <= high)
            found = start;
    });
    return found;
}

/// Calls visit(start) for all of a base of IPv4, in their order.
template <class Visit>
void visit_starts4(std::span<const nc_base_line> lines, const nc_base_head& head,
                   const Visit& visit) {
    std::uint32_t number = 0;
    const std::uint64_t words = (std::uint64_t{1} << (32 - head.filter_shift)) / 64;
    for (std::uint64_t word = 0; word < words; word++) {
        const auto& line = lines[NC_BASE_FILTER + word / NC_BASE_WORDS4].filter4;
        for (std::uint64_t left = line.bits[word % NC_BASE_WORDS4]; left != 0; left &= left - 1)
            visit_bucket(lines, head, word * 64 + static_cast<unsigned>(std::countr_zero(left)),
                         number++, visit);
    }
}

Start short_start(std::span<const nc_base_line> lines, const nc_base_head& head, std::uint32_t i) {
    const auto& line = lines[head.list + i / NC_BASE_SHORTS].shorts;
    return {line.start[i % NC_BASE_SHORTS], 0, line.lengths[i % NC_BASE_SHORTS]};
}

Start long_start(std::span<const nc_base_line> lines, const nc_base_head& head, std::uint32_t i) {
    const auto& line = lines[head.long_list + i / NC_BASE_LONGS].longs;
    const auto& address = line.start[i % NC_BASE_LONGS];
    return {address[0], address[1], line.lengths[i % NC_BASE_LONGS]};
}

/// The nets that begin at a start: of those that cover it, the ones with only zeroes from there on.
void read_start(std::span<const nc_base_line> lines, const nc_base_head& head, const Start& start,
                unsigned shortest, std::vector<Net>& nets) {
    const nc_base_line& line = lines[head.lengths + start.lengths / line_lengths];
    const __u64* words = line.word + start.lengths % line_lengths * 4;
    for (unsigned word = shortest / 64; word < 3; word++)
        for (std::uint64_t left = words[word]; left != 0; left &= left - 1) {
            const unsigned length = word * 64 + static_cast<unsigned>(std::countr_zero(left));
            const bool begins = length <= 64
                                    ? start.low == 0 && (length == 64 || start.high << length == 0)
                                    : length == 128 || start.low << (length - 64) == 0;
            if (begins && length >= shortest)
                nets.push_back({start.high, start.low, static_cast<std::uint8_t>(length)});
        }
}

/// Looks at every number of a base that leads somewhere.
class BaseCheck {
  public:
    explicit BaseCheck(std::span<const nc_base_line> lines)
        : lines_(lines), head_(*reinterpret_cast<const nc_base_head*>(lines.data())) {}

    bool whole() const {
        if (head_.elements > NC_BASE_MAX)
            return false;
        return head_.family == 4 ? whole4() : head_.family == 6 && whole6();
    }

  private:
    /// Whether so many things, `each` a line, lie in the lines from `first` on.
    bool holds(std::uint64_t first, std::uint64_t count, std::uint64_t each) const {
        return first + (count + each - 1) / each <= lines_.size();
    }
    bool has_lengths(const Start& start) const {
        const std::uint64_t place = std::uint64_t{head_.lengths} + start.lengths / line_lengths;
        if (place >= lines_.size())
            return false;
        const __u64* words = lines_[place].word + start.lengths % line_lengths * 4;
        constexpr std::uint64_t up_to_32 = (std::uint64_t{1} << 33) - 1;
        return head_.family == 4 ? words[0] <= up_to_32 && words[1] == 0 && words[2] == 0
                                 : words[2] <= 1; // up to 128
    }
    std::uint32_t entry(std::uint64_t number) const {
        return lines_[head_.index + number / line_halves].half[number % line_halves];
    }

    bool whole4() const {
        if (head_.filter_shift > 26 || head_.list_count > NC_BASE_FIRST ||
            head_.long_list_count > 0)
            return false;
        const std::uint64_t words = (std::uint64_t{1} << (32 - head_.filter_shift)) / 64;
        if (!holds(NC_BASE_FILTER, words, NC_BASE_WORDS4) ||
            !holds(head_.list, head_.list_count, NC_BASE_STARTS4))
            return false;
        std::uint64_t entries = 0;
        for (std::uint64_t word = 0; word < words; word++) {
            const auto& line = lines_[NC_BASE_FILTER + word / NC_BASE_WORDS4].filter4;
            const std::size_t place = word % NC_BASE_WORDS4;
            if (std::uint64_t{line.first} + line.before[place] != entries)
                return false;
            entries += static_cast<unsigned>(std::popcount(line.bits[place]));
        }
        if (!holds(head_.index, entries, line_halves))
            return false;
        for (std::uint64_t number = 0; number < entries; number++)
            if (!whole_entry4(entry(number)))
                return false;
        return true;
    }

    bool whole_entry4(std::uint32_t entry) const {
        if ((entry & NC_BASE_SLICE) == 0)
            return has_lengths(
                {0, 0, static_cast<std::uint16_t>(entry >> 6 & (NC_BASE_ONLY_LENGTHS - 1))});
        std::uint64_t first = entry & NC_BASE_FIRST, count = entry >> 24 & NC_BASE_MANY4;
        if (count == NC_BASE_MANY4) {
            if (first >= head_.list_count)
                return false;
            count = listed4(lines_, head_, static_cast<std::uint32_t>(first++)).high >> 32;
        }
        if (first + count > head_.list_count)
            return false;
        for (std::uint64_t i = first; i < first + count; i++)
            if (!has_lengths(listed4(lines_, head_, static_cast<std::uint32_t>(i))))
                return false;
        return true;
    }

    /// An index by hashes, and the list that it leads into.
    template <class Load>
    bool whole_list(std::uint32_t index, unsigned shift, std::uint32_t list, std::uint32_t count,
                    std::uint64_t each, const Load& load) const {
        if (shift < 32 || shift > 63)
            return false;
        const std::uint64_t slots = (std::uint64_t{1} << (64 - shift)) + 1;
        if (!holds(index, slots, line_halves) || !holds(list, count, each))
            return false;
        for (std::uint64_t slot = 0; slot < slots; slot++)
            if ((lines_[index + slot / line_halves].half[slot % line_halves] & NC_BASE_FIRST) >
                count)
                return false;
        for (std::uint32_t i = 0; i < count; i++)
            if (!has_lengths(load(i)))
                return false;
        return true;
    }

    bool whole6() const {
        if (head_.granule < 1 || head_.granule > 64)
            return false;
        return whole_list(head_.index, head_.index_shift, head_.list, head_.list_count,
                          NC_BASE_SHORTS,
                          [&](std::uint32_t i) { return short_start(lines_, head_, i); }) &&
               (head_.long_list_count == 0 ||
                whole_list(head_.long_index, head_.long_index_shift, head_.long_list,
                           head_.long_list_count, NC_BASE_LONGS,
                           [&](std::uint32_t i) { return long_start(lines_, head_, i); }));
    }

    std::span<const nc_base_line> lines_;
    const nc_base_head& head_;
};

} // namespace

bool is_whole_base(std::span<const nc_base_line> lines) {
    return lines.empty() || BaseCheck(lines).whole();
}

Result<std::vector<nc_base_line>> build_base(Family family, std::span<const Prefix> prefixes) {
    if (prefixes.empty())
        return std::vector<nc_base_line>();
    if (prefixes.size() > NC_BASE_MAX)
        return Error::failed(fmt::format("there are more than {} prefixes", NC_BASE_MAX));
    std::vector<Net> nets;
    nets.reserve(prefixes.size());
    for (const Prefix& prefix : prefixes)
        nets.push_back(to_net(prefix));
    return family == Family::ipv4 ? build4(nets) : build6(nets);
}

const nc_base_head* base_head(std::span<const nc_base_line> lines) {
    return lines.empty() ? nullptr : reinterpret_cast<const nc_base_head*>(lines.data());
}

std::array<std::uint64_t, 3> base_lengths(std::span<const nc_base_line> lines,
                                          const Address& address) {
    Lengths lengths{};
    const nc_base_head* head = base_head(lines);
    if (!head)
        return lengths;
    const Net net = to_net({address, 0});
    const auto add = [&](const std::optional<Start>& start) {
        if (!start)
            return;
        const unsigned common =
            start->high != net.high
                ? static_cast<unsigned>(std::countl_zero(start->high ^ net.high))
                : 64U + static_cast<unsigned>(std::countl_zero(start->low ^ net.low));
        const __u64* words = lines[head->lengths + start->lengths / line_lengths].word +
                             start->lengths % line_lengths * 4;
        for (unsigned length = 0; length <= std::min(common, 128U); length++)
            if (words[length / 64] >> length % 64 & 1)
                lengths[length / 64] |= std::uint64_t{1} << length % 64;
    };
    if (head->family == 4) {
        add(find_start4(lines, *head, net.high));
        lengths[0] &= 0x1ffffffff;
        return lengths;
    }
    add(find_start(lines, head->index, nc_base_hash(net.high, head->granule) >> head->index_shift,
                   net, [&](std::uint32_t i) { return short_start(lines, *head, i); }));
    if (head->long_list_count > 0)
        add(find_start(lines, head->long_index,
                       nc_base_hash(net.high, 64) >> head->long_index_shift, net,
                       [&](std::uint32_t i) { return long_start(lines, *head, i); }));
    return lengths;
}

std::vector<Prefix> base_elements(std::span<const nc_base_line> lines) {
    std::vector<Prefix> prefixes;
    const nc_base_head* head = base_head(lines);
    if (!head)
        return prefixes;
    std::vector<Net> nets;
    nets.reserve(head->elements);
    if (head->family == 4)
        visit_starts4(lines, *head,
                      [&](const Start& start) { read_start(lines, *head, start, 0, nets); });
    else
        for (std::uint32_t i = 0; i < head->list_count; i++)
            read_start(lines, *head, short_start(lines, *head, i), 0, nets);
    // Of prefixes longer than /64 this list tells only what covers a start, the long one all.
    nets.erase(
        std::remove_if(nets.begin(), nets.end(), [](const Net& net) { return net.length > 64; }),
        nets.end());
    for (std::uint32_t i = 0; i < head->long_list_count; i++)
        read_start(lines, *head, long_start(lines, *head, i), 65, nets);
    if (!std::is_sorted(nets.begin(), nets.end()))
        std::sort(nets.begin(), nets.end());
    const Family family = head->family == 4 ? Family::ipv4 : Family::ipv6;
    prefixes.reserve(nets.size());
    for (const Net& net : nets)
        prefixes.push_back(to_prefix(family, net));
    return prefixes;
}

} // namespace netctl::datapath
