// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/sets.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <map>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/standalone.hpp"
#include "core/abi_version.hpp"
#include "core/transaction.hpp"
#include "datapath/set_base.hpp"
#include "datapath/set_name.hpp"

namespace netctl::datapath {

Result<> check_set_name(const std::string& name) {
    const bool fine = !name.empty() && name.size() <= 64 &&
                      std::all_of(name.begin(), name.end(), [](unsigned char c) {
                          return std::isalnum(c) || c == '_' || c == '-';
                      });
    if (fine)
        return {};
    return Error::usage(fmt::format("'{}' is no name for a set", name),
                        "1 to 64 letters, digits, '_' and '-'");
}

namespace {

constexpr std::uint32_t largest_set = 1U << 26;
/// From so many elements on a base is faster than a trie, and smaller.
constexpr std::size_t fold_at = 1024;
/// What an element costs in the kernel's trie: its node, and the inner nodes that lead to it.
constexpr std::size_t bytes_in_trie = 128, bytes_in_hash = 80;
constexpr std::uint32_t folded = NC_SET_FOLD;
/// Entries that are counted each time: others write elements, too.
constexpr std::uint32_t quickly_counted = 4096;
/// Old and new elements are in the maps side by side while many change at once.
constexpr std::uint32_t most_besides = 1U << 22;
constexpr std::uint64_t if_there = 2; // BPF_EXIST
/// Of an element that turns: what it was is still there.
constexpr nc_set_value nothing_to_restore{0, NC_SET_NONE};
/// What takes an element out of the base: one that expired long ago.
constexpr nc_set_value taken_out{1, NC_SET_FOLD};

/// The key of an element as its map wants it.
struct ElementKey {
    std::array<std::uint8_t, sizeof(nc_set_cidr6)> bytes{};
    std::size_t size = 0;

    void append(const void* data, std::size_t count) {
        std::memcpy(bytes.data() + size, data, count);
        size += count;
    }
};

ElementKey key_of(SetType type, const SetElement& element) {
    ElementKey key;
    if (const auto* port = std::get_if<std::uint16_t>(&element)) {
        const std::uint16_t network = htons(*port);
        key.append(&network, sizeof network);
        return key;
    }
    const Prefix& prefix = std::get<Prefix>(element);
    if (type == SetType::cidr) {
        const std::uint32_t length = prefix.length;
        key.append(&length, sizeof length);
    }
    key.append(prefix.address.bytes.data(), prefix.address.bits() / 8);
    return key;
}

SetElement element_of(SetType type, Family family, const std::uint8_t* key) {
    if (type == SetType::port) {
        std::uint16_t network = 0;
        std::memcpy(&network, key, sizeof network);
        return ntohs(network);
    }
    Prefix prefix;
    prefix.address.family = family;
    const unsigned bits = prefix.address.bits();
    prefix.length = static_cast<std::uint8_t>(bits);
    if (type == SetType::cidr) {
        std::uint32_t length = 0;
        std::memcpy(&length, key, sizeof length);
        prefix.length = static_cast<std::uint8_t>(length);
        key += sizeof length;
    }
    std::memcpy(prefix.address.bytes.data(), key, bits / 8);
    // Other tools may leave bits behind the length, which the trie does not look at.
    for (unsigned bit = prefix.length; bit < bits; bit++)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return prefix;
}

bpf::PinDir sets_dir(const Root& root) {
    return root.dir().sub("sets");
}

bool expired(const nc_set_value& value) {
    return value.expires != 0 && value.expires <= boottime_seconds();
}

/// For ever in the set, no exception.
bool is_plain(const nc_set_value& value) {
    return value.expires == 0 && (value.flags & ~folded) == 0;
}

bool same(const nc_set_value& a, const nc_set_value& b) {
    return a.expires == b.expires && a.flags == b.flags;
}

std::size_t place_of(Family family) {
    return family == Family::ipv4 ? 0 : 1;
}

/// How many entries the maps of a set have room for.
std::uint32_t room_of(std::uint32_t max_entries) {
    return max_entries + std::min(max_entries, most_besides);
}

/// A number that no set of this root has.
Result<std::uint32_t> free_number(const Root& root) {
    std::vector<bool> used(BaseStore::most);
    used[0] = true;
    for (const std::string& name : Set::list(root))
        used[NETCTL_TRY(Set::open(root, name)).number()] = true;
    for (std::uint32_t i = 0; i < BaseStore::most; i++)
        if (!used[i])
            return i;
    return Error::failed(fmt::format("there are {} sets already", BaseStore::most - 1));
}

/// Removes what is no set: `info` comes last and goes first, so these are of writers that were interrupted.
Result<> remove_halves(const LockedRoot& root) {
    const bpf::PinDir sets = sets_dir(root);
    for (const std::string& name : NETCTL_TRY(sets.names()))
        if (!NETCTL_TRY(sets.sub(name).look_for("info")))
            NETCTL_TRY(sets.sub(name).remove_all());
    return sets.remove_empty();
}

Result<> drop_bases(const BaseStore& bases, std::uint32_t number) {
    if (!bases.has_base(number))
        return {}; // to free one takes CAP_SYS_ADMIN
    bases.put_in_force(NETCTL_TRY(
        bases.prepare(number, {std::span<const nc_base_line>(), std::span<const nc_base_line>()})));
    return bases.settle();
}

bool means_full(const Error& error) {
    return error.code == E2BIG || error.code == ENOSPC;
}

void sort_entries(std::vector<SetEntry>& entries) {
    std::sort(entries.begin(), entries.end(),
              [](const SetEntry& a, const SetEntry& b) { return a.element < b.element; });
}

/// `present` must be sorted.
const SetEntry* find_entry(const std::vector<SetEntry>& present, const SetElement& element) {
    const auto place = std::lower_bound(
        present.begin(), present.end(), element,
        [](const SetEntry& entry, const SetElement& wanted) { return entry.element < wanted; });
    return place != present.end() && place->element == element ? &*place : nullptr;
}

} // namespace

std::uint32_t boottime_seconds() {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint32_t>(now.tv_sec);
}

std::string to_string(SetType type) {
    switch (type) {
    case SetType::host: return "host";
    case SetType::cidr: return "cidr";
    case SetType::port: return "port";
    case SetType::name: return "name";
    }
    return "unknown";
}

Result<SetType> parse_set_type(const std::string& text) {
    for (const SetType type : {SetType::host, SetType::cidr, SetType::port, SetType::name})
        if (text == to_string(type))
            return type;
    return Error::usage(fmt::format("'{}' is no type of set", text), "host, cidr, port or name");
}

std::string to_string(const SetElement& element) {
    if (const auto* port = std::get_if<std::uint16_t>(&element))
        return std::to_string(*port);
    return std::get<Prefix>(element).to_string();
}

Result<SetElement> parse_element(SetType type, const std::string& text) {
    if (type == SetType::port) {
        unsigned port = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), port);
        if (status == std::errc{} && end == text.data() + text.size() && port <= 65535)
            return SetElement(static_cast<std::uint16_t>(port));
        if (const servent* service = getservbyname(text.c_str(), nullptr))
            return SetElement(ntohs(static_cast<std::uint16_t>(service->s_port)));
        return Error::usage(fmt::format("'{}' is no port", text),
                            "the set holds ports: 0 to 65535, or a service's name");
    }
    auto prefix = Prefix::parse(text);
    if (!prefix)
        return std::move(prefix).error();
    if (type != SetType::cidr && prefix->length != prefix->address.bits())
        return Error::usage(fmt::format("'{}' is a network, and the set holds addresses", text),
                            "a set of type cidr holds networks");
    return SetElement(*prefix);
}

