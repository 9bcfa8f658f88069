// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <grp.h>

#include <fmt/format.h>

#include "core/transaction.hpp"
#include "datapath/point.hpp"
#include "datapath/set_text.hpp"
#include "features/set/countries.hpp"
#include "sys/mmdb.hpp"
#include "sys/netns.hpp"

namespace netctl::set {

using datapath::LockedRoot;
using datapath::Root;
using datapath::Set;
using datapath::SetElement;
using datapath::SetType;

namespace {

/// The elements that the words of a command name.
Result<std::vector<SetElement>> parse_all(datapath::SetType type,
                                          const std::vector<std::string>& texts) {
    std::vector<SetElement> elements;
    for (const std::string& text : texts)
        elements.push_back(NETCTL_TRY(datapath::parse_element(type, text)));
    return elements;
}

Result<std::uint32_t> find_group(const std::string& text) {
    std::uint32_t id = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (status == std::errc{} && end == text.data() + text.size())
        return id;
    if (const group* found = getgrnam(text.c_str()))
        return found->gr_gid;
    return Error::usage(fmt::format("there is no group '{}'", text),
                        "a name of /etc/group, or a number");
}

/// Raises the root's generation, behind a commit.
void raise_generation(const LockedRoot& root, Aftermath& after) {
    after.value("the root's generation", root.next_generation(), std::uint64_t{0});
}

Result<std::vector<WantedName>> parse_names(const std::vector<std::string>& texts) {
    std::vector<WantedName> names;
    for (const std::string& text : texts)
        names.push_back(NETCTL_TRY(parse_wanted_name(text)));
    return names;
}

/// Not beside another change, nor a reader. `name_them` is for sets of names.
template <class Make, class NameThem>
Result<ChangeReport> change(const RootOptions& options, const std::string& name,
                            const std::vector<std::string>& texts, const Make& make,
                            const NameThem& name_them) {
    ChangeReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(options));
    const Set set = NETCTL_TRY(Set::open(root, name));
    report.elements = texts.size();
    if (set.type() == SetType::name)
        NETCTL_TRY(name_them(set, NETCTL_TRY(Names::open(root, name)),
                             NETCTL_TRY(parse_names(texts)), report));
    else
        NETCTL_TRY(make(set, NETCTL_TRY(parse_all(set.type(), texts)), report));
    return report;
}

/// What is about the elements that a set has, and not about how a set of names comes by them.
Result<Set> open_unnamed(const Root& root, const std::string& name, const char* command) {
    Set set = NETCTL_TRY(Set::open(root, name));
    if (set.type() == SetType::name)
        return Error::usage(
            fmt::format("set '{}' holds names: `set {}` is not for it", name, command),
            "`set add` and `set delete` take names, answers of DNS bring the "
            "addresses");
    return set;
}

Result<Names> open_names(const Root& root, const std::string& name) {
    if (NETCTL_TRY(Set::open(root, name)).type() != SetType::name)
        return Error::failed(fmt::format("set '{}' does not hold names", name),
                             "`netctl set create NAME --type name` makes one that does");
    return Names::open(root, name);
}

} // namespace

Result<std::vector<std::string>> Controller::create(const std::string& name, datapath::SetType type,
                                                    std::uint32_t max_entries,
                                                    const std::string& group,
                                                    const NameRequest& names) {
    std::vector<std::string> notes;
    std::optional<std::uint32_t> id;
    if (!group.empty())
        id = NETCTL_TRY(find_group(group));
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_));
    const auto start = [&](const bpf::PinDir& dir) -> Result<> {
        return Names::start(dir, NETCTL_TRY(dir.open_map("v4")), NETCTL_TRY(dir.open_map("v6")),
                            max_entries, names);
    };
    NETCTL_TRY(Set::create(root, name, type, max_entries, id,
                           type == SetType::name ? Set::Furnish(start) : nullptr));
    Aftermath after(notes);
    raise_generation(root, after);
    return notes;
}

Result<std::vector<std::string>> Controller::change_group(const std::string& name,
                                                          const std::string& group) {
    std::vector<std::string> notes;
    const std::uint32_t id = NETCTL_TRY(find_group(group));
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    NETCTL_TRY(Set::give_to_group(root, name, id));
    Aftermath after(notes);
    raise_generation(root, after);
    return notes;
}

