// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/json.hpp"
#include "host/host.hpp"
#include "host/import/import.hpp"
#include "sys/replace_file.hpp"
#include "sys/text_file.hpp"

namespace netctl::host {

namespace {

const char* effect_text(std::uint8_t effect) {
    if ((effect & effect_cuts) != 0)
        return (effect & effect_weaker) != 0 ? "weaker and cuts" : "cuts";
    return (effect & effect_weaker) != 0     ? "weaker"
           : (effect & effect_stricter) != 0 ? "stricter"
                                             : "none";
}

Result<> read_as(Format format, const std::string& name, const std::string& text,
                 Foreign& foreign) {
    switch (format) {
    case Format::nft: return read_nft(name, text, foreign);
    case Format::ipset: return read_ipset(name, text, foreign);
    case Format::iptables:
    case Format::ufw: return read_iptables(name, text, format == Format::ufw, foreign);
    case Format::firewalld: return read_firewalld(name, text, foreign);
    case Format::xdp_filter: break;
    }
    return read_xdp_filter(name, text, foreign);
}

struct Input {
    std::string name, text;
    Format format{};
};

Result<std::vector<Input>> inputs_of(const Arguments& arguments) {
    std::vector<Input> inputs;
    if (arguments.rest().empty())
        return Error::usage("FILE is missing", "one or several files, or - for standard input");
    for (const std::string& path : arguments.rest()) {
        Input input{sys::text_name(path), NETCTL_TRY(sys::read_text(path))};
        if (arguments.has("from")) {
            const auto& names = format_names();
            input.format = static_cast<Format>(
                std::find(names.begin(), names.end(), arguments.get("from")) - names.begin());
        } else if (const auto guessed = guess_format(input.text)) {
            input.format = *guessed;
        } else {
            const bool nft_text = input.text.find("table ") != std::string::npos &&
                                  input.text.find('{') != std::string::npos;
            return Error::usage(Text::format("{} does not tell what it is", input.name),
                                nft_text ? "of nft its JSON is read: nft -j list ruleset"
                                         : "--from says it");
        }
        inputs.push_back(std::move(input));
    }
    // Rules name sets, wherever these stand.
    std::stable_sort(inputs.begin(), inputs.end(), [](const Input& one, const Input& other) {
        return one.format == Format::ipset && other.format != Format::ipset;
    });
    return inputs;
}

std::vector<std::string> interfaces_of(const std::string& list) {
    std::vector<std::string> names;
    for (std::size_t at = 0; at < list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        if (end > at)
            names.push_back(list.substr(at, end - at));
        at = end + 1;
    }
    return names;
}

Result<> not_refused(const Imported& imported, const Arguments& arguments) {
    struct Bound {
        std::uint8_t effect;
        const char *option, *what;
    };
    constexpr Bound bounds[] = {
        {effect_weaker, "allow-weaker", "would let through what the rules drop"},
        {effect_cuts, "allow-cuts", "would cut established connections, or what is routed"},
    };
    for (const Bound& bound : bounds) {
        if ((imported.effect & bound.effect) == 0 || arguments.has(bound.option))
            continue;
        Text places;
        for (const NotTaken& one : imported.not_taken)
            if ((one.effect & bound.effect) != 0)
                places += Text::format("{}{}", places.empty() ? "" : ", ", one.place);
        return Error::failed(
            Text::format("the result {}: {}", bound.what, places.first_columns(400)),
            Text::format("--{} writes it all the same", bound.option));
    }
    return {};
}

Result<int> run_import(const Arguments& arguments, Context& context) {
    Foreign foreign;
    std::string names;
    for (const Input& input : NETCTL_TRY(inputs_of(arguments))) {
        NETCTL_TRY(read_as(input.format, input.name, input.text, foreign));
        names += (names.empty() ? "" : ", ") + input.name;
    }
    NETCTL_TRY(finish_ufw(foreign));
    ImportOptions options{interfaces_of(arguments.get("interfaces")),
                          arguments.get("hook", "xdp") == "tc" ? Hook::tc : Hook::xdp};
    const Imported imported = NETCTL_TRY(import(std::move(foreign), options));
    const std::size_t missed = imported.not_taken.size();
    std::string yaml = fmt::format("# From {} by `netctl import`: {} rules read, {} not taken.\n",
                                   shown(names), imported.rules, missed);
    yaml += NETCTL_TRY(config_text(imported.config));

    Json list = Json::array();
    for (const NotTaken& one : imported.not_taken) {
        list.push_back({{"place", one.place},
                        {"text", one.text},
                        {"reason", one.reason},
                        {"effect", effect_text(one.effect)}});
        const Text effect =
            one.effect == effect_none ? Text() : Text::format(" ({})", effect_text(one.effect));
        if (!context.out.json())
            context.out.note(Text::format("{}{}{}: {}{}", one.place, one.text.empty() ? "" : ": ",
                                          one.text, one.reason, effect));
    }
    context.out.notes(imported.notes);
    const auto refused = not_refused(imported, arguments);
    if (!refused) {
        if (context.out.json())
            context.out.document(
                {{"rule_count", imported.rules}, {"not_taken", list}, {"yaml", Json()}}, Text());
        return refused.error();
    }
    const bool to_file = arguments.has("output") && arguments.get("output") != "-";
    if (to_file)
        NETCTL_TRY(sys::replace_file(arguments.get("output"), yaml, 0644));
    context.out.document({{"rule_count", imported.rules},
                          {"not_taken", list},
                          {"yaml", to_file ? Json() : Json(yaml)}},
                         to_file ? Text() : Text::lines(yaml));
    return missed == 0 ? 0 : 3;
}

} // namespace

Command import_command() {
    return {
        .name = "import",
        .summary = "make a configuration file of the rules of another firewall",
        .description =
            "What is not taken is listed with its place, the reason, and what that means. Exit "
            "status 3: there was some.",
        .positionals = {{"FILE", Positional::Count::rest}},
        .options =
            {{"from", fmt::format("{}", fmt::join(format_names(), "|")),
              "what the files are in, where they do not tell", format_names()},
             {"interfaces", "LIST", "the interfaces to filter, with commas between", {}},
             {"hook", "xdp|tc", "where what arrives is judged; if left out: xdp", {"xdp", "tc"}},
             {"output", "FILE", "write the configuration there", {}},
             {"allow-weaker", "", "also if it lets through what the rules drop", {}},
             {"allow-cuts", "", "also if it cuts established connections, or what is routed", {}}},
        .run = run_import};
}

} // namespace netctl::host