std::vector<std::string> Set::list(const Root& root) {
    std::vector<std::string> names;
    for (const std::string& name : sets_dir(root).list())
        if (sets_dir(root).sub(name).has("info"))
            names.push_back(name);
    return names;
}

Result<Set> Set::open(const Root& root, const std::string& name) {
    NETCTL_TRY(check_set_name(name));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    if (!NETCTL_TRY(dir.look_for("info")))
        return Error::failed(
            fmt::format("there is no set '{}' under {}", name, root.dir().path()),
            fmt::format("make it with `netctl set create {} --type host|cidr|port|name`", name));
    const auto info_map =
        NETCTL_TRY((bpf::Map<std::uint32_t, nc_set_info>::wrap(NETCTL_TRY(dir.open_map("info")))));
    const auto info = NETCTL_TRY(info_map.lookup(0));
    if (!info || info->type < NC_SET_HOST || info->type > NC_SET_NAME)
        return Error::failed(fmt::format("set '{}' has an unknown type", name));
    Set set;
    set.name_ = name;
    set.type_ = static_cast<SetType>(info->type);
    set.max_entries_ = info->max_entries;
    set.info_ = NETCTL_TRY(info_map.raw().duplicate());
    if (set.type_ == SetType::port) {
        set.ports_ = NETCTL_TRY(dir.open_map("ports"));
    } else {
        set.v4_ = NETCTL_TRY(dir.open_map("v4"));
        set.v6_ = NETCTL_TRY(dir.open_map("v6"));
    }
    set.number_ = static_cast<std::uint16_t>(info->number % BaseStore::most);
    set.bases_ = NETCTL_TRY(BaseStore::open(root));
    return set;
}

namespace {

/// Gives what a path below `directory` names to a group, with this mode; an empty name is the directory.
Result<> give_one(const Fd& directory, const std::string& name, std::uint32_t group, mode_t mode,
                  const std::string& what) {
    const bool own = name.empty();
    // The group first: the mode is what opens it.
    const int status = own ? (fchown(directory.get(), static_cast<uid_t>(-1), group) == 0
                                  ? fchmod(directory.get(), mode)
                                  : -1)
                           : (fchownat(directory.get(), name.c_str(), static_cast<uid_t>(-1), group,
                                       AT_SYMLINK_NOFOLLOW) == 0
                                  ? fchmodat(directory.get(), name.c_str(), mode, 0)
                                  : -1);
    if (status != 0)
        return Error::system(errno, fmt::format("cannot give {} to group {}", what, group));
    return {};
}

/// The modes and groups of a set's directory and element maps, to be put back.
struct Ownership {
    std::string name; ///< empty: the directory
    struct stat before {};
};

Result<> give(const Root& root, const bpf::PinDir& dir, SetType type, std::uint32_t group) {
    constexpr mode_t closed = 0700, passed = 0711, passed_by_group = 0710, written = 0660;
    const Fd directory = NETCTL_TRY(dir.open_directory());
    std::vector<Ownership> all{{}};
    for (const char* name : {"v4", "v6", "ports"})
        if ((std::string(name) == "ports") == (type == SetType::port))
            all.push_back({name, {}});
    for (Ownership& each : all)
        if ((each.name.empty() ? fstat(directory.get(), &each.before)
                               : fstatat(directory.get(), each.name.c_str(), &each.before,
                                         AT_SYMLINK_NOFOLLOW)) != 0)
            return Error::system(errno, fmt::format("cannot look at {}", dir.path_of(each.name)));
    std::vector<std::string> ignored;
    Transaction transaction(ignored);
    transaction.or_else(dir.path(), [&]() -> Result<> {
        for (std::size_t i = all.size(); i-- > 0;) // the directory last
            NETCTL_TRY(give_one(directory, all[i].name, all[i].before.st_gid,
                                all[i].before.st_mode & 07777, dir.path_of(all[i].name)));
        return {};
    });
    // Until the last step nobody but root gets into the set's directory.
    if (fchmod(directory.get(), closed) != 0)
        return Error::system(errno, fmt::format("cannot change the mode of {}", dir.path()));
    for (const Ownership& each : all)
        if (!each.name.empty())
            NETCTL_TRY(give_one(directory, each.name, group, written, dir.path_of(each.name)));
    for (const bpf::PinDir& above : {root.dir(), sets_dir(root)}) {
        const Fd fd = NETCTL_TRY(above.open_directory());
        if (fchmod(fd.get(), passed) != 0)
            return Error::system(errno, fmt::format("cannot change the mode of {}", above.path()));
    }
    NETCTL_TRY(give_one(directory, "", group, passed_by_group, dir.path()));
    std::move(transaction).commit([](Aftermath&) {});
    return {};
}

} // namespace