Result<std::vector<std::string>> Controller::destroy(const std::string& name) {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const std::vector<std::string> users = NETCTL_TRY(datapath::users_of_set(root, name));
    if (!users.empty())
        return Error::failed(fmt::format("set '{}' is in use by {}", name, fmt::join(users, ", ")),
                             "delete these rules first");
    NETCTL_TRY(Set::destroy(root, name, notes));
    Aftermath after(notes);
    raise_generation(root, after);
    return notes;
}

Result<ChangeReport> Controller::add(const std::string& name, const std::vector<std::string>& texts,
                                     std::uint32_t ttl_seconds) {
    nc_set_value value{};
    if (ttl_seconds > 0)
        value.expires = datapath::boottime_seconds() + ttl_seconds;
    return change(
        root_, name, texts,
        [&](const Set& set, const std::vector<SetElement>& elements,
            ChangeReport& report) -> Result<> {
            report.spared = NETCTL_TRY(set.add(elements, value, report.notes));
            return {};
        },
        [&](const Set&, const Names& own, const std::vector<WantedName>& names,
            ChangeReport& report) -> Result<> {
            if (ttl_seconds != 0)
                return Error::usage("names have no time to live: their addresses have",
                                    "`set create --grace` says how much longer these stay");
            return own.add(names, report.notes);
        });
}

Result<ChangeReport> Controller::remove(const std::string& name,
                                        const std::vector<std::string>& texts,
                                        Set::Missing missing) {
    return change(
        root_, name, texts,
        [&](const Set& set, const std::vector<SetElement>& elements, ChangeReport& report) {
            return set.remove(elements, missing, report.notes);
        },
        [&](const Set& set, const Names& own, const std::vector<WantedName>& names,
            ChangeReport& report) { return own.remove(names, missing, set, report.notes); });
}

Result<std::vector<std::string>> Controller::fold(const std::string& name) {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    NETCTL_TRY(NETCTL_TRY(open_unnamed(root, name, "fold")).fold(true, notes));
    return notes;
}

Result<std::vector<SetStatus>> Controller::list() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    std::vector<SetStatus> all;
    for (const std::string& name : Set::list(root)) {
        const Set set = NETCTL_TRY(Set::open(root, name));
        SetStatus status{name, set.type(), set.max_entries(), NETCTL_TRY(set.size()), {}};
        auto users = datapath::users_of_set(root, name);
        if (users)
            status.users = std::move(*users);
        else if (users.error().code != EACCES) // a group's user may see sets, and nothing else
            return std::move(users).error();
        if (set.type() == SetType::name && users)
            status.names = NETCTL_TRY(NETCTL_TRY(Names::open(root, name)).status());
        all.push_back(std::move(status));
    }
    return all;
}

Result<NameStatus> Controller::names(const std::string& name) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    return NETCTL_TRY(open_names(root, name)).status();
}

Result<Listing> Controller::entries(const std::string& name) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    if (set.type() != SetType::name)
        return Listing{.entries = NETCTL_TRY(set.entries())};
    const Names own = NETCTL_TRY(Names::open(root, name));
    std::vector<datapath::SetEntry> entries = NETCTL_TRY(set.entries());
    const std::vector<LearntAddress> learnt = NETCTL_TRY(own.learnt());
    std::vector<NamedEntry> all;
    const auto take = [&](const LearntAddress& from) -> std::optional<datapath::SetEntry> {
        const SetElement element =
            Prefix{from.address, static_cast<std::uint8_t>(from.address.bits())};
        const auto found = std::ranges::find(entries, element, &datapath::SetEntry::element);
        if (found == entries.end())
            return std::nullopt;
        const datapath::SetEntry entry = *found;
        entries.erase(found);
        return entry;
    };
    for (const WantedName& wanted : NETCTL_TRY(own.names())) {
        bool any = false;
        for (const LearntAddress& from : learnt)
            if (wanted.covers(from.asked))
                if (const auto entry = take(from)) {
                    all.push_back({wanted, from, entry});
                    any = true;
                }
        if (!any)
            all.push_back({wanted, std::nullopt, std::nullopt});
    }
    for (const datapath::SetEntry& entry : entries)
        all.push_back({std::nullopt, std::nullopt, entry});
    return Listing{.named = std::move(all)};
}

