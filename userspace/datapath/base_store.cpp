// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/base_store.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "bpf/standalone.hpp"
#include "bpf/write_words.hpp"

namespace netctl::datapath {

namespace {

/// Behind the sets' words: for each family the slots that a writer is about to fill, and those that it will
/// clear then; and, by its first slot, how many segments a base has.
constexpr std::size_t journal = BaseStore::most, to_fill = 0, to_clear = 2, journal_length = 4,
                      extents_begin = journal + journal_length,
                      words = extents_begin + NC_BASE_SEGMENTS / 4;
/// Holds an empty segment; so do slots that were used once. 0 is no slot of a base.
constexpr std::uint32_t empty_slot = 0;

constexpr std::array families{Family::ipv4, Family::ipv6};

/// The part of a set's word that tells of a family's base.
std::uint64_t part_of(Family family, std::uint16_t first, std::span<const nc_base_line> lines) {
    nc_base_head head{};
    std::memcpy(&head, lines.data(), sizeof head);
    if (family == Family::ipv4)
        return std::uint64_t{first} << NC_SET_WORD_FIRST4 | std::uint64_t{head.filter_shift & 63U}
                                                                << NC_SET_WORD_SHIFT4;
    return std::uint64_t{first} << NC_SET_WORD_FIRST6 |
           std::uint64_t{head.filter_shift & 63U} << NC_SET_WORD_SHIFT6 |
           std::uint64_t{(head.granule - 1U) & 63U} << NC_SET_WORD_GRANULE6;
}

std::uint64_t mask_of(Family family) {
    constexpr std::uint64_t below_ipv6 = (std::uint64_t{1} << NC_SET_WORD_FIRST6) - 1;
    constexpr std::uint64_t below_turn = (std::uint64_t{1} << NC_SET_WORD_TURN) - 1;
    return family == Family::ipv4 ? below_ipv6 : below_turn & ~below_ipv6;
}

bpf::PinDir bases_dir(const Root& root) {
    return root.dir().sub("bases");
}

std::size_t segments_of(std::size_t lines) {
    return (lines + NC_BASE_SEGMENT - 1) / NC_BASE_SEGMENT;
}

std::vector<std::uint32_t> slots_of(std::uint32_t first, std::size_t count) {
    std::vector<std::uint32_t> slots(count);
    std::iota(slots.begin(), slots.end(), first);
    return slots;
}

} // namespace

Result<BaseStore> BaseStore::wrap(bpf::RawMap refs, bpf::RawMap segments) {
    auto mapped = bpf::MappedArray::open(refs, true);
    if (mapped)
        return BaseStore(std::move(refs), std::move(segments), std::move(*mapped));
    if (mapped.error().code != EACCES && mapped.error().code != EPERM)
        return std::move(mapped).error();
    // On a bpffs that is mounted read-only there is reading only, and no mapping.
    std::vector<std::uint64_t> copy(words);
    NETCTL_TRY(refs.read_array(copy.data(), sizeof copy[0], words));
    BaseStore store(std::move(refs), std::move(segments), {});
    store.copy_ = std::move(copy);
    return store;
}

Result<BaseStore> BaseStore::make() {
    auto refs = NETCTL_TRY(bpf::create_standalone("base_refs", words));
    auto segments = NETCTL_TRY(bpf::create_standalone("base_segments", NC_BASE_SEGMENTS));
    const bpf::RawMap empty = NETCTL_TRY(bpf::create_standalone("base_segment", NC_BASE_SEGMENT));
    const int fd = empty.fd();
    NETCTL_TRY(segments.update(&empty_slot, &fd));
    return wrap(std::move(refs), std::move(segments));
}

Result<BaseStore> BaseStore::open(const Root& root) {
    const bpf::PinDir dir = bases_dir(root);
    return wrap(NETCTL_TRY(dir.open_map("refs")), NETCTL_TRY(dir.open_map("segments")));
}

Result<BaseStore> BaseStore::open_or_make(const Root& root) {
    const bpf::PinDir dir = bases_dir(root);
    if (NETCTL_TRY(dir.look_for("refs")))
        return open(root);
    NETCTL_TRY(dir.create());
    BaseStore made = NETCTL_TRY(make());
    NETCTL_TRY(dir.replace("segments", made.segments_));
    NETCTL_TRY(dir.replace("refs", made.refs_)); // last: it is what we look for
    return made;
}

Result<> BaseStore::share(const bpf::Object& object) const {
    NETCTL_TRY(object.reuse("base_refs", refs_));
    return object.reuse("base_segments", segments_);
}

std::uint64_t BaseStore::word(std::size_t place) const {
    if (!copy_.empty())
        return copy_[place];
    const auto* from = reinterpret_cast<const std::uint64_t*>(mapped_.bytes().data()) + place;
    return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}

/// In one write: programs read it at any time.
void BaseStore::set_word(std::size_t place, std::uint64_t word) const {
    auto* target = reinterpret_cast<std::uint64_t*>(mapped_.bytes().data()) + place;
    __atomic_store_n(target, word, __ATOMIC_SEQ_CST);
}

BaseStore::Range BaseStore::journal_entry(std::size_t entry) const {
    const std::uint64_t both = word(journal + entry);
    return {static_cast<std::uint16_t>(both), static_cast<std::uint16_t>(both >> 16)};
}

void BaseStore::set_journal(std::size_t entry, Range range) const {
    set_word(journal + entry, range.first | std::uint64_t{range.segments} << 16);
}

std::uint16_t BaseStore::extent(std::uint16_t first) const {
    return static_cast<std::uint16_t>(word(extents_begin + first / 4) >> first % 4 * 16);
}

void BaseStore::set_extent(std::uint16_t first, std::uint16_t segments) const {
    const unsigned shift = first % 4 * 16U;
    const std::uint64_t others =
        word(extents_begin + first / 4) & ~(std::uint64_t{0xffff} << shift);
    set_word(extents_begin + first / 4, others | std::uint64_t{segments} << shift);
}

BaseStore::Range BaseStore::range_of(std::uint32_t number, Family family) const {
    const std::uint16_t first = nc_base_ref_of(word(number), family == Family::ipv6).first;
    return {first, first == 0 ? std::uint16_t{0} : extent(first)};
}

std::uint16_t BaseStore::turns(std::uint32_t number) const {
    return static_cast<std::uint16_t>(word(number) >> NC_SET_WORD_TURN);
}

Result<bpf::RawMap> BaseStore::segment(std::uint32_t slot) const {
    std::uint32_t id = 0;
    if (!NETCTL_TRY(segments_.lookup(&slot, &id)))
        return Error::failed(fmt::format("slot {} of base_segments is empty", slot),
                             "another tool has written to the bases of the sets");
    return bpf::RawMap::open_id(id);
}

Result<std::vector<nc_base_line>> BaseStore::read(std::uint32_t number, Family family) const {
    std::vector<nc_base_line> lines;
    const Range ref = range_of(number, family);
    if (std::size_t{ref.first} + ref.segments > NC_BASE_SEGMENTS)
        return Error::failed(fmt::format("base {} is said to be where no slots are", number),
                             "another tool has written to the bases of the sets");
    lines.resize(std::size_t{ref.segments} * NC_BASE_SEGMENT);
    for (std::uint32_t i = 0; i < ref.segments; i++)
        NETCTL_TRY(NETCTL_TRY(segment(ref.first + i))
                       .read_array(&lines[std::size_t{i} * NC_BASE_SEGMENT], sizeof(nc_base_line),
                                   NC_BASE_SEGMENT));
    return lines;
}

/// The first of so many slots side by side that no base has.
Result<std::uint16_t> BaseStore::free_slots(std::size_t count) const {
    std::vector<Range> taken;
    for (std::uint32_t number = 1; number < most; number++)
        for (const Family family : families)
            taken.push_back(range_of(number, family));
    for (std::size_t entry = 0; entry < journal_length; entry++)
        taken.push_back(journal_entry(entry));
    std::sort(taken.begin(), taken.end(),
              [](const Range& a, const Range& b) { return a.first < b.first; });
    std::size_t from = empty_slot + 1;
    for (const Range& ref : taken) {
        if (ref.segments == 0)
            continue;
        if (from + count <= ref.first)
            break;
        from = std::max(from, std::size_t{ref.first} + ref.segments);
    }
    if (from + count > NC_BASE_SEGMENTS)
        return Error::failed(
            fmt::format("there is no room for {} KiB more of compiled sets of prefixes",
                        count * NC_BASE_SEGMENT * sizeof(nc_base_line) / 1024),
            fmt::format("all of them together take {} MiB at most",
                        NC_BASE_SEGMENTS / 1024 * NC_BASE_SEGMENT * sizeof(nc_base_line) / 1024));
    return static_cast<std::uint16_t>(from);
}

Result<> BaseStore::fill(std::uint32_t first, std::span<const nc_base_line> lines) const {
    const std::size_t count = segments_of(lines.size());
    const std::vector<bpf::RawMap> made =
        NETCTL_TRY(bpf::create_standalone("base_segment", NC_BASE_SEGMENT, count));
    std::vector<int> fds;
    for (std::size_t i = 0; i < count; i++) {
        const auto part = lines.subspan(i * NC_BASE_SEGMENT);
        NETCTL_TRY(made[i].write_array(part.data(), sizeof(nc_base_line),
                                       std::min<std::size_t>(part.size(), NC_BASE_SEGMENT)));
        fds.push_back(made[i].fd());
    }
    return segments_.update_batch(slots_of(first, count).data(), fds.data(),
                                  static_cast<std::uint32_t>(count), sizeof(std::uint32_t),
                                  sizeof(int));
}

/// Returns when no program is left that has read a reference before: writing to a map of maps waits for
/// that. The slot gets what it had.
Result<> BaseStore::wait_for_readers() const {
    const bpf::RawMap empty = NETCTL_TRY(segment(empty_slot));
    const int fd = empty.fd();
    return segments_.update(&empty_slot, &fd);
}

/// Frees the segments of a range of slots. There is no deletion of many at once, but there is a write.
Result<> BaseStore::clear(Range range) const {
    const bpf::RawMap empty = NETCTL_TRY(segment(empty_slot));
    const std::vector<int> fds(range.segments, empty.fd());
    return segments_.update_batch(slots_of(range.first, range.segments).data(), fds.data(),
                                  range.segments, sizeof(std::uint32_t), sizeof(int));
}

/// Clears what a writer was about to fill or clear, unless it is a base.
Result<> BaseStore::finish_journal() const {
    for (std::size_t entry = 0; entry < journal_length; entry++) {
        const Range range = journal_entry(entry);
        if (range.segments == 0)
            continue;
        bool in_force = false;
        for (std::uint32_t number = 1; number < most; number++)
            for (const Family family : families)
                in_force = in_force || range_of(number, family).first == range.first;
        if (!in_force) {
            NETCTL_TRY(clear(range));
            set_extent(range.first, 0);
        }
        set_journal(entry, {});
    }
    return {};
}

Result<> BaseStore::settle() const {
    NETCTL_TRY(wait_for_readers());
    return finish_journal();
}

bool BaseStore::has_base(std::uint32_t number) const {
    return std::any_of(families.begin(), families.end(),
                       [&](Family family) { return range_of(number, family).first != 0; });
}

Result<> BaseStore::recover() const {
    for (std::size_t entry = 0; copy_.empty() && entry < journal_length; entry++)
        if (journal_entry(entry).segments != 0)
            return settle();
    return {};
}

Result<BaseStore::Turn> BaseStore::prepare(std::uint32_t number, const NewBases& bases) const {
    if (!copy_.empty())
        return Error::system(EROFS, "cannot write the bases of the sets");
    NETCTL_TRY(recover());
    Turn turn{number, word(number) + (std::uint64_t{1} << NC_SET_WORD_TURN)};
    for (std::size_t i = 0; i < families.size(); i++) {
        if (!bases[i])
            continue;
        turn.word &= ~mask_of(families[i]);
        const std::span<const nc_base_line> lines = *bases[i];
        if (lines.empty())
            continue;
        const auto segments = static_cast<std::uint16_t>(segments_of(lines.size()));
        auto first = free_slots(segments);
        Result<> status;
        if (first.has_value()) {
            set_journal(to_fill + i, {*first, segments});
            set_extent(*first, segments);
            status = fill(*first, lines);
        } else {
            status = first.error();
        }
        if (!status) {
            (void)finish_journal(); // if it fails: again with the next writer
            return std::move(status).error();
        }
        turn.word |= part_of(families[i], *first, lines);
    }
    return turn;
}

Result<std::array<BaseStore::Turn, 2>> BaseStore::prepare_swap(std::uint32_t one,
                                                               std::uint32_t other) const {
    if (!copy_.empty())
        return Error::system(EROFS, "cannot write the bases of the sets");
    NETCTL_TRY(recover());
    constexpr std::uint64_t turn = std::uint64_t{1} << NC_SET_WORD_TURN, bases = turn - 1;
    const auto next = [&](std::uint32_t number, std::uint32_t from) {
        return Turn{number, ((word(number) & ~bases) + turn) | (word(from) & bases)};
    };
    return std::array{next(one, other), next(other, one)};
}

Result<> BaseStore::put_in_force(const std::array<Turn, 2>& turns) const {
    return bpf::write_words(refs_,
                            {{{turns[0].number, turns[0].word}, {turns[1].number, turns[1].word}}});
}

void BaseStore::put_in_force(const Turn& turn) const {
    const std::uint64_t before = word(turn.number);
    for (std::size_t i = 0; i < families.size(); i++)
        if ((before ^ turn.word) & mask_of(families[i]))
            set_journal(to_clear + i, range_of(turn.number, families[i]));
    set_word(turn.number, turn.word); // from here on every program sees it
}

} // namespace netctl::datapath
