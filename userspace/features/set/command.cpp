// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "core/command.hpp"
#include "core/duration.hpp"
#include "core/json.hpp"
#include "datapath/set_text.hpp"
#include "features/set/controller.hpp"
#include "features/set/countries.hpp"
#include "features/set/watch.hpp"
#include "sys/clock.hpp"
#include "sys/stop.hpp"
#include "sys/text_file.hpp"

namespace netctl::set {

namespace {

using datapath::SetEntry;
using Count = Positional::Count;

/// Addresses with commas between them; none of an empty text.
Result<std::vector<Address>> parse_resolvers(std::string_view text) {
    std::vector<Address> resolvers;
    while (!text.empty()) {
        const std::size_t comma = std::min(text.find(','), text.size());
        resolvers.push_back(NETCTL_TRY(Address::parse(text.substr(0, comma))));
        text.remove_prefix(std::min(comma + 1, text.size()));
    }
    return resolvers;
}

Result<int> create(const Arguments& arguments, Context& context) {
    if (!arguments.has("type"))
        return Error::usage("--type is missing", "host, cidr, port or name");
    const auto type = NETCTL_TRY(datapath::parse_set_type(arguments.get("type")));
    const std::uint64_t size =
        NETCTL_TRY(arguments.number("size", default_size(type), 1, std::uint64_t{1} << 26));
    if (type != datapath::SetType::name && (arguments.has("resolver") || arguments.has("grace")))
        return Error::usage("--resolver and --grace are about sets of type name");
    NameRequest names{.netns = context.netns};
    names.resolvers = NETCTL_TRY(parse_resolvers(arguments.get("resolver")));
    if (arguments.has("grace"))
        names.grace = static_cast<std::uint32_t>(
            std::chrono::floor<std::chrono::seconds>(
                NETCTL_TRY(parse_duration("grace", arguments.get("grace"), std::chrono::seconds(0),
                                          std::chrono::hours(24 * 7))))
                .count());
    Controller controller(context.root);
    context.out.notes(NETCTL_TRY(controller.create(
        arguments["NAME"], type, static_cast<std::uint32_t>(size), arguments.get("group"), names)));
    context.out.done(
        fmt::format("set '{}' made, type {}", arguments["NAME"], datapath::to_string(type)));
    return 0;
}

Result<int> change_group(const Arguments& arguments, Context& context) {
    context.out.notes(
        NETCTL_TRY(Controller(context.root).change_group(arguments["NAME"], arguments["GROUP"])));
    return 0;
}

Result<int> destroy(const Arguments& arguments, Context& context) {
    context.out.notes(NETCTL_TRY(Controller(context.root).destroy(arguments["NAME"])));
    return 0;
}

/// Says of what a time to live was not taken; a few by name.
void tell_spared(const ChangeReport& report, const std::string& set, Context& context) {
    if (report.spared.empty())
        return;
    constexpr std::size_t most_named = 3;
    Text what;
    for (std::size_t i = 0; i < std::min(report.spared.size(), most_named); i++)
        what += Text::format("{}{}", i == 0 ? "" : ", ", datapath::to_string(report.spared[i]));
    if (report.spared.size() > most_named)
        what += Text::format(" and {} more", report.spared.size() - most_named);
    context.out.note(Text::format("in set '{}' for good already, and left so: {}", set, what));
}

Result<int> add(const Arguments& arguments, Context& context) {
    std::uint32_t ttl = 0;
    if (arguments.has("ttl"))
        ttl = NETCTL_TRY(datapath::parse_ttl(arguments.get("ttl")));
    if (arguments.rest().empty())
        return Error::usage("the element is missing");
    const ChangeReport report =
        NETCTL_TRY(Controller(context.root).add(arguments["NAME"], arguments.rest(), ttl));
    context.out.notes(report.notes);
    if (!arguments.has("exist"))
        tell_spared(report, arguments["NAME"], context);
    return 0;
}

Result<int> remove(const Arguments& arguments, Context& context) {
    if (arguments.rest().empty())
        return Error::usage("the element is missing");
    const ChangeReport report =
        NETCTL_TRY(Controller(context.root)
                       .remove(arguments["NAME"], arguments.rest(),
                               arguments.has("exist") ? datapath::Set::Missing::ignore
                                                      : datapath::Set::Missing::fail));
    context.out.notes(report.notes);
    return 0;
}

Json entry_json(const SetEntry& entry) {
    const std::uint32_t now = datapath::boottime_seconds();
    Json expires_in;
    if (entry.value.expires != 0)
        expires_in = entry.value.expires > now ? entry.value.expires - now : 0;
    return {{"element", datapath::to_string(entry.element)},
            {"expires_in", expires_in},
            {"absent", (entry.value.flags & NC_SET_ABSENT) != 0}};
}

Json entries_json(const std::vector<SetEntry>& entries) {
    Json json = Json::array();
    for (const SetEntry& entry : entries)
        json.push_back(entry_json(entry));
    return json;
}

/// An element with its end, in a line.
Text entry_words(const SetEntry& entry) {
    Text text = datapath::to_string(entry.element);
    const std::uint32_t now = datapath::boottime_seconds();
    if (entry.value.expires != 0)
        text += entry.value.expires > now
                    ? Text::format("  expires in {} s", entry.value.expires - now)
                    : "  expired";
    if ((entry.value.flags & NC_SET_ABSENT) != 0)
        text += "  absent";
    return text;
}

Result<int> fold(const Arguments& arguments, Context& context) {
    context.out.notes(NETCTL_TRY(Controller(context.root).fold(arguments["NAME"])));
    return 0;
}

/// Those that end first come first, those that are there for good last; else as they were.
void sort_by_end(std::vector<SetEntry>& entries) {
    std::stable_sort(entries.begin(), entries.end(), [](const SetEntry& a, const SetEntry& b) {
        return a.value.expires - 1 < b.value.expires - 1; // 0, which is never, is the greatest
    });
}

/// Seconds until an element runs out: null if it never does.
Json time_left(const SetEntry& entry) {
    const std::uint32_t now = datapath::boottime_seconds();
    if (entry.value.expires == 0)
        return {};
    return entry.value.expires > now ? entry.value.expires - now : 0;
}

std::string seconds_text(const Json& seconds) {
    return seconds.is_null() ? "" : fmt::format("{} s", seconds.get<std::uint32_t>());
}

Json names_json(const NameStatus& status) {
    Json names = Json::array(), resolvers = Json::array();
    for (const WantedName& name : status.names)
        names.push_back(name.to_string());
    for (const Resolver& resolver : status.resolvers)
        resolvers.push_back({{"address", resolver.address.to_string()}, {"local", resolver.local}});
    const nc_name_stats& stats = status.stats;
    return {{"names", names},
            {"resolvers", resolvers},
            {"grace", status.settings.grace},
            {"netns", status.settings.netns},
            {"questions", stats.questions},
            {"answers", stats.answers},
            {"learnt", stats.learnt},
            {"refreshed", stats.refreshed},
            {"unasked", stats.unasked},
            {"astray", stats.astray},
            {"truncated", stats.truncated},
            {"cut", stats.cut},
            {"unreadable", stats.unreadable},
            {"full", stats.full},
            {"failed", stats.failed},
            {"trouble", status.trouble.empty() ? Json() : Json(status.trouble)}};
}

Text names_text(const std::string& set, const NameStatus& status) {
    std::string resolvers;
    for (const Resolver& resolver : status.resolvers)
        resolvers += (resolvers.empty() ? "" : ", ") + resolver.address.to_string();
    const nc_name_stats& stats = status.stats;
    Text text = Text::format("{}: {} names, grace {} s, believes {}; {} answers to {} questions\n",
                             set, status.names.size(), status.settings.grace, resolvers,
                             stats.answers, stats.questions);
    const auto rare = [&](std::uint64_t count, const char* what) {
        if (count != 0)
            text += Text::format("  {} {}\n", count, what);
    };
    rare(stats.unasked, "answers that nobody had asked for: not believed");
    rare(stats.astray, "answers by loopback in the name of another host: not believed");
    rare(stats.truncated, "answers truncated: who asks over TCP then is not heard");
    rare(stats.cut, "answers too long to be read to the end");
    rare(stats.unreadable, "messages that contradict themselves");
    rare(stats.full, "addresses for which there was no room");
    rare(stats.failed, "messages not read: too many at once");
    if (!status.trouble.empty())
        text += Text::format("  {}\n", status.trouble);
    return text;
}

Result<int> list_names(const std::vector<NamedEntry>& entries, Context& context) {
    const std::uint32_t now = datapath::boottime_seconds();
    Json json = Json::array();
    TextTable table({{"name"}, {"address"}, {"asked for"}, {"age", true}, {"left", true}});
    for (const NamedEntry& one : entries) {
        const std::string name = one.name ? one.name->to_string() : "";
        const std::string asked = one.learnt ? to_string(one.learnt->asked) : "";
        const Json age = one.learnt ? Json(now - std::min(one.learnt->since, now)) : Json();
        const std::string element = one.entry ? datapath::to_string(one.entry->element) : "";
        const Json left = one.entry ? time_left(*one.entry) : Json();
        const bool absent = one.entry && (one.entry->value.flags & NC_SET_ABSENT) != 0;
        json.push_back({{"name", one.name ? Json(name) : Json()},
                        {"element", one.entry ? Json(element) : Json()},
                        {"asked", one.learnt ? Json(asked) : Json()},
                        {"age", age},
                        {"expires_in", left},
                        {"absent", absent}});
        table.row({name, element + (absent ? " (absent)" : ""), asked == name ? "" : asked,
                   seconds_text(age), seconds_text(left)});
    }
    context.out.document(json, table.empty() ? "" : table.render());
    return 0;
}

Result<int> list(const Arguments& arguments, Context& context) {
    const Controller controller(context.root);
    const std::uint64_t top = NETCTL_TRY(arguments.number("top", 0, 1, std::uint64_t{1} << 26));
    if (arguments.given("NAME")) {
        Listing listing = NETCTL_TRY(controller.entries(arguments["NAME"]));
        if (listing.named) {
            if (arguments.has("sort") || top != 0)
                return Error::usage("--sort and --top are not for a set of names");
            return list_names(*listing.named, context);
        }
        std::vector<SetEntry>& entries = listing.entries;
        if (arguments.get("sort") == "ttl")
            sort_by_end(entries);
        if (top != 0 && entries.size() > top)
            entries.resize(top);
        Text text;
        for (const SetEntry& entry : entries)
            text += Text::format("{}\n", entry_words(entry));
        context.out.document(entries_json(entries), text);
        return 0;
    }
    if (arguments.has("sort") || top != 0)
        return Error::usage("--sort and --top are about the elements of a set, and none is named");
    Json json = Json::array();
    TextTable table({{"set"},
                     {"type"},
                     {"elements", true},
                     {"live", true},
                     {"size", true},
                     {"memory", true},
                     {"used by"}});
    const std::vector<SetStatus> statuses = NETCTL_TRY(controller.list());
    for (const SetStatus& status : statuses) {
        json.push_back({{"name", status.name},
                        {"type", datapath::to_string(status.type)},
                        {"elements", status.size.elements},
                        {"base", status.size.base},
                        {"live", status.size.live},
                        {"bytes", status.size.bytes},
                        {"size", status.max_entries},
                        {"users", status.users},
                        {"names", status.names ? names_json(*status.names) : Json()}});
        table.row({status.name, datapath::to_string(status.type),
                   std::to_string(status.size.elements), std::to_string(status.size.live),
                   std::to_string(status.max_entries),
                   fmt::format("{} KiB", (status.size.bytes + 1023) / 1024),
                   fmt::format("{}", fmt::join(status.users, ", "))});
    }
    Text text = table.empty() ? Text() : table.render();
    for (const SetStatus& status : statuses)
        if (status.names)
            text += names_text(status.name, *status.names);
    context.out.document(json, text);
    return 0;
}

/// What is in a set, of whatever type.
Result<std::vector<SetEntry>> look_at(const Controller& controller, const std::string& name) {
    Listing listing = NETCTL_TRY(controller.entries(name));
    if (!listing.named)
        return std::move(listing.entries);
    std::vector<SetEntry> entries;
    for (const NamedEntry& one : *listing.named)
        if (one.entry)
            entries.push_back(*one.entry);
    std::sort(entries.begin(), entries.end(),
              [](const SetEntry& a, const SetEntry& b) { return a.element < b.element; });
    return entries;
}

Result<int> watch(const Arguments& arguments, Context& context) {
    using std::chrono::milliseconds, std::chrono::nanoseconds;
    const std::string name = arguments["NAME"];
    const nanoseconds interval = NETCTL_TRY(parse_duration(
        "interval", arguments.get("interval", "1s"), milliseconds(10), std::chrono::hours(1)));
    std::optional<nanoseconds> span;
    if (arguments.has("duration"))
        span = NETCTL_TRY(parse_duration("duration", arguments.get("duration"), milliseconds(1),
                                         std::chrono::hours(24 * 7)));
    const std::uint64_t most = NETCTL_TRY(arguments.number("count", 0, 1, std::uint64_t{1} << 62));
    const Controller controller(context.root);
    std::uint64_t told = 0, looked = sys::wall_ns();
    const auto tell = [&](const SetChange& change, const std::optional<std::uint64_t>& since) {
        Json json{{"time", sys::iso_time(looked)},
                  {"since", since ? Json(sys::iso_time(*since)) : Json()},
                  {"set", name},
                  {"event", to_string(change.event)}};
        json.update(entry_json(change.entry));
        return context.out.line(json,
                                Text::format("{} {} {}", sys::time_text(looked),
                                             to_string(change.event), entry_words(change.entry))) &&
               ++told != most;
    };

    sys::catch_stop_signals();
    std::uint32_t then = datapath::boottime_seconds();
    std::vector<SetEntry> before = NETCTL_TRY(look_at(controller, name));
    if (!arguments.has("changes"))
        for (const SetChange& change : changes_between({}, then, before, then))
            if (!tell({Event::there, change.entry}, {}))
                return 0;
    const std::int64_t begun = sys::monotonic_now();
    const std::int64_t end =
        span ? begun + span->count() : std::numeric_limits<std::int64_t>::max();
    for (std::int64_t due = begun + interval.count(); due <= end; due += interval.count()) {
        while (!sys::stop_requested() && sys::monotonic_now() < due)
            std::this_thread::sleep_for(
                std::min<nanoseconds>(nanoseconds(due - sys::monotonic_now()), milliseconds(100)));
        if (sys::stop_requested())
            break;
        const std::uint64_t since = looked;
        looked = sys::wall_ns();
        const std::uint32_t now = datapath::boottime_seconds();
        std::vector<SetEntry> after = NETCTL_TRY(look_at(controller, name));
        for (const SetChange& change : changes_between(before, then, after, now))
            if (!tell(change, since))
                return 0;
        before = std::move(after);
        then = now;
    }
    return 0;
}

Result<int> test(const Arguments& arguments, Context& context) {
    auto member = Controller(context.root).test(arguments["NAME"], arguments["ELEMENT"]);
    if (!member.has_value())
        return std::move(member).error().could_not_tell();
    context.out.document({{"element", arguments["ELEMENT"]}, {"member", *member}},
                         Text::format("{}\n", *member ? "yes" : "no"));
    return *member ? 0 : 1;
}

/// `path`: a file, a folder, or `-` or nothing for standard input.
Result<std::vector<ElementList>> read_files(const std::string& path_of_all) {
    std::vector<ElementList> lists;
    for (const std::string& path : NETCTL_TRY(sys::text_files(path_of_all)))
        lists.push_back({sys::text_name(path), NETCTL_TRY(sys::read_text(path))});
    return lists;
}

Result<DiffReport> compare(const Arguments& arguments, Context& context) {
    return Controller(context.root)
        .diff(arguments["NAME"], NETCTL_TRY(read_files(arguments["FILE"])),
              arguments.has("skip-bad"));
}

Result<int> diff(const Arguments& arguments, Context& context) {
    auto found = compare(arguments, context);
    if (!found)
        return std::move(found).error().could_not_tell();
    for (const Error& error : found->bad)
        context.out.note(Text::format("left out: {}", error.what));
    Text text;
    for (const auto& [sign, entries] :
         {std::pair{"-", &found->removed}, {"+", &found->added}, {"~", &found->changed}})
        for (const SetEntry& entry : *entries)
            text += Text::format("{} {}\n", sign, entry_words(entry));
    context.out.document({{"added", entries_json(found->added)},
                          {"removed", entries_json(found->removed)},
                          {"changed", entries_json(found->changed)},
                          {"skipped", found->skipped}},
                         text);
    return found->added.empty() && found->removed.empty() && found->changed.empty() ? 0 : 1;
}

Result<int> resolvers(const Arguments& arguments, Context& context) {
    std::vector<Address> addresses;
    for (const std::string& text : arguments.rest())
        addresses.push_back(NETCTL_TRY(Address::parse(text)));
    context.out.notes(NETCTL_TRY(
        Controller(context.root).set_resolvers(arguments["NAME"], addresses, context.netns)));
    return 0;
}

Result<int> resolve(const Arguments& arguments, Context& context) {
    const auto all = NETCTL_TRY(Controller(context.root).resolve(arguments["NAME"], context.netns));
    Json json = Json::array();
    Text text;
    bool answered = true;
    for (const Resolved& one : all) {
        answered = answered && one.trouble.empty();
        json.push_back({{"name", one.name.to_string()}, {"trouble", one.trouble}});
        text += Text::format("{}  {}\n", one.name.to_string(),
                             one.trouble.empty() ? "answered"
                                                 : fmt::format("{}", fmt::join(one.trouble, "; ")));
    }
    context.out.document(json, text);
    return answered ? 0 : 1;
}

Result<int> swap(const Arguments& arguments, Context& context) {
    context.out.notes(
        NETCTL_TRY(Controller(context.root).swap(arguments["NAME"], arguments["OTHER"])));
    return 0;
}

/// What --mmdb, --registry and --country say.
Result<CountryRequest> country_request(const Arguments& arguments) {
    if (!arguments.has("mmdb") && !arguments.has("registry"))
        return Error::usage("--country needs --mmdb or --registry",
                            "whose networks of the country they are");
    if (arguments.has("mmdb") && arguments.has("registry"))
        return Error::usage("one of --mmdb and --registry at a time");
    if (!arguments.has("country"))
        return Error::usage("--country is missing", "--country DE, or DE,FR");
    if (arguments.given("FILE"))
        return Error::usage("there is a FILE beside --mmdb or --registry",
                            "`set import` reads one of them");
    CountryRequest request{.countries = NETCTL_TRY(parse_countries(arguments.get("country")))};
    request.mmdb = arguments.get("mmdb");
    if (arguments.has("registry"))
        request.registries = NETCTL_TRY(read_files(arguments.get("registry")));
    return request;
}

Result<ImportReport> import_what_is_named(const Arguments& arguments, Controller controller) {
    const ImportOptions options{.replace = arguments.has("replace"),
                                .allow_empty = arguments.has("allow-empty"),
                                .skip_bad = arguments.has("skip-bad")};
    if (arguments.has("mmdb") || arguments.has("registry") || arguments.has("country"))
        return controller.import_countries(arguments["NAME"],
                                           NETCTL_TRY(country_request(arguments)), options);
    return controller.import(arguments["NAME"], NETCTL_TRY(read_files(arguments["FILE"])), options);
}

Result<int> import(const Arguments& arguments, Context& context) {
    const ImportReport report =
        NETCTL_TRY(import_what_is_named(arguments, Controller(context.root)));
    context.out.notes(report.notes);
    tell_spared(report, arguments["NAME"], context);
    for (const Error& error : report.bad)
        context.out.note(Text::format("left out: {}", error.what));
    Text text = Text::format("{} elements", report.elements);
    if (report.skipped > 0)
        text += Text::format(", {} lines left out", report.skipped);
    context.out.document({{"elements", report.elements}, {"skipped", report.skipped}},
                         text + Text::format("\n"));
    return 0;
}

} // namespace

const Command& command() {
    static const Command set{
        .name = "set",
        .summary = "sets of addresses, prefixes, ports or names, shared by the rules of every hook",
        .children = {
            {.name = "create",
             .summary = "make an empty set",
             .positionals = {{"NAME"}},
             .options = {{"type",
                          "host|cidr|port|name",
                          "what it holds; IPv4 and IPv6 in one",
                          {"host", "cidr", "port", "name"}},
                         {"size",
                          "N",
                          "elements of each family at most (default: 65536 hosts, 1048576 "
                          "prefixes), or addresses of "
                          "names in all (default: 16384)",
                          {}},
                         {"group", "NAME", "a group whose members may write its elements", {}},
                         {"resolver",
                          "ADDRESS,…",
                          "name: whose answers are believed (default: those that this host asks)",
                          {}},
                         {"grace",
                          "TIME",
                          "name: how much longer addresses stay than DNS says (default: 60s)",
                          {}}},
             .run = create},
            {.name = "destroy",
             .summary = "remove a set that no rule uses",
             .positionals = {{"NAME"}},
             .run = destroy},
            {.name = "chgrp",
             .summary = "let the members of a group write the elements of a set",
             .positionals = {{"NAME"}, {"GROUP"}},
             .run = change_group},
            {.name = "add",
             .summary = "add elements, all or none; takes effect at once",
             .positionals = {{"NAME"}, {"ELEMENT", Count::rest}},
             .options = {{"ttl",
                          "TIME",
                          "forget them after so many seconds, or `10m`, `2h`, `7d`; 0: never",
                          {}},
                         {"exist", "", "do not mention what is there for good already", {}}},
             .run = add},
            {.name = "delete",
             .summary = "delete elements, all or none; takes effect at once",
             .positionals = {{"NAME"}, {"ELEMENT", Count::rest}},
             .options = {{"exist", "", "those that are not in the set are no error", {}}},
             .run = remove},
            {.name = "list",
             .summary = "list the sets, or the elements of one",
             .positionals = {{"NAME", Count::optional}},
             .options = {{"sort",
                          "address|ttl",
                          "elements by address, or port, as they come; or first what ends first",
                          {"address", "ttl"}},
                         {"top", "N", "the first N elements alone", {}}},
             .run = list},
            {.name = "watch",
             .summary = "tell what is in a set, and then what changes in it, as it is seen",
             .positionals = {{"NAME"}},
             .options = {{"interval", "TIME", "how often to look: 100ms, 1s, 1m (default: 1s)", {}},
                         {"changes", "", "not what is there at the first look", {}},
                         {"count", "N", "stop after so many lines", {}},
                         {"duration", "TIME", "stop after this time: 10s, 5m", {}}},
             .run = watch},
            {.name = "test",
             .summary = "tell whether an address or port is in a set; exit status 0 yes, 1 no, 4 "
                        "could not tell",
             .positionals = {{"NAME"}, {"ELEMENT"}},
             .run = test},
            {.name = "import",
             .summary =
                 "add the elements of a file, of all files of a folder, or of standard input",
             .description =
                 "One element a line, with comments; what `set list` prints, as text or JSON; "
                 "`ipset save`, `nft -j list set`, CrowdSec's and Spamhaus' lists. With --country "
                 "the networks of countries.",
             .positionals = {{"NAME"}, {"FILE", Count::optional}},
             .options =
                 {{"mmdb", "FILE", "a database in MaxMind's format instead of a list", {}},
                  {"registry",
                   "FILE",
                   "a registry's list (delegated-extended), or a folder of them",
                   {}},
                  {"country", "CC,…", "whose networks are taken from these: DE, or DE,FR", {}},
                  {"replace", "", "remove what the list does not have", {}},
                  {"allow-empty", "", "replace also by nothing", {}},
                  {"skip-bad", "", "leave out what cannot be read, and tell how much", {}}},
             .run = import},
            {.name = "diff",
             .summary =
                 "tell what `import --replace` of a list would change; exit status 0 nothing, "
                 "1 something, 4 could not tell",
             .positionals = {{"NAME"}, {"FILE", Count::optional}},
             .options = {{"skip-bad", "", "leave out what cannot be read, and tell how much", {}}},
             .run = diff},
            {.name = "resolve",
             .summary =
                 "ask for the names of a set once, those with a * aside; exit status 0 all are "
                 "answered, 1 not all",
             .positionals = {{"NAME"}},
             .run = resolve},
            {.name = "resolvers",
             .summary = "say whose answers a set of names believes; without any: those that this "
                        "host asks now",
             .positionals = {{"NAME"}, {"ADDRESS", Count::rest}},
             .run = resolvers},
            {.name = "swap",
             .summary = "give two sets each other's elements, in one step",
             .positionals = {{"NAME"}, {"OTHER"}},
             .run = swap},
            {.name = "fold",
             .summary =
                 "move prefixes from the live map, which other tools write, into the fast base",
             .positionals = {{"NAME"}},
             .run = fold},
        }};
    return set;
}

} // namespace netctl::set