Result<> Set::give_to_group(const LockedRoot& root, const std::string& name, std::uint32_t group) {
    const Set set = NETCTL_TRY(open(root, name));
    return give(root, sets_dir(root).sub(name), set.type(), group);
}

Result<> Set::create(const LockedRoot& root, const std::string& name, SetType type,
                     std::uint32_t max_entries, std::optional<std::uint32_t> group,
                     const Furnish& furnish) {
    NETCTL_TRY(check_set_name(name));
    if (max_entries == 0 || max_entries > largest_set)
        return Error::usage(fmt::format("a set holds 1 to {} elements", largest_set));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    if (NETCTL_TRY(dir.look_for("info")))
        return Error::failed(fmt::format("there is a set '{}' already", name));
    if (type == SetType::cidr && max_entries > NC_BASE_MAX)
        return Error::usage(fmt::format("a set of type cidr holds 1 to {} elements", NC_BASE_MAX));
    NETCTL_TRY(remove_halves(root));
    // All that can be refused comes before the directory.
    std::vector<std::pair<const char*, bpf::RawMap>> maps;
    const auto make = [&](const char* pin, const std::string& form) -> Result<> {
        const std::uint32_t room = type == SetType::port ? max_entries : room_of(max_entries);
        maps.emplace_back(pin, NETCTL_TRY(bpf::create_standalone(form, room)));
        return {};
    };
    nc_set_info info{};
    if (type == SetType::port) {
        max_entries = 65536;
        NETCTL_TRY(make("ports", "set_ports"));
    } else {
        const std::string form = type == SetType::cidr ? "set_cidr" : "set_host";
        NETCTL_TRY(make("v4", form + "4"));
        NETCTL_TRY(make("v6", form + "6"));
    }
    info.number = NETCTL_TRY(free_number(root));
    NETCTL_TRY(drop_bases(NETCTL_TRY(BaseStore::open_or_make(root)), info.number)); // left, too
    const auto info_map = NETCTL_TRY(bpf::create_standalone("set_info", 1));
    const std::uint32_t zero = 0;
    info.abi_version = abi_version();
    info.type = static_cast<std::uint32_t>(type);
    info.max_entries = max_entries;
    NETCTL_TRY(info_map.update(&zero, &info));
    std::vector<std::string> none;
    Transaction transaction(none);
    transaction.or_else(dir.path(), [&] { return dir.remove_all(); });
    NETCTL_TRY(dir.create());
    for (const auto& [pin, map] : maps)
        NETCTL_TRY(dir.replace(pin, map));
    if (furnish)
        NETCTL_TRY(furnish(dir));
    if (group)
        NETCTL_TRY(give(root, dir, type, *group));
    // `info` is what makes it a set: it comes last.
    NETCTL_TRY(dir.replace("info", info_map));
    std::move(transaction).commit([](Aftermath&) {});
    return {};
}

Result<> Set::destroy(const LockedRoot& root, const std::string& name,
                      std::vector<std::string>& notes) {
    NETCTL_TRY(check_set_name(name));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    const auto set = open(root, name);
    if (!set && !NETCTL_TRY(dir.look_for("info"))) {
        NETCTL_TRY(remove_halves(root));
        return Error(set.error());
    }
    NETCTL_TRY(dir.unpin("info")); // the commit: half a set is none
    Aftermath after(notes);
    after.tidy(fmt::format("the pins of set '{}'", name), remove_halves(root)); // it is one now
    if (set)
        after.tidy(fmt::format("the base of set '{}'", name),
                   drop_bases(*set->bases_, set->number()));
    sets_dir(root).remove_if_empty();
    return {};
}

const bpf::RawMap& Set::map_for(const SetElement& element) const {
    if (std::holds_alternative<std::uint16_t>(element))
        return ports_;
    return addresses(std::get<Prefix>(element).address.family);
}

Error Set::full() const {
    Error error = Error::failed(
        fmt::format("set '{}' is full: it holds {} elements of each family", name_, max_entries_),
        "make a larger one with `netctl set create --size N`");
    error.code = ENOSPC;
    return error;
}

bool Set::fit(const std::vector<SetElement>& elements, const std::vector<SetEntry>& besides) const {
    for (const bpf::RawMap* map : {&v4_, &v6_, &ports_}) {
        const auto ours = [&](const SetElement& element) { return &map_for(element) == map; };
        std::size_t count =
            static_cast<std::size_t>(std::count_if(elements.begin(), elements.end(), ours));
        for (const SetEntry& entry : besides)
            if (ours(entry.element) &&
                !std::binary_search(elements.begin(), elements.end(), entry.element))
                count++;
        if (count > max_entries_)
            return false;
    }
    return true;
}

