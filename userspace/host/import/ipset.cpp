// SPDX-License-Identifier: GPL-2.0-only
//
// What `ipset save` prints: ipset(8). Elements are read by the reader of `set import`.
#include <algorithm>

#include <fmt/format.h>

#include "core/lines.hpp"
#include "datapath/set_text_reader.hpp"
#include "host/import/foreign.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

/// The first word, which is taken off.
std::string_view first_word(std::string_view& line) {
    const std::size_t begin = std::min(line.find_first_not_of(" \t\r"), line.size());
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end);
    return word;
}

/// A set in the making.
struct Open {
    SetConfig config;
    datapath::ElementReader reader;
    std::string place; ///< of its `create`
    std::size_t added = 0;
};

std::optional<datapath::SetType> type_of(std::string_view word) {
    if (word == "hash:ip" || word == "bitmap:ip")
        return datapath::SetType::host;
    if (word == "hash:net")
        return datapath::SetType::cidr;
    if (word == "bitmap:port")
        return datapath::SetType::port;
    return std::nullopt;
}

} // namespace

Result<> read_ipset(const std::string& name, std::string_view text, Foreign& foreign) {
    std::map<std::string, Open, std::less<>> open;
    std::map<std::string, std::string, std::less<>> refused; // why
    bool any = false;
    for (const NumberedLine& one : numbered_lines(text)) {
        const std::string_view line = one.text;
        std::string_view rest = line;
        const std::string_view verb = first_word(rest), set = first_word(rest);
        const std::string place = fmt::format("{}:{}", name, one.number);
        if (verb.empty() || verb.starts_with('#'))
            continue;
        const auto miss = [&](std::string reason, std::uint8_t effect) {
            foreign.not_taken.push_back({place, std::string(line), std::move(reason), effect});
        };
        if (verb == "create" && !set.empty()) {
            any = true;
            const std::string_view type = first_word(rest);
            const std::string ours = set_name_of(set);
            const auto wanted = type_of(type);
            const bool there = foreign.sets.contains(ours) || open.contains(ours);
            if (!wanted || there) {
                std::string why = there ? fmt::format("there is a set '{}' already", ours)
                                        : fmt::format("netctl has no sets of type {}", type);
                // The rules that ask it are listed, each with what that means.
                miss(std::move(why), effect_none);
                refused.emplace(set, "");
                continue;
            }
            SetConfig config;
            config.name = ours;
            config.type = *wanted;
            while (!rest.empty())
                if (const std::string_view word = first_word(rest); word == "maxelem") {
                    const auto size = plain_number(first_word(rest));
                    if (size && *size > 0 && *size <= 16'000'000)
                        config.size = static_cast<std::uint32_t>(*size);
                }
            open.emplace(ours, Open{std::move(config), {*wanted, name}, place});
        } else if (verb == "add" && !set.empty()) {
            any = true;
            const auto found = open.find(set_name_of(set));
            if (found == open.end() || refused.contains(set)) {
                if (!refused.contains(set))
                    miss("its set is not created before", effect_weaker | effect_cuts);
                continue;
            }
            found->second.reader.lines(line, one.number);
            found->second.added++;
        } else {
            miss(fmt::format("'{}' is no line of `ipset save`", verb), effect_weaker | effect_cuts);
        }
    }
    if (!any)
        return Error::usage(Text::format("{} is not what `ipset save` prints", name));
    for (auto& [ours, one] : open) {
        datapath::ReadElements read = std::move(one.reader).finish();
        if (read.bad != 0)
            foreign.not_taken.push_back({one.place, "",
                                         fmt::format("{} elements of the set cannot be read: {}",
                                                     read.bad, read.errors.front().what.string()),
                                         effect_weaker | effect_cuts});
        one.config.elements = std::move(read.elements);
        datapath::sort_listed(one.config.elements);
        if (one.config.size)
            one.config.size =
                std::max(*one.config.size, static_cast<std::uint32_t>(one.config.elements.size()));
        foreign.sets[ours] = std::move(one.config);
    }
    return {};
}

} // namespace netctl::host