Result<std::vector<std::string>> Controller::set_resolvers(const std::string& name,
                                                           const std::vector<Address>& resolvers,
                                                           const std::string& netns) const {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Names own = NETCTL_TRY(open_names(root, name));
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns));
    NETCTL_TRY(own.set_resolvers(resolvers, notes));
    return notes;
}

Result<std::vector<Resolved>> Controller::resolve(const std::string& name,
                                                  const std::string& netns) const {
    const auto open = [&]() -> Result<Names> {
        const Root root = NETCTL_TRY(Root::open(root_));
        return open_names(root, name);
    };
    const Names own = NETCTL_TRY(open()); // answers are waited for without the lock
    std::vector<WantedName> names = NETCTL_TRY(own.names());
    std::erase_if(names, [](const WantedName& one) { return one.below; });
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns));
    return own.resolve(names);
}

Result<bool> Controller::test(const std::string& name, const std::string& text) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const Set set = NETCTL_TRY(Set::open(root, name));
    if (set.type() == SetType::name && !Address::parse(text)) {
        const WantedName asked = NETCTL_TRY(parse_wanted_name(text));
        const auto wanted = NETCTL_TRY(NETCTL_TRY(Names::open(root, name)).names());
        return std::ranges::any_of(wanted, [&](const WantedName& one) {
            return one == asked || (!asked.below && one.covers(asked.name));
        });
    }
    return set.contains(NETCTL_TRY(datapath::parse_element(set.type(), text)));
}

namespace {

/// All errors as one, those of bad lines first.
Error unreadable(const std::vector<Error>& errors, std::size_t bad) {
    Error all = Error::usage({}, errors.front().hint);
    for (const Error& error : errors)
        all.what += all.what.empty() ? error.what : Text::format("\n{}", error.what);
    if (bad > errors.size())
        all.what += Text::format("\nand {} more", bad - errors.size());
    if (bad > 1)
        all.hint =
            Text::format("{} lines cannot be read, and nothing is changed; --skip-bad leaves them "
                         "out",
                         bad);
    return all;
}

std::vector<datapath::SetEntry> entries_of(const std::vector<datapath::ListedElement>& listed) {
    const std::uint32_t now = datapath::boottime_seconds();
    std::vector<datapath::SetEntry> entries;
    for (const datapath::ListedElement& one : listed)
        entries.push_back(
            {one.element,
             {one.ttl == 0 ? 0 : now + one.ttl, one.absent ? std::uint32_t{NC_SET_ABSENT} : 0}});
    return entries;
}

struct ReadLists {
    std::vector<datapath::SetEntry> entries; ///< sorted, of equal elements one
    std::size_t skipped = 0;
    std::vector<Error> bad;
};

/// Fails if there is a line that cannot be read, unless those are skipped. `read_one` reads a list.
template <class Read>
Result<ReadLists> read_lists(const std::vector<ElementList>& lists, bool skip_bad,
                             const Read& read_one) {
    ReadLists all;
    std::vector<datapath::ListedElement> elements;
    for (const ElementList& list : lists) {
        datapath::ReadElements read = read_one(list);
        all.skipped += read.bad;
        for (Error& error : read.errors)
            if (all.bad.size() < datapath::most_errors)
                all.bad.push_back(std::move(error));
        elements.insert(elements.end(), read.elements.begin(), read.elements.end());
    }
    if (all.skipped > 0 && !skip_bad)
        return unreadable(all.bad, all.skipped);
    datapath::sort_listed(elements);
    all.entries = entries_of(elements);
    return all;
}

Result<ReadLists> read_lists(datapath::SetType type, const std::vector<ElementList>& lists,
                             bool skip_bad) {
    return read_lists(lists, skip_bad, [&](const ElementList& list) {
        return datapath::read_elements(type, list.text, list.source);
    });
}

Result<ReadLists> read_registries(const CountryRequest& request, bool skip_bad) {
    std::set<std::string> missing = request.countries;
    ReadLists read =
        NETCTL_TRY(read_lists(request.registries, skip_bad, [&](const ElementList& list) {
            RegistryNetworks one = read_registry(list.text, list.source, request.countries);
            for (const std::string& found : one.found)
                missing.erase(found);
            return std::move(one.read);
        }));
    if (!missing.empty())
        return Error::failed(fmt::format("there is no network of {} in {}", *missing.begin(),
                                         request.registries.front().source),
                             "codes of countries are those of ISO 3166: DE, FR");
    return read;
}

/// Merged to the fewest.
Result<ReadLists> read_countries(const CountryRequest& request, bool skip_bad) {
    ReadLists read;
    std::vector<Prefix> networks;
    if (!request.mmdb.empty()) {
        networks = NETCTL_TRY(sys::mmdb_networks(request.mmdb, request.countries));
    } else {
        read = NETCTL_TRY(read_registries(request, skip_bad));
        for (const datapath::SetEntry& entry : read.entries)
            networks.push_back(std::get<Prefix>(entry.element));
        read.entries.clear();
    }
    for (const Prefix& prefix : fewest_prefixes(std::move(networks)))
        read.entries.push_back({prefix, {}});
    return read;
}

/// Puts what was read into the set.
Result<ImportReport> take(const Set& set, ReadLists read, const ImportOptions& options) {
    ImportReport report;
    report.skipped = read.skipped;
    report.bad = std::move(read.bad);
    report.elements = read.entries.size();
    if (options.replace)
        NETCTL_TRY(set.assign(std::move(read.entries), report.notes));
    else
        report.spared = NETCTL_TRY(set.add(std::move(read.entries), report.notes));
    return report;
}

/// Whether an element is a member or an exception, and whether for good.
std::pair<bool, bool> kind_of(const datapath::SetEntry& entry) {
    return {(entry.value.flags & NC_SET_ABSENT) != 0, entry.value.expires != 0};
}

} // namespace