Result<std::span<const nc_base_line>> Set::base_lines(Family family) const {
    auto& lines = base_[place_of(family)];
    if (!lines) {
        auto read =
            bases_ ? NETCTL_TRY(bases_->read(number_, family)) : std::vector<nc_base_line>();
        if (!is_whole_base(read))
            return Error::failed(
                fmt::format("the compiled part of set '{}' contradicts itself", name_),
                "another tool has written into it; destroy the set, make and fill it anew");
        lines = std::move(read);
    }
    return std::span<const nc_base_line>(*lines);
}

Result<bool> Set::in_base(const SetElement& element) const {
    const auto* prefix = std::get_if<Prefix>(&element);
    if (!prefix || type_ != SetType::cidr)
        return false;
    const auto lengths =
        base_lengths(NETCTL_TRY(base_lines(prefix->address.family)), prefix->address);
    return (lengths[prefix->length / 64] >> prefix->length % 64 & 1) != 0;
}

// ---- changes ----

Result<nc_set_info> Set::info() const {
    const std::uint32_t zero = 0;
    nc_set_info info{};
    NETCTL_TRY(info_.lookup(&zero, &info));
    return info;
}

Result<> Set::set_info(const nc_set_info& info) const {
    const std::uint32_t zero = 0;
    return info_.update(&zero, &info);
}

Result<> Set::write_one(const Change& change) const {
    const ElementKey key = key_of(type_, change.element);
    if (change.value)
        return map_for(change.element).update(key.bytes.data(), &*change.value);
    NETCTL_TRY(map_for(change.element).erase(key.bytes.data()));
    return {};
}

Result<> Set::mark(const std::vector<Change>& changes, std::vector<SetEntry>& marked) const {
    const std::uint32_t turn = static_cast<std::uint16_t>(bases_->turns(number_) + 1U)
                               << NC_SET_TURN_SHIFT;
    // New elements are written many at a time, by their map.
    struct Batch {
        std::vector<std::uint8_t> keys;
        std::vector<nc_set_value> values;
        std::size_t key_size = 0;
    };
    std::map<const bpf::RawMap*, Batch> batches;
    for (const Change& change : changes) {
        const ElementKey key = key_of(type_, change.element);
        const bpf::RawMap& map = map_for(change.element);
        const auto stored = NETCTL_TRY(stored_value(change.element));
        if (!stored) {
            if (!change.value)
                continue; // somebody else was quicker
            nc_set_value value = *change.value;
            value.flags |= NC_SET_COMES | turn;
            Batch& batch = batches[&map];
            batch.keys.insert(batch.keys.end(), key.bytes.begin(),
                              key.bytes.begin() + static_cast<std::ptrdiff_t>(key.size));
            batch.values.push_back(value);
            batch.key_size = key.size;
            marked.push_back({change.element, nothing_to_restore});
            continue;
        }
        const nc_set_value now = *stored;
        nc_set_value next = now;
        if (!change.value)
            next.flags |= NC_SET_GOES | turn;
        else if (is_plain(*change.value))
            next.flags |= NC_SET_STAYS | turn;
        else if (same(*change.value, taken_out))
            next.flags |= NC_SET_EXPIRES | turn;
        else
            next =
                *change.value; // a new time to live, for which there is no room beside the old one
        marked.push_back({change.element, next.flags & NC_SET_TURNS ? nothing_to_restore : now});
        // Not if somebody else has deleted it meanwhile.
        const auto status = map.update(key.bytes.data(), &next, if_there);
        if (!status && status.error().code != ENOENT)
            return Error(status.error());
    }
    for (const auto& [map, batch] : batches)
        NETCTL_TRY(map->update_batch(batch.keys.data(), batch.values.data(),
                                     static_cast<std::uint32_t>(batch.values.size()),
                                     batch.key_size, sizeof(nc_set_value)));
    return {};
}

/// Of nested prefixes the wider one comes first: while one that turns is still in the trie, its value would
/// be taken for that of a narrower one which somebody else has deleted.
Result<> Set::resolve(const SetElement& element) const {
    const ElementKey key = key_of(type_, element);
    const bpf::RawMap& map = map_for(element);
    nc_set_value stored{};
    if (!NETCTL_TRY(map.lookup(key.bytes.data(), &stored)) || !(stored.flags & NC_SET_TURNS))
        return {}; // somebody else has written it
    nc_set_value now = nc_set_in_force(stored, bases_->turns(number_));
    if (now.flags & NC_SET_NONE) {
        NETCTL_TRY(map.erase(key.bytes.data()));
        return {};
    }
    const std::uint32_t turns = stored.flags & NC_SET_TURNS;
    if (type_ == SetType::cidr &&
        ((turns == NC_SET_STAYS && is_plain(now)) || (turns == NC_SET_EXPIRES && now.expires == 1)))
        now.flags |= folded;
    const auto status = map.update(key.bytes.data(), &now, if_there);
    if (!status && status.error().code != ENOENT)
        return Error(status.error());
    return {};
}

Result<> Set::recover() const {
    NETCTL_TRY(bases_->recover());
    nc_set_info now = NETCTL_TRY(info());
    if (now.turning == 0)
        return {};
    NETCTL_TRY(bases_->settle());
    for (const SetEntry& entry : NETCTL_TRY(stored_entries()))
        if (entry.value.flags & NC_SET_TURNS)
            NETCTL_TRY(resolve(entry.element));
    stored_.reset();
    now.turning = 0;
    return set_info(now);
}

