// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>

#include <fmt/format.h>

#include "core/command.hpp"
#include "core/json.hpp"
#include "datapath/set_text.hpp"
#include "features/set/controller.hpp"
#include "sys/text_file.hpp"

namespace netctl::set {

namespace {

using datapath::SetEntry;
using Count = Positional::Count;

Result<int> create(const Arguments& arguments, Context& context) {
    if (!arguments.has("type"))
        return Error::usage("--type is missing", "host, cidr or port");
    const auto type = NETCTL_TRY(datapath::parse_set_type(arguments.get("type")));
    const std::uint64_t size =
        NETCTL_TRY(arguments.number("size", default_size(type), 1, std::uint64_t{1} << 26));
    Controller controller(context.root);
    context.out.notes(NETCTL_TRY(controller.create(
        arguments["NAME"], type, static_cast<std::uint32_t>(size), arguments.get("group"))));
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

Text entry_text(const SetEntry& entry) {
    Text text = datapath::to_string(entry.element);
    const std::uint32_t now = datapath::boottime_seconds();
    if (entry.value.expires != 0)
        text += entry.value.expires > now
                    ? Text::format("  expires in {} s", entry.value.expires - now)
                    : "  expired";
    if ((entry.value.flags & NC_SET_ABSENT) != 0)
        text += "  absent";
    return Text::format("{}\n", text);
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

Result<int> list(const Arguments& arguments, Context& context) {
    const Controller controller(context.root);
    const std::uint64_t top = NETCTL_TRY(arguments.number("top", 0, 1, std::uint64_t{1} << 26));
    if (arguments.given("NAME")) {
        std::vector<SetEntry> entries = NETCTL_TRY(controller.entries(arguments["NAME"]));
        if (arguments.get("sort") == "ttl")
            sort_by_end(entries);
        if (top != 0 && entries.size() > top)
            entries.resize(top);
        Text text;
        for (const SetEntry& entry : entries)
            text += entry_text(entry);
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
    for (const SetStatus& status : NETCTL_TRY(controller.list())) {
        json.push_back({{"name", status.name},
                        {"type", datapath::to_string(status.type)},
                        {"elements", status.size.elements},
                        {"base", status.size.base},
                        {"live", status.size.live},
                        {"bytes", status.size.bytes},
                        {"size", status.max_entries},
                        {"users", status.users}});
        table.row({status.name, datapath::to_string(status.type),
                   std::to_string(status.size.elements), std::to_string(status.size.live),
                   std::to_string(status.max_entries),
                   fmt::format("{} KiB", (status.size.bytes + 1023) / 1024),
                   fmt::format("{}", fmt::join(status.users, ", "))});
    }
    context.out.document(json, table.empty() ? "" : table.render());
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

Result<std::vector<ElementList>> read_files(const Arguments& arguments) {
    std::vector<ElementList> lists;
    for (const std::string& path : NETCTL_TRY(sys::text_files(arguments["FILE"])))
        lists.push_back({sys::text_name(path), NETCTL_TRY(sys::read_text(path))});
    return lists;
}

Result<DiffReport> compare(const Arguments& arguments, Context& context) {
    return Controller(context.root)
        .diff(arguments["NAME"], NETCTL_TRY(read_files(arguments)), arguments.has("skip-bad"));
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
            text += Text::format("{} {}", sign, entry_text(entry));
    context.out.document({{"added", entries_json(found->added)},
                          {"removed", entries_json(found->removed)},
                          {"changed", entries_json(found->changed)},
                          {"skipped", found->skipped}},
                         text);
    return found->added.empty() && found->removed.empty() && found->changed.empty() ? 0 : 1;
}

Result<int> swap(const Arguments& arguments, Context& context) {
    context.out.notes(
        NETCTL_TRY(Controller(context.root).swap(arguments["NAME"], arguments["OTHER"])));
    return 0;
}

Result<int> import(const Arguments& arguments, Context& context) {
    const std::vector<ElementList> lists = NETCTL_TRY(read_files(arguments));
    const ImportReport report = NETCTL_TRY(Controller(context.root)
                                               .import(arguments["NAME"], lists,
                                                       {.replace = arguments.has("replace"),
                                                        .allow_empty = arguments.has("allow-empty"),
                                                        .skip_bad = arguments.has("skip-bad")}));
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
        .summary = "sets of addresses, prefixes or ports, shared by the rules of every hook",
        .children = {
            {.name = "create",
             .summary = "make an empty set",
             .positionals = {{"NAME"}},
             .options =
                 {{"type",
                   "host|cidr|port",
                   "what it holds; IPv4 and IPv6 in one",
                   {"host", "cidr", "port"}},
                  {"size",
                   "N",
                   "elements of each family at most (default: 65536 hosts, 1048576 prefixes)",
                   {}},
                  {"group", "NAME", "a group whose members may write its elements", {}}},
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
             .options = {{"ttl", "SECONDS", "forget them after this time; 0: never", {}},
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
                 "`ipset save`, `nft -j list set`, CrowdSec's and Spamhaus' lists.",
             .positionals = {{"NAME"}, {"FILE", Count::optional}},
             .options = {{"replace", "", "remove what the list does not have", {}},
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