Result<ImportReport> Controller::import(const std::string& name,
                                        const std::vector<ElementList>& lists,
                                        const ImportOptions& options) {
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set set = NETCTL_TRY(open_unnamed(root, name, "import"));
    ReadLists read = NETCTL_TRY(read_lists(set.type(), lists, options.skip_bad));
    if (read.entries.empty() && options.replace && !options.allow_empty)
        return Error::usage(
            fmt::format("there are no elements to replace those of set '{}' by", name),
            "--allow-empty empties it; an input that failed looks the same");
    return take(set, std::move(read), options);
}

Result<ImportReport> Controller::import_countries(const std::string& name,
                                                  const CountryRequest& request,
                                                  const ImportOptions& options) {
    // Without the lock: a database takes its time.
    ReadLists read = NETCTL_TRY(read_countries(request, options.skip_bad));
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set set = NETCTL_TRY(open_unnamed(root, name, "import"));
    if (set.type() != SetType::cidr)
        return Error::usage(fmt::format("set '{}' holds {}, and countries have networks", name,
                                        set.type() == SetType::host ? "addresses" : "ports"),
                            "`netctl set create NAME --type cidr` makes one for them");
    return take(set, std::move(read), options);
}

Result<DiffReport> Controller::diff(const std::string& name, const std::vector<ElementList>& lists,
                                    bool skip_bad) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const Set set = NETCTL_TRY(open_unnamed(root, name, "diff"));
    ReadLists read = NETCTL_TRY(read_lists(set.type(), lists, skip_bad));
    DiffReport report;
    report.skipped = read.skipped;
    report.bad = std::move(read.bad);
    std::vector<datapath::SetEntry> present = NETCTL_TRY(set.entries());
    const std::uint32_t now = datapath::boottime_seconds();
    std::erase_if(present, [&](const datapath::SetEntry& entry) {
        return entry.value.expires != 0 && entry.value.expires <= now;
    });
    // Both are sorted.
    auto old = present.begin();
    for (const datapath::SetEntry& entry : read.entries) {
        for (; old != present.end() && old->element < entry.element; ++old)
            report.removed.push_back(*old);
        if (old == present.end() || entry.element < old->element) {
            report.added.push_back(entry);
            continue;
        }
        if (kind_of(*old) != kind_of(entry))
            report.changed.push_back(entry);
        ++old;
    }
    report.removed.insert(report.removed.end(), old, present.end());
    return report;
}

Result<std::vector<std::string>> Controller::swap(const std::string& one,
                                                  const std::string& other) {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Set first = NETCTL_TRY(open_unnamed(root, one, "swap"));
    const Set second = NETCTL_TRY(open_unnamed(root, other, "swap"));
    NETCTL_TRY(Set::swap(first, second, notes));
    return notes;
}

} // namespace netctl::set
