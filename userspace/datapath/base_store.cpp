// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/base_store.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "bpf/standalone.hpp"

namespace netctl::datapath {

namespace {

/// Behind the bases' references: the slots that a writer is about to fill, and those that it will clear then.
constexpr std::size_t journal = 2 * std::size_t{BaseStore::most}, journal_end = journal + 2;
/// Holds an empty segment; so do slots that were used once. 0 is no slot of a base.
constexpr std::uint32_t empty_slot = 0;

std::size_t place_of(std::uint32_t number, Family family) {
    return 2 * std::size_t{number} + (family == Family::ipv6 ? 1 : 0);
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
    std::vector<nc_base_ref> copy(journal_end);
    NETCTL_TRY(refs.read_array(copy.data(), sizeof copy[0], journal_end));
    BaseStore store(std::move(refs), std::move(segments), {});
    store.copy_ = std::move(copy);
    return store;
}

Result<BaseStore> BaseStore::make() {
    auto refs = NETCTL_TRY(bpf::create_standalone("base_refs", journal_end));
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
    if (dir.has("refs"))
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

std::span<const nc_base_ref> BaseStore::refs() const {
    if (!copy_.empty())
        return copy_;
    const std::span<std::byte> bytes = mapped_.bytes();
    return {reinterpret_cast<const nc_base_ref*>(bytes.data()), bytes.size() / sizeof(nc_base_ref)};
}

/// In one write: programs read it at any time.
void BaseStore::set_ref(std::size_t place, nc_base_ref ref) const {
    std::uint64_t word = 0;
    std::memcpy(&word, &ref, sizeof word);
    auto* target = reinterpret_cast<std::uint64_t*>(mapped_.bytes().data()) + place;
    __atomic_store_n(target, word, __ATOMIC_SEQ_CST);
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
    const nc_base_ref ref = refs()[place_of(number, family)];
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
    std::vector<nc_base_ref> taken(refs().begin(), refs().end());
    std::sort(taken.begin(), taken.end(),
              [](const nc_base_ref& a, const nc_base_ref& b) { return a.first < b.first; });
    std::size_t from = empty_slot + 1;
    for (const nc_base_ref& ref : taken) {
        if (ref.segments == 0)
            continue;
        if (from + count <= ref.first)
            break;
        from = std::size_t{ref.first} + ref.segments;
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
Result<> BaseStore::clear(nc_base_ref range) const {
    const bpf::RawMap empty = NETCTL_TRY(segment(empty_slot));
    const std::vector<int> fds(range.segments, empty.fd());
    return segments_.update_batch(slots_of(range.first, range.segments).data(), fds.data(),
                                  range.segments, sizeof(std::uint32_t), sizeof(int));
}

/// Clears what a writer was about to fill or clear, unless it is a base.
Result<> BaseStore::finish_journal() const {
    for (std::size_t entry = journal; entry < journal_end; entry++) {
        const nc_base_ref range = refs()[entry];
        if (range.segments == 0)
            continue;
        const auto bases = refs().first(journal);
        const bool in_force = std::any_of(bases.begin(), bases.end(), [&](const nc_base_ref& ref) {
            return ref.segments != 0 && ref.first == range.first;
        });
        if (!in_force) {
            NETCTL_TRY(wait_for_readers());
            NETCTL_TRY(clear(range));
        }
        set_ref(entry, {});
    }
    return {};
}

Result<> BaseStore::write(std::uint32_t number, Family family,
                          std::span<const nc_base_line> lines) const {
    if (!copy_.empty())
        return Error::system(EROFS, "cannot write the bases of the sets");
    NETCTL_TRY(finish_journal());
    const std::size_t place = place_of(number, family);
    nc_base_ref next{};
    if (!lines.empty()) {
        const auto& head = *reinterpret_cast<const nc_base_head*>(lines.data());
        next.segments = static_cast<__u16>(segments_of(lines.size()));
        next.first = NETCTL_TRY(free_slots(next.segments));
        next.filter_shift = head.filter_shift;
        next.granule = head.granule;
        set_ref(journal, next);
        auto status = fill(next.first, lines);
        if (!status) {
            (void)finish_journal(); // if it fails: again with the next write
            return status;
        }
    }
    set_ref(journal + 1, refs()[place]);
    set_ref(place, next); // from here on every program sees the new base
    return finish_journal();
}

} // namespace netctl::datapath
