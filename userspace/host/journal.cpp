// SPDX-License-Identifier: GPL-2.0-only
#include "host/journal.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <fmt/format.h>

#include "bpf/bpffs.hpp"
#include "bpf/map.hpp"
#include "bpf/standalone.hpp"
#include "core/abi_version.hpp"

namespace netctl::host {

namespace {

constexpr const char* journal_pin = "journal";
constexpr const char* aside_pin = "journal~new";
/// More than that no apply writes.
constexpr std::uint64_t most_journal = std::uint64_t{256} << 20;

using JournalMap = bpf::Map<std::uint32_t, nc_journal>;

Result<nc_journal> block(const JournalMap& map, std::uint32_t number) {
    const auto found = NETCTL_TRY(map.lookup(number));
    if (!found)
        return Error::failed("the journal of an apply is cut",
                             "`netctl rollback --forget` leaves all as it is");
    return *found;
}

Journal head_of(const nc_journal& head) {
    return {static_cast<nc_journal_state>(head.state), head.id, head.deadline_ns, head.changes, {}};
}

} // namespace

bool has_journal(const RootOptions& root) {
    const auto path = bpf::root_path(root.path);
    if (!path)
        return false;
    const auto dir = bpf::PinDir::open(*path);
    return dir && dir->has(journal_pin);
}

std::optional<Journal> peek_journal(const RootOptions& root) {
    const auto path = bpf::root_path(root.path);
    if (!path)
        return {};
    const auto dir = bpf::PinDir::open(*path);
    if (!dir || !dir->has(journal_pin))
        return {};
    auto raw = dir->open_map(journal_pin);
    if (!raw)
        return {};
    const auto map = JournalMap::wrap(std::move(*raw));
    if (!map)
        return {};
    const auto head = block(*map, 0);
    return head ? std::optional(head_of(*head)) : std::nullopt;
}

Result<std::optional<Journal>> read_journal(const datapath::Root& root) {
    if (!NETCTL_TRY(root.dir().look_for(journal_pin)))
        return std::optional<Journal>();
    const JournalMap map =
        NETCTL_TRY(JournalMap::wrap(NETCTL_TRY(root.dir().open_map(journal_pin))));
    const nc_journal head = NETCTL_TRY(block(map, 0));
    Journal journal = head_of(head);
    if (head.length > most_journal)
        return Error::failed("the journal of an apply cannot be read",
                             "`netctl rollback --forget` leaves all as it is");
    for (std::uint32_t i = 0; journal.way_back.size() < head.length; i++) {
        const nc_journal part = i == 0 ? head : NETCTL_TRY(block(map, i));
        journal.way_back.append(
            part.text,
            std::min<std::size_t>(NC_JOURNAL_TEXT, head.length - journal.way_back.size()));
    }
    return std::optional(std::move(journal));
}

Result<> write_journal(const datapath::LockedRoot& root, const Journal& journal) {
    const std::string& text = journal.way_back;
    const std::size_t blocks =
        std::max<std::size_t>((text.size() + NC_JOURNAL_TEXT - 1) / NC_JOURNAL_TEXT, 1);
    const JournalMap map = NETCTL_TRY(JournalMap::wrap(
        NETCTL_TRY(bpf::create_standalone(journal_pin, static_cast<std::uint32_t>(blocks)))));
    for (std::uint32_t i = 0; i < blocks; i++) {
        nc_journal part{};
        if (i == 0) {
            part.abi_version = abi_version();
            part.state = journal.state;
            part.id = journal.id;
            part.deadline_ns = journal.deadline_ns;
            part.length = text.size();
            part.changes = journal.changes;
        }
        const std::size_t at = std::size_t{i} * NC_JOURNAL_TEXT;
        text.copy(part.text, NC_JOURNAL_TEXT, std::min(at, text.size()));
        NETCTL_TRY(map.update(i, part));
    }
    // Published when it is filled.
    return root.dir().has(journal_pin) ? root.dir().replace(journal_pin, map.raw())
                                       : root.dir().pin(journal_pin, map.raw());
}

Result<> update_journal(const datapath::LockedRoot& root, nc_journal_state state,
                        std::uint64_t deadline_ns) {
    const JournalMap map =
        NETCTL_TRY(JournalMap::wrap(NETCTL_TRY(root.dir().open_map(journal_pin))));
    nc_journal head = NETCTL_TRY(block(map, 0));
    head.state = state;
    head.deadline_ns = deadline_ns;
    return map.update(0, head);
}

Result<> remove_journal(const datapath::LockedRoot& root) {
    NETCTL_TRY(root.dir().unpin(aside_pin)); // of one that was killed
    return root.dir().unpin(journal_pin);
}

std::string journal_name(std::uint64_t id) {
    return fmt::format("{:08x}", id);
}

std::uint64_t boottime_ns() {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

} // namespace netctl::host
