// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/sets.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <netdb.h>
#include <netinet/in.h>

#include <fmt/format.h>

#include "bpf/standalone.hpp"

namespace netctl::datapath {

namespace {

constexpr std::uint32_t largest_set = 1U << 26;

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
    return prefix;
}

Result<> check_name(const std::string& name) {
    const bool fine = !name.empty() && name.size() <= 64 &&
                      std::all_of(name.begin(), name.end(), [](unsigned char c) {
                          return std::isalnum(c) || c == '_' || c == '-';
                      });
    if (fine)
        return {};
    return Error::usage(fmt::format("'{}' is no name for a set", name),
                        "1 to 64 letters, digits, '_' and '-'");
}

bpf::PinDir sets_dir(const Root& root) {
    return root.dir().sub("sets");
}

bool expired(const nc_set_value& value) {
    return value.expires != 0 && value.expires <= boottime_seconds();
}

bool means_full(const Error& error) {
    return error.code == E2BIG || error.code == ENOSPC;
}

/// `present` must be sorted.
const SetEntry* find_entry(const std::vector<SetEntry>& present, const SetElement& element) {
    const auto place = std::lower_bound(
        present.begin(), present.end(), element,
        [](const SetEntry& entry, const SetElement& wanted) { return entry.element < wanted; });
    return place != present.end() && place->element == element ? &*place : nullptr;
}

/// Calls `visit(key)` for each key; the key may be erased by the visit only after the walk.
template <class Visit> Result<> walk(const bpf::RawMap& map, const Visit& visit) {
    std::array<std::uint8_t, sizeof(nc_set_cidr6)> key{}, next{};
    bool more = NETCTL_TRY(map.next_key(nullptr, next.data()));
    while (more) {
        key = next;
        NETCTL_TRY(visit(key.data()));
        more = NETCTL_TRY(map.next_key(key.data(), next.data()));
    }
    return {};
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
    }
    return "unknown";
}

Result<SetType> parse_set_type(const std::string& text) {
    for (const SetType type : {SetType::host, SetType::cidr, SetType::port})
        if (text == to_string(type))
            return type;
    return Error::usage(fmt::format("'{}' is no type of set", text), "host, cidr or port");
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
    if (type == SetType::host && prefix->length != prefix->address.bits())
        return Error::usage(fmt::format("'{}' is a network, and the set holds addresses", text),
                            "a set of type cidr holds networks");
    return SetElement(*prefix);
}

Result<std::vector<SetElement>> parse_elements(SetType type, const std::string& text,
                                               const std::string& source) {
    std::vector<SetElement> elements;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        std::string line = text.substr(begin, end - begin);
        begin = end + 1;
        number++;
        line.erase(std::min(line.find('#'), line.size()));
        const auto first = line.find_first_not_of(" \t\r");
        if (first == std::string::npos)
            continue;
        line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
        auto element = parse_element(type, line);
        if (!element)
            return std::move(element).error().within(fmt::format("{}:{}", source, number));
        elements.push_back(*element);
    }
    std::sort(elements.begin(), elements.end());
    elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
    return elements;
}

std::vector<std::string> Set::list(const Root& root) {
    std::vector<std::string> names;
    for (const std::string& name : sets_dir(root).list())
        if (sets_dir(root).sub(name).has("info"))
            names.push_back(name);
    return names;
}

Result<Set> Set::open(const Root& root, const std::string& name) {
    NETCTL_TRY(check_name(name));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    if (!dir.has("info"))
        return Error::failed(
            fmt::format("there is no set '{}' under {}", name, root.dir().path()),
            fmt::format("make it with `netctl set create {} --type host|cidr|port`", name));
    const auto info_map = NETCTL_TRY((bpf::Map<std::uint32_t, nc_set_info>::wrap(
        NETCTL_TRY(bpf::RawMap::open(dir.path_of("info"))))));
    const auto info = NETCTL_TRY(info_map.lookup(0));
    if (!info || info->type < NC_SET_HOST || info->type > NC_SET_PORT)
        return Error::failed(fmt::format("set '{}' has an unknown type", name));
    Set set;
    set.name_ = name;
    set.type_ = static_cast<SetType>(info->type);
    set.max_entries_ = info->max_entries;
    if (set.type_ == SetType::port) {
        set.ports_ = NETCTL_TRY(bpf::RawMap::open(dir.path_of("ports")));
    } else {
        set.v4_ = NETCTL_TRY(bpf::RawMap::open(dir.path_of("v4")));
        set.v6_ = NETCTL_TRY(bpf::RawMap::open(dir.path_of("v6")));
    }
    return set;
}

Result<Set> Set::create(const LockedRoot& root, const std::string& name, SetType type,
                        std::uint32_t max_entries) {
    NETCTL_TRY(check_name(name));
    if (max_entries == 0 || max_entries > largest_set)
        return Error::usage(fmt::format("a set holds 1 to {} elements", largest_set));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    if (dir.has("info"))
        return Error::failed(fmt::format("there is a set '{}' already", name));
    NETCTL_TRY(dir.remove_all()); // left by a writer that was killed
    NETCTL_TRY(dir.create());
    if (type == SetType::port) {
        const auto map = NETCTL_TRY(bpf::create_standalone("set_ports", 65536));
        NETCTL_TRY(dir.replace("ports", map));
        max_entries = 65536;
    } else {
        const std::string form = type == SetType::host ? "set_host" : "set_cidr";
        const auto v4 = NETCTL_TRY(bpf::create_standalone(form + "4", max_entries));
        const auto v6 = NETCTL_TRY(bpf::create_standalone(form + "6", max_entries));
        NETCTL_TRY(dir.replace("v4", v4));
        NETCTL_TRY(dir.replace("v6", v6));
    }
    // `info` is what makes it a set: it comes last.
    const auto info_map = NETCTL_TRY(bpf::create_standalone("set_info", 1));
    const std::uint32_t zero = 0;
    const nc_set_info info{NC_ABI_VERSION, static_cast<std::uint32_t>(type), max_entries, 0};
    NETCTL_TRY(info_map.update(&zero, &info));
    NETCTL_TRY(dir.replace("info", info_map));
    return open(root, name);
}