Result<> Set::change(const std::vector<Change>& changes, const BaseStore::NewBases& bases,
                     std::vector<std::string>& notes) const {
    const bool new_bases = bases[0] || bases[1];
    if (changes.size() <= 1 && !new_bases) {
        stored_.reset();
        if (!changes.empty())
            NETCTL_TRY(write_one(changes.front())); // atomic by itself
        return {};
    }
    NETCTL_TRY(recover());
    const nc_set_info before = NETCTL_TRY(info());
    std::vector<SetEntry> marked;
    Transaction transaction(notes);
    transaction.or_else(fmt::format("the preparation of set '{}'", name_),
                        [&] { return take_back(marked, before); });
    if (!changes.empty())
        NETCTL_TRY(announce(before));
    const BaseStore::Turn turn = NETCTL_TRY(bases_->prepare(number_, bases));
    NETCTL_TRY(mark(changes, marked));
    base_ = {};
    stored_.reset();
    bases_->put_in_force(turn); // the commit
    std::move(transaction).commit([&](Aftermath& after) {
        const auto tidy = [&]() -> Result<> {
            NETCTL_TRY(bases_->settle());
            NETCTL_TRY(resolve_all(marked));
            return set_info(before);
        };
        after.tidy(fmt::format("set '{}'", name_), tidy());
    });
    return {};
}

Result<> Set::announce(nc_set_info before) const {
    before.turning = 1;
    return set_info(before);
}

Result<> Set::resolve_all(std::vector<SetEntry>& marked) const {
    sort_entries(marked);
    for (const SetEntry& entry : marked)
        NETCTL_TRY(resolve(entry.element));
    return {};
}

Result<> Set::take_back(std::vector<SetEntry>& marked, const nc_set_info& before) const {
    sort_entries(marked);
    for (const SetEntry& entry : marked) {
        NETCTL_TRY(resolve(entry.element));
        if (!same(entry.value, nothing_to_restore))
            NETCTL_TRY(write_one({entry.element, entry.value}));
    }
    NETCTL_TRY(bases_->settle());
    return set_info(before);
}

std::vector<Set::Change> Set::differences(const std::vector<SetEntry>& from,
                                          const std::vector<SetEntry>& to) {
    std::vector<Change> changes;
    for (const SetEntry& entry : to) {
        const SetEntry* present = find_entry(from, entry.element);
        if (!present || !(same(present->value, entry.value) ||
                          (is_plain(present->value) && is_plain(entry.value))))
            changes.push_back({entry.element, entry.value});
    }
    for (const SetEntry& entry : from)
        if (!find_entry(to, entry.element))
            changes.push_back({entry.element, std::nullopt});
    return changes;
}

Result<> Set::swap(const Set& one, const Set& other, std::vector<std::string>& notes) {
    if (one.name_ == other.name_)
        return Error::usage(fmt::format("set '{}' is both of the two", one.name_));
    if (one.type_ != other.type_)
        return Error::usage(fmt::format("set '{}' is of type {}, and set '{}' of type {}",
                                        one.name_, to_string(one.type_), other.name_,
                                        to_string(other.type_)),
                            "sets of one type are swapped");
    const std::array both{&one, &other};
    std::array<std::vector<SetEntry>, 2> live, marked;
    std::array<nc_set_info, 2> before{};
    for (std::size_t i = 0; i < 2; i++) {
        NETCTL_TRY(both[i]->recover());
        live[i] = NETCTL_TRY(both[i]->live_entries());
        before[i] = NETCTL_TRY(both[i]->info());
        if (!both[1 - i]->fit({}, NETCTL_TRY(both[i]->entries())))
            return both[1 - i]->full();
    }
    Transaction transaction(notes);
    transaction.or_else(
        fmt::format("the preparation of sets '{}' and '{}'", one.name_, other.name_),
        [&]() -> Result<> {
            for (std::size_t i = 0; i < 2; i++)
                NETCTL_TRY(both[i]->take_back(marked[i], before[i]));
            return {};
        });
    for (std::size_t i = 0; i < 2; i++) {
        NETCTL_TRY(both[i]->announce(before[i]));
        const auto status = both[i]->mark(differences(live[i], live[1 - i]), marked[i]);
        if (!status && means_full(status.error()))
            return Error::failed(
                fmt::format("set '{}' has no room for its old and its new elements at once",
                            both[i]->name_),
                "make a larger one with `netctl set create --size N`; both are as they were");
        NETCTL_TRY(Result<>(status));
    }
    NETCTL_TRY(one.bases_->put_in_force(
        NETCTL_TRY(one.bases_->prepare_swap(one.number_, other.number_)))); // the commit
    std::move(transaction).commit([&](Aftermath& after) {
        const auto tidy = [&]() -> Result<> {
            NETCTL_TRY(one.bases_->settle());
            for (std::size_t i = 0; i < 2; i++) {
                NETCTL_TRY(both[i]->resolve_all(marked[i]));
                nc_set_info now = before[i];
                now.unfolded = before[1 - i].unfolded;
                now.counted = before[1 - i].counted;
                NETCTL_TRY(both[i]->set_info(now));
            }
            return {};
        };
        after.tidy(fmt::format("sets '{}' and '{}'", one.name_, other.name_), tidy());
        for (const Set* set : both) {
            set->base_ = {};
            set->stored_.reset();
        }
    });
    return {};
}

Result<> Set::forget_expired() const {
    std::vector<SetElement> gone;
    for (const SetEntry& entry : NETCTL_TRY(entries()))
        if (expired(entry.value))
            gone.push_back(entry.element);
    // One by one: what expired counts for nothing, so there is no step to take as a whole.
    stored_.reset();
    for (const SetElement& element : gone)
        NETCTL_TRY(write_one(
            {element, NETCTL_TRY(in_base(element)) ? std::optional(taken_out) : std::nullopt}));
    return {};
}