Result<> Set::destroy(const LockedRoot& root, const std::string& name) {
    NETCTL_TRY(open(root, name));
    const bpf::PinDir dir = sets_dir(root).sub(name);
    NETCTL_TRY(dir.unpin("info")); // first: half a set is none
    NETCTL_TRY(dir.remove_all());
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

Result<> Set::write(const std::vector<SetElement>& elements, nc_set_value value) const {
    // One batch a map, keys side by side.
    for (const bpf::RawMap* map : {&v4_, &v6_, &ports_}) {
        std::vector<std::uint8_t> keys;
        std::size_t key_size = 0;
        std::uint32_t count = 0;
        for (const SetElement& element : elements) {
            if (&map_for(element) != map)
                continue;
            const ElementKey key = key_of(type_, element);
            keys.insert(keys.end(), key.bytes.begin(),
                        key.bytes.begin() + static_cast<std::ptrdiff_t>(key.size));
            key_size = key.size;
            count++;
        }
        if (count == 0)
            continue;
        const std::vector<nc_set_value> values(count, value);
        auto status =
            map->update_batch(keys.data(), values.data(), count, key_size, sizeof(nc_set_value));
        if (!status && means_full(status.error()))
            return full();
        NETCTL_TRY(std::move(status));
    }
    return {};
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

Result<> Set::forget_expired() const {
    for (const SetEntry& entry : NETCTL_TRY(entries()))
        if (expired(entry.value))
            NETCTL_TRY(remove(entry.element));
    return {};
}

Result<> Set::add(std::vector<SetElement> elements, nc_set_value value) const {
    std::sort(elements.begin(), elements.end());
    elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
    const auto attempt = [&]() -> Result<> {
        // A single write does all or nothing; of several it must be known before that they fit.
        if (elements.size() > 1 && !fit(elements, NETCTL_TRY(entries())))
            return full();
        return write(elements, value);
    };
    auto status = attempt();
    if (status || !means_full(status.error()))
        return status;
    NETCTL_TRY(forget_expired()); // nobody else takes out what ran out of time
    return attempt();
}

Result<> Set::assign(std::vector<SetElement> elements) const {
    std::sort(elements.begin(), elements.end());
    elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
    if (!fit(elements, {}))
        return full();
    const std::vector<SetEntry> present = NETCTL_TRY(entries());
    // What is there as it should be is left alone: full tries refuse it before kernel 6.13.
    std::vector<SetElement> fresh;
    for (const SetElement& element : elements) {
        const SetEntry* entry = find_entry(present, element);
        if (!entry || entry->value.expires != 0 || entry->value.flags != 0)
            fresh.push_back(element);
    }
    const auto remove_others = [&]() -> Result<> {
        for (const SetEntry& entry : present)
            if (!std::binary_search(elements.begin(), elements.end(), entry.element))
                NETCTL_TRY(remove(entry.element));
        return {};
    };
    // New ones first, so that nothing is missing for a moment that a narrower or wider prefix takes
    // over; unless there is no room for both.
    if (fit(elements, present)) {
        NETCTL_TRY(write(fresh, {}));
        return remove_others();
    }
    NETCTL_TRY(remove_others());
    return write(fresh, {});
}

Result<bool> Set::remove(const SetElement& element) const {
    const ElementKey key = key_of(type_, element);
    return map_for(element).erase(key.bytes.data());
}

Result<bool> Set::contains(const SetElement& element) const {
    // As the datapath does it (lib/sets.h): the longest prefix that has not expired decides.
    SetElement asked = element;
    for (;;) {
        const ElementKey key = key_of(type_, asked);
        nc_set_value value{};
        if (!NETCTL_TRY(map_for(asked).lookup(key.bytes.data(), &value)))
            return false;
        if (!expired(value))
            return (value.flags & NC_SET_ABSENT) == 0;
        auto* prefix = std::get_if<Prefix>(&asked);
        if (type_ != SetType::cidr || prefix->length == 0)
            return false;
        prefix->length--;
    }
}

Result<std::vector<SetEntry>> Set::entries() const {
    std::vector<SetEntry> entries;
    const auto read = [&](const bpf::RawMap& map, Family family) -> Result<> {
        if (!map)
            return {};
        return walk(map, [&](const std::uint8_t* key) -> Result<> {
            SetEntry entry{element_of(type_, family, key), {}};
            // An element that another tool removed during the walk is no longer one.
            if (NETCTL_TRY(map.lookup(key, &entry.value)))
                entries.push_back(entry);
            return {};
        });
    };
    NETCTL_TRY(read(ports_, Family::ipv4));
    NETCTL_TRY(read(v4_, Family::ipv4));
    NETCTL_TRY(read(v6_, Family::ipv6));
    std::sort(entries.begin(), entries.end(),
              [](const SetEntry& a, const SetEntry& b) { return a.element < b.element; });
    return entries;
}

} // namespace netctl::datapath