Result<> Set::fold_with(const std::vector<SetElement>& added, const std::vector<SetEntry>& beside,
                        Fold which, std::vector<std::string>& notes) const {
    NETCTL_TRY(recover());
    const std::vector<SetEntry> live = NETCTL_TRY(live_entries());
    std::vector<SetEntry> done;   // what the live maps need not hold any more
    std::vector<Change> replaced; // what goes with the step that puts the bases in force
    std::array<std::vector<nc_base_line>, 2> lines;
    BaseStore::NewBases bases;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const auto is_ours = [&](const SetElement& element) {
            return std::get<Prefix>(element).address.family == family;
        };
        const std::vector<Prefix> before = base_elements(NETCTL_TRY(base_lines(family)));
        std::vector<Prefix> without, with;
        for (const SetElement& element : added)
            if (is_ours(element))
                with.push_back(std::get<Prefix>(element));
        std::size_t kept = 0;
        for (const SetEntry& entry : beside)
            if (is_ours(entry.element)) {
                kept++;
                without.push_back(std::get<Prefix>(entry.element));
            }
        for (const SetEntry& entry : live) {
            if (!is_ours(entry.element) || find_entry(beside, entry.element))
                continue;
            const Prefix& prefix = std::get<Prefix>(entry.element);
            const bool goes = which == Fold::replace ||
                              std::binary_search(added.begin(), added.end(), entry.element);
            const bool folds = is_plain(entry.value) &&
                               (which == Fold::all || (entry.value.flags & NC_SET_FOLD) != 0);
            if (goes) {
                replaced.push_back({entry.element, std::nullopt});
                continue;
            }
            if (folds || expired(entry.value))
                done.push_back(entry);
            else
                kept++;
            // Whatever stays in the live map goes before the base: it need not have it, and must not
            // when that one is deleted.
            (folds && !expired(entry.value) ? with : without).push_back(prefix);
        }
        std::sort(with.begin(), with.end());
        std::sort(without.begin(), without.end());
        std::vector<Prefix> after, merged;
        if (which != Fold::replace)
            std::set_difference(before.begin(), before.end(), without.begin(), without.end(),
                                std::back_inserter(after));
        std::set_union(after.begin(), after.end(), with.begin(), with.end(),
                       std::back_inserter(merged));
        if (merged.size() + kept > max_entries_)
            return full();
        if (merged == before)
            continue;
        lines[place_of(family)] = NETCTL_TRY(build_base(family, merged));
        bases[place_of(family)] = lines[place_of(family)];
    }
    for (const SetEntry& entry : beside)
        replaced.push_back({entry.element, entry.value});
    // Together with new bases also a single element takes a turn of the set.
    NETCTL_TRY(change(replaced, bases, notes));
    Aftermath after(notes);
    const auto tidy = [&]() -> Result<> {
        for (const SetEntry& entry : done) {
            // Only as it was when we read it: somebody may have written it since.
            const ElementKey key = key_of(type_, entry.element);
            nc_set_value now{};
            if (NETCTL_TRY(map_for(entry.element).lookup(key.bytes.data(), &now)) &&
                same(now, entry.value))
                NETCTL_TRY(map_for(entry.element).erase(key.bytes.data()));
        }
        nc_set_info info = NETCTL_TRY(this->info());
        info.unfolded = 0;
        info.counted += static_cast<__u32>(beside.size());
        return set_info(info);
    };
    after.tidy(fmt::format("what set '{}' has in its base now", name_), tidy());
    return {};
}

Result<> Set::fold(bool all, std::vector<std::string>& notes) const {
    if (type_ != SetType::cidr)
        return Error::usage(fmt::format("set '{}' is of type {}", name_, to_string(type_)),
                            "sets of type cidr are folded");
    return fold_with({}, {}, all ? Fold::all : Fold::ours, notes);
}

void Set::written(std::size_t count, std::vector<std::string>& notes) const {
    Aftermath after(notes);
    const auto fold = [&]() -> Result<> {
        nc_set_info now = NETCTL_TRY(info());
        now.counted += static_cast<__u32>(count);
        now.unfolded += static_cast<__u32>(count);
        if (type_ == SetType::cidr && now.unfolded >= fold_at)
            return fold_with({}, {}, Fold::ours, notes);
        return set_info(now);
    };
    after.tidy(fmt::format("set '{}'", name_), fold());
}

Result<bool> Set::is_permanent(const SetElement& element) const {
    const auto live = NETCTL_TRY(live_value(element));
    return live ? Result<bool>(live->expires == 0) : in_base(element);
}

Result<std::vector<SetElement>> Set::spare_permanent(std::vector<SetEntry>& added) const {
    std::vector<SetElement> spared;
    std::vector<SetEntry> others;
    for (const SetEntry& entry : added) {
        if (entry.value.expires != 0 && NETCTL_TRY(is_permanent(entry.element)))
            spared.push_back(entry.element);
        else
            others.push_back(entry);
    }
    std::sort(spared.begin(), spared.end());
    spared.erase(std::unique(spared.begin(), spared.end()), spared.end());
    added = std::move(others);
    return spared;
}

Result<std::vector<SetElement>> Set::add(const std::vector<SetElement>& elements,
                                         nc_set_value value,
                                         std::vector<std::string>& notes) const {
    std::vector<SetEntry> entries;
    for (const SetElement& element : elements)
        entries.push_back({element, value});
    return add(std::move(entries), notes);
}

Result<std::vector<SetElement>> Set::add(std::vector<SetEntry> added,
                                         std::vector<std::string>& notes) const {
    std::vector<SetElement> spared = NETCTL_TRY(spare_permanent(added));
    if (!added.empty())
        NETCTL_TRY(put(std::move(added), notes));
    return spared;
}

Result<> Set::put(std::vector<SetEntry> added, std::vector<std::string>& notes) const {
    const Split given = split(std::move(added));
    if (type_ == SetType::cidr && given.plain.size() >= fold_at)
        return fold_with(given.plain, given.others, Fold::ours, notes);
    const auto attempt = [&]() -> Result<> {
        // Nothing is written that does not fit.
        if (!NETCTL_TRY(surely_fit(given.all.size())) && !fit(given.all, NETCTL_TRY(entries())))
            return full();
        std::vector<Change> changes;
        for (const SetElement& element : given.all) {
            const SetEntry* other = find_entry(given.others, element);
            // A single one is written without a look at what is there, which may be long.
            const auto now = given.all.size() > 1 ? NETCTL_TRY(live_value(element)) : std::nullopt;
            if (other || !now || !is_plain(*now))
                changes.push_back({element, other ? other->value : plain_value()});
        }
        auto status = change(changes, {}, notes);
        return !status && means_full(status.error()) ? Result<>(full()) : std::move(status);
    };
    auto status = attempt();
    if (!status && means_full(status.error())) {
        NETCTL_TRY(forget_expired()); // nobody else takes out what ran out of time
        status = attempt();
    }
    NETCTL_TRY(std::move(status));
    written(given.all.size(), notes);
    return {};
}

Result<> Set::assign(std::vector<SetEntry> wanted, std::vector<std::string>& notes) const {
    const Split given = split(std::move(wanted));
    if (!fit(given.all, {}))
        return full();
    const bool has_base = !NETCTL_TRY(base_lines(Family::ipv4)).empty() ||
                          !NETCTL_TRY(base_lines(Family::ipv6)).empty();
    if (type_ == SetType::cidr && (has_base || given.plain.size() >= fold_at))
        return fold_with(given.plain, given.others, Fold::replace, notes);
    NETCTL_TRY(recover());
    const std::vector<SetEntry> present = NETCTL_TRY(live_entries());
    std::vector<Change> changes;
    std::size_t fresh = 0;
    for (const SetElement& element : given.all) {
        const SetEntry* other = find_entry(given.others, element);
        const SetEntry* entry = find_entry(present, element);
        if (!other && entry && is_plain(entry->value))
            continue; // it is there as it should be
        changes.push_back({element, other ? other->value : plain_value()});
        fresh++;
    }
    for (const SetEntry& entry : present)
        if (!std::binary_search(given.all.begin(), given.all.end(), entry.element))
            changes.push_back({entry.element, std::nullopt});
    auto status = change(changes, {}, notes);
    if (!status && means_full(status.error()))
        return Error::failed(
            fmt::format("set '{}' has no room for its old and its new elements at once", name_),
            "make a larger one with `netctl set create --size N`; this one is as it was");
    NETCTL_TRY(std::move(status));
    written(fresh, notes);
    return {};
}

Set::Split Set::split(std::vector<SetEntry> entries) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const SetEntry& a, const SetEntry& b) { return a.element < b.element; });
    Split given;
    for (const SetEntry& entry : entries) {
        if (!given.all.empty() && given.all.back() == entry.element)
            continue;
        given.all.push_back(entry.element);
        if (is_plain(entry.value))
            given.plain.push_back(entry.element);
        else
            given.others.push_back(entry);
    }
    return given;
}

nc_set_value Set::plain_value() const {
    return {0, type_ == SetType::cidr ? folded : 0};
}

Result<> Set::remove(std::vector<SetElement> elements, Missing if_missing,
                     std::vector<std::string>& notes) const {
    std::sort(elements.begin(), elements.end());
    elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
    std::vector<Change> changes;
    std::vector<std::string> missing;
    std::size_t taken = 0;
    for (const SetElement& element : elements) {
        const auto live = NETCTL_TRY(live_value(element));
        const bool based = NETCTL_TRY(in_base(element));
        // What is live goes before the base, also what was taken out of it, or ran out.
        if (based ? live && expired(*live) : !live) {
            missing.push_back(to_string(element));
        } else if (based) {
            changes.push_back({element, taken_out});
            taken++;
        } else {
            changes.push_back({element, std::nullopt});
        }
    }
    if (!missing.empty() && if_missing == Missing::fail)
        return Error::failed(fmt::format("not in set '{}': {}", name_, fmt::join(missing, ", ")),
                             elements.size() == missing.size() ? "" : "the others are left in it");
    NETCTL_TRY(change(changes, {}, notes));
    if (taken > 0)
        written(taken, notes);
    return {};
}

Result<bool> Set::contains(const SetElement& element) const {
    // As the datapath does it (lib/sets.h): the longest prefix that has not expired decides.
    if (type_ != SetType::cidr) {
        const auto value = NETCTL_TRY(live_value(element));
        return value && !expired(*value) && (value->flags & NC_SET_ABSENT) == 0;
    }
    const Prefix& asked = std::get<Prefix>(element);
    auto lengths = base_lengths(NETCTL_TRY(base_lines(asked.address.family)), asked.address);
    std::array<const SetEntry*, 129> live{};
    const std::vector<SetEntry> entries = NETCTL_TRY(live_entries());
    for (const SetEntry& entry : entries)
        if (std::get<Prefix>(entry.element).contains(asked.address))
            live[std::get<Prefix>(entry.element).length] = &entry;
    for (int length = asked.length; length >= 0; length--) {
        const auto place = static_cast<std::size_t>(length);
        if (live[place]) {
            if (!expired(live[place]->value))
                return (live[place]->value.flags & NC_SET_ABSENT) == 0;
        } else if (lengths[place / 64] >> place % 64 & 1) {
            return true;
        }
    }
    return false;
}

std::vector<std::pair<const bpf::RawMap*, Family>> Set::live_maps() const {
    if (type_ == SetType::port)
        return {{&ports_, Family::ipv4}};
    return {{&v4_, Family::ipv4}, {&v6_, Family::ipv6}};
}

Result<std::vector<SetEntry>> Set::stored_entries() const {
    std::vector<SetEntry> entries;
    for (const auto& [map, family] : live_maps()) {
        const bpf::MapKeys keys = NETCTL_TRY(map->keys());
        for (const std::uint8_t* key : keys) {
            SetEntry entry{element_of(type_, family, key), {}};
            // An element that another tool removed meanwhile is no longer one.
            if (NETCTL_TRY(map->lookup(key, &entry.value)))
                entries.push_back(entry);
        }
    }
    sort_entries(entries);
    return entries;
}

Result<std::vector<SetEntry>> Set::live_entries() const {
    std::vector<SetEntry> entries = NETCTL_TRY(stored_entries());
    const std::uint16_t turns = bases_->turns(number_);
    for (SetEntry& entry : entries)
        entry.value = nc_set_in_force(entry.value, turns);
    std::erase_if(entries,
                  [](const SetEntry& entry) { return (entry.value.flags & NC_SET_NONE) != 0; });
    return entries;
}

Result<std::optional<nc_set_value>> Set::stored_value(const SetElement& element) const {
    if (type_ != SetType::cidr) {
        nc_set_value value{};
        return NETCTL_TRY(map_for(element).lookup(key_of(type_, element).bytes.data(), &value))
                   ? std::optional(value)
                   : std::nullopt;
    }
    // A trie gives the value of the longest element that covers the key, not of the key alone; but
    // where it has none, there is not this one either.
    if (!stored_) {
        nc_set_value any{};
        if (!NETCTL_TRY(map_for(element).lookup(key_of(type_, element).bytes.data(), &any)))
            return std::optional<nc_set_value>();
        stored_ = NETCTL_TRY(stored_entries());
    }
    const SetEntry* entry = find_entry(*stored_, element);
    return entry ? std::optional(entry->value) : std::nullopt;
}

Result<std::optional<nc_set_value>> Set::live_value(const SetElement& element) const {
    const auto stored = NETCTL_TRY(stored_value(element));
    if (!stored)
        return std::optional<nc_set_value>();
    const nc_set_value value = nc_set_in_force(*stored, bases_->turns(number_));
    return value.flags & NC_SET_NONE ? std::optional<nc_set_value>() : std::optional(value);
}

Result<std::uint32_t> Set::count() const {
    std::size_t most = 0;
    for (const auto& [map, family] : live_maps()) {
        const bpf::MapKeys keys = NETCTL_TRY(map->keys());
        most = std::max(most, keys.size());
    }
    return static_cast<std::uint32_t>(most);
}

Result<bool> Set::surely_fit(std::size_t more) const {
    std::size_t most = more; // in the base of a family
    for (const Family family : {Family::ipv4, Family::ipv6})
        if (const nc_base_head* head = base_head(NETCTL_TRY(base_lines(family))))
            most = std::max<std::size_t>(most, head->elements + more);
    nc_set_info now = NETCTL_TRY(info());
    if (most + now.counted <= max_entries_ && max_entries_ > quickly_counted)
        return true;
    now.counted = NETCTL_TRY(count());
    NETCTL_TRY(set_info(now));
    return most + now.counted <= max_entries_;
}

Result<std::vector<SetEntry>> Set::entries() const {
    std::vector<SetEntry> live = NETCTL_TRY(live_entries());
    std::vector<SetEntry> all;
    for (const Family family : {Family::ipv4, Family::ipv6})
        for (const Prefix& prefix : base_elements(NETCTL_TRY(base_lines(family))))
            if (live.empty() || !find_entry(live, SetElement(prefix)))
                all.push_back({SetElement(prefix), {}});
    const auto middle = static_cast<std::ptrdiff_t>(all.size());
    // What takes an element out of the base is none itself.
    for (const SetEntry& entry : live)
        if (!expired(entry.value) ||
            !((entry.value.flags & NC_SET_FOLD) || NETCTL_TRY(in_base(entry.element))))
            all.push_back(entry);
    std::inplace_merge(all.begin(), all.begin() + middle, all.end(),
                       [](const SetEntry& a, const SetEntry& b) { return a.element < b.element; });
    return all;
}

Result<Set::Size> Set::size_of(const std::vector<SetEntry>& live) const {
    Size size;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const auto lines = NETCTL_TRY(base_lines(family));
        if (const nc_base_head* head = base_head(lines))
            size.base += head->elements;
        size.bytes += lines.size_bytes();
    }
    size.live = live.size();
    size.bytes += live.size() * (type_ == SetType::cidr ? bytes_in_trie : bytes_in_hash);
    size.elements = size.base;
    for (const SetEntry& entry : live) {
        const bool based = NETCTL_TRY(in_base(entry.element));
        const bool gone = expired(entry.value) && (based || (entry.value.flags & NC_SET_FOLD));
        if (based && gone)
            size.elements--;
        else if (!based && !gone)
            size.elements++;
    }
    return size;
}

Result<Set::Size> Set::size() const {
    Size size = NETCTL_TRY(size_of(NETCTL_TRY(live_entries())));
    // A hash has its table whether there is something in it or not.
    if (type_ == SetType::host || type_ == SetType::name)
        for (std::uint64_t buckets = 1; buckets < 2ULL * room_of(max_entries_); buckets *= 2)
            if (buckets >= room_of(max_entries_)) {
                size.bytes += 2 * 16 * buckets;
                break;
            }
    return size;
}

} // namespace netctl::datapath
